//! How tasks end without a result: because something failed, or because nobody waits any more.

use std::collections::HashMap;
use std::sync::Arc;

use super::{
    CallerId, Evaluation, FlightId, Phase, Progress, State, Step, TIDY_FROM, Task, TaskId, ViewId, Waiter,
    Want,
};
use crate::graph::memo::Value;
use crate::graph::{Cause, GraphError, NodePath};

impl Evaluation {
    /// Ends a task and everything that waits for it with an error that names the way to the failure.
    pub(super) fn fail(&mut self, id: TaskId, cause: &Cause) {
        // By which node each node was reached; the one that failed was reached by none.
        let mut reached_by: HashMap<u32, u32> = HashMap::new();
        let mut failing = vec![id];
        while let Some(id) = failing.pop() {
            self.withdraw(id);
            let Some(task) = self.end(id) else { continue };
            let Task { view, node, waiters, .. } = task;
            if !self.is_known(view, node) {
                self.slot_mut(view, node).state = State::Failed;
            }
            for waiter in waiters.into_iter().flat_map(|waiters| waiters.list) {
                match waiter {
                    Waiter::Task(dependant, _) => {
                        if let Some(task) = self.tasks.get(dependant) {
                            reached_by.entry(task.node).or_insert(node);
                            failing.push(dependant);
                        }
                    }
                    Waiter::Caller(caller, place) if self.callers.contains(caller) => {
                        let path = self.path(node, &reached_by);
                        self.answer(caller, place, Err(GraphError::Node { path, cause: cause.clone() }));
                    }
                    Waiter::Caller(..) => {}
                }
            }
        }
    }

    fn path(&self, from: u32, reached_by: &HashMap<u32, u32>) -> NodePath {
        let nodes = std::iter::successors(Some(from), |node| reached_by.get(node).copied());
        NodePath(nodes.map(|node| Arc::clone(self.plan.name(node))).collect())
    }

    /// Notes an answer, and wakes the caller when it need not wait any more.
    pub(super) fn answer(&mut self, caller: CallerId, place: u32, answer: Result<Value, GraphError>) {
        let Some(caller) = self.callers.get_mut(caller) else { return };
        caller.answers[place as usize] = Some(answer);
        caller.missing -= 1;
        if caller.is_content() {
            self.effects.wakers.push(caller.waker.clone());
        }
    }

    /// Ends a task that nobody waits for.
    pub(super) fn cancel(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get(id) else { return };
        if task.waiters.iter().all(|waiters| waiters.present == 0) {
            self.withdraw(id);
            self.end(id);
        }
    }

    /// Notes that one of those who wait for a node is gone.
    pub(super) fn lower(&mut self, view: ViewId, node: u32, want: Want) {
        let Some(id) = self.slot(view, node).task else { return };
        let Some(task) = self.tasks.get_mut(id) else { return };
        task.waiters[want as usize].present -= 1;
        if task.waiters.iter().all(|waiters| waiters.present == 0) {
            self.steps.push(Step::Cancel(id));
        }
    }

    /// Takes back everything that a task waits for.
    fn withdraw(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get(id) else { return };
        let (view, node, phase) = (task.view, task.node, task.phase);
        let want = match phase {
            Phase::New => return,
            Phase::Prints => Want::Print,
            Phase::Values => Want::Value,
            Phase::Aloft(flight) => return self.unsubscribe(flight),
        };
        let has_come: Vec<bool> = match want {
            Want::Print => Vec::new(),
            Want::Value => task.inputs.iter().map(Option::is_some).collect(),
        };
        let plan = Arc::clone(&self.plan);
        for (place, dep) in plan.nodes[node as usize].deps.iter().enumerate() {
            let has_come = match want {
                Want::Print => self.is_known(view, *dep),
                Want::Value => has_come[place],
            };
            if !has_come {
                self.lower(view, *dep, want);
            }
        }
    }

    /// A flight that nobody waits for is taken out of the queue or dropped, unless it cannot be stopped.
    fn unsubscribe(&mut self, id: FlightId) {
        let Some(flight) = self.flights.get_mut(id) else { return };
        flight.present -= 1;
        if flight.present > 0 {
            return;
        }
        match &flight.progress {
            Progress::Committed => return,
            Progress::Running(abort) => abort.abort(),
            Progress::Queued => {}
        }
        self.counts.cancelled += 1;
        if let Some(flight) = self.flights.remove(id) {
            self.aloft.remove(&flight.key);
            self.effects.garbage.extend(flight.inputs);
        }
        if self.ready.len() > TIDY_FROM.max(2 * self.flights.len()) {
            self.ready.retain(|flight| self.flights.contains(*flight));
        }
    }

    /// Takes a task out.
    pub(super) fn end(&mut self, id: TaskId) -> Option<Task> {
        let mut task = self.tasks.remove(id)?;
        self.slot_mut(task.view, task.node).task = None;
        self.effects.garbage.extend(task.inputs.drain(..).flatten());
        Some(task)
    }
}
