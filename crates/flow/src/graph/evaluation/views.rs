//! Views: given inputs, what is known under them, and what a change makes stale.

use std::sync::Arc;

use super::{Evaluation, Known, Phase, Progress, Slot, State, ViewId, ViewState};
use crate::graph::Fingerprint;
use crate::graph::draw::NodeState;
use crate::graph::memo::Memo;
use crate::graph::plan::{Given, Source};

/// What is changed in a view.
pub(in crate::graph) enum Edit {
    /// An input is given a value.
    Give(u32, Given),
    /// A node's results are void; its further ones are told from them by this.
    Void(u32, Fingerprint),
}

/// Whether a change has changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The input has this value already.
    None,
    /// The input has another value now.
    Changed,
}

impl Evaluation {
    /// The view that the graph itself holds.
    pub(in crate::graph) fn current(&self) -> ViewId {
        self.current
    }

    /// Adds a holder.
    pub(in crate::graph) fn hold(&mut self, view: ViewId) -> ViewId {
        self.view_mut(view).handles += 1;
        view
    }

    /// Takes away a holder; a view that nobody holds goes.
    pub(in crate::graph) fn release(&mut self, view: ViewId) {
        let state = self.view_mut(view);
        state.handles -= 1;
        if state.handles == 0
            && let Some(state) = self.views.remove(view)
        {
            self.effects.garbage.extend(state.given.into_values());
        }
    }

    /// Makes `view`, which the caller holds, the one that the graph holds.
    pub(in crate::graph) fn adopt(&mut self, view: ViewId) {
        self.hold(view);
        let before = std::mem::replace(&mut self.current, view);
        self.release(before);
    }

    /// Changes the view that the graph holds; whoever holds it too keeps it as it was.
    pub(in crate::graph) fn edit(&mut self, edit: Edit) -> Change {
        if self.is_idle(self.current, &edit) {
            return Change::None;
        }
        if self.view(self.current).handles > 1 {
            let fork = self.fork(self.current);
            let before = std::mem::replace(&mut self.current, fork);
            self.release(before);
        }
        self.apply(self.current, edit);
        Change::Changed
    }

    /// A view that differs from `view` in one thing. It has one holder.
    pub(in crate::graph) fn vary(&mut self, view: ViewId, edit: Edit) -> ViewId {
        let fork = self.fork(view);
        if !self.is_idle(fork, &edit) {
            self.apply(fork, edit);
        }
        fork
    }

    fn fork(&mut self, view: ViewId) -> ViewId {
        let ViewState { slots, given, voided, .. } = self.view(view);
        let slots = slots.iter().map(|slot| Slot { state: slot.state, task: None }).collect();
        let (given, voided) = (given.clone(), voided.clone());
        self.views.insert(ViewState { handles: 1, slots, given, voided })
    }

    /// Whether an edit would change nothing.
    fn is_idle(&self, view: ViewId, edit: &Edit) -> bool {
        match edit {
            Edit::Give(node, Given { print, .. }) => match self.slot(view, *node).state {
                State::Known(known) => known.print == *print,
                _ => false,
            },
            Edit::Void(..) => false,
        }
    }

    fn apply(&mut self, view: ViewId, edit: Edit) {
        let plan = Arc::clone(&self.plan);
        let state = self.views.get_mut(view).expect("the caller holds the view");
        let (by, mut stale) = match edit {
            Edit::Give(node, Given { value, print }) => {
                state.slots[node as usize].state = State::Known(Known { key: print, print });
                self.effects.garbage.extend(state.given.insert(node, value));
                (node, plan.nodes[node as usize].dependants.clone())
            }
            Edit::Void(node, salt) => {
                state.voided.insert(node, salt);
                (node, vec![node])
            }
        };
        // Behind a node that is not known nothing is, so there is nothing to be made stale.
        while let Some(node) = stale.pop() {
            let slot = &mut state.slots[node as usize];
            if let State::Known(known) = slot.state {
                slot.state = State::Stale { by, known };
                stale.extend(&plan.nodes[node as usize].dependants);
            }
        }
    }

    /// Drops the kept value of a node.
    pub(in crate::graph) fn discard(&mut self, view: ViewId, node: u32) {
        if let State::Known(known) = self.slot(view, node).state {
            let gone = self.memo.discard(known.key);
            self.effects.garbage.extend(gone);
        }
    }

    /// What a node is at, for people.
    pub(in crate::graph) fn node_state(&self, view: ViewId, node: u32) -> NodeState {
        let Slot { state, task } = *self.slot(view, node);
        if let Some(task) = task.and_then(|task| self.tasks.get(task)) {
            let flight = match task.phase {
                Phase::Aloft(flight) => self.flights.get(flight),
                _ => None,
            };
            return match flight {
                Some(flight) if !matches!(flight.progress, Progress::Queued) => NodeState::Running,
                _ => NodeState::Waiting,
            };
        }
        let is_given = matches!(self.plan.nodes[node as usize].source, Source::Given(_));
        match state {
            State::Known(_) if is_given => NodeState::Set,
            State::New if is_given => NodeState::Unset,
            State::Known(known) if Memo::holds(&self.memo, known.key) => NodeState::Cached,
            State::Known(_) => NodeState::Evicted,
            State::Stale { .. } => NodeState::Dirty,
            State::Failed if is_given => NodeState::Unset,
            State::Failed => NodeState::Failed,
            State::New => NodeState::New,
        }
    }
}
