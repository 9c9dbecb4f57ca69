//! How a need goes down a graph, and how what is known comes up again.

use super::{
    Evaluation, Flight, Known, Phase, Progress, State, Step, TIDY_FROM, Task, TaskId, ViewId, Waiter,
    Waiters, Want,
};
use crate::graph::Fingerprint;
use crate::graph::builder::Comparison;
use crate::graph::memo::Value;
use crate::graph::node::Computation;
use crate::graph::plan::Plan;
use crate::graph::{Cause, Digest};

impl Evaluation {
    /// Notes that `waiter` needs something of a node that is not there.
    pub(super) fn demand(&mut self, view: ViewId, node: u32, want: Want, waiter: Waiter) {
        let id = match self.slot(view, node).task {
            Some(task) => task,
            None => {
                let task = self.tasks.insert(Task {
                    view,
                    node,
                    phase: Phase::New,
                    missing: 0,
                    inputs: Vec::new(),
                    key: None,
                    waiters: Default::default(),
                });
                self.slot_mut(view, node).task = Some(task);
                self.steps.push(Step::Open(task));
                task
            }
        };
        let Some(task) = self.tasks.get_mut(id) else { return };
        let waiters = &mut task.waiters[want as usize];
        waiters.list.push(waiter);
        waiters.present += 1;
        if waiters.list.len() > TIDY_FROM.max(2 * waiters.present) {
            self.tidy(id, want);
        }
    }

    fn tidy(&mut self, id: TaskId, want: Want) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let mut list = std::mem::take(&mut task.waiters[want as usize].list);
        list.retain(|waiter| match waiter {
            Waiter::Task(task, _) => self.tasks.contains(*task),
            Waiter::Caller(caller, _) => self.callers.contains(*caller),
        });
        if let Some(task) = self.tasks.get_mut(id) {
            task.waiters[want as usize].list = list;
        }
    }

    /// Begins a task: asks for whatever is not known of what its node depends on.
    pub(super) fn open(&mut self, plan: &Plan, id: TaskId) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let (view, node) = (task.view, task.node);
        let spec = &plan.nodes[node as usize];
        if spec.computation().is_none() {
            self.fail(id, &Cause::Unset);
            return;
        }
        if let State::Known(Known { key, .. }) = self.slot(view, node).state {
            return self.gather(plan, id, key);
        }
        let mut missing = 0;
        for (place, dep) in spec.deps.iter().enumerate() {
            if !self.is_known(view, *dep) {
                self.demand(view, *dep, Want::Print, Waiter::Task(id, place as u32));
                missing += 1;
            }
        }
        self.wait(id, Phase::Prints, missing);
    }

    /// Goes on with a task for which everything has come that it waited for.
    pub(super) fn advance(&mut self, plan: &Plan, id: TaskId) {
        let Some(task) = self.tasks.get(id) else { return };
        match (task.phase, task.key) {
            (Phase::Values, Some(key)) => self.launch(id, key),
            (Phase::Prints, _) => self.identify(plan, id),
            _ => {}
        }
    }

    /// What a task does once everything that its node depends on is known: its own key is, and perhaps its result.
    fn identify(&mut self, plan: &Plan, id: TaskId) {
        let Some(task) = self.tasks.get(id) else { return };
        let (view, node) = (task.view, task.node);
        let needs_value = task.waiters[Want::Value as usize].present > 0;
        let Some(computation) = plan.nodes[node as usize].computation() else { return };
        let key = self.key(plan, view, node, computation.seed);
        if let Some(print) = self.print(view, node, computation, key) {
            let value = if needs_value { self.memo.get(key) } else { None };
            self.settle(id, Known { key, print }, value);
        }
        if self.tasks.contains(id) {
            self.gather(plan, id, key);
        }
    }

    fn key(&self, plan: &Plan, view: ViewId, node: u32, seed: Fingerprint) -> Fingerprint {
        let mut digest = Digest::new();
        self.feed_key(view, node, seed, &mut digest);
        for dep in &plan.nodes[node as usize].deps {
            if let State::Known(known) = self.slot(view, *dep).state {
                digest.fingerprint(known.print);
            }
        }
        digest.finish().expect("nothing opaque was fed")
    }

    /// Feeds what begins a node's key; what follows are the fingerprints of what it depends on, in order.
    pub(super) fn feed_key(&self, view: ViewId, node: u32, seed: Fingerprint, digest: &mut Digest) {
        digest.fingerprint(seed);
        if let Some(salt) = self.view(view).voided.get(&node) {
            digest.fingerprint(*salt);
        }
    }

    /// The fingerprint of the result under `key`, if it is known.
    pub(super) fn print(
        &self,
        view: ViewId,
        node: u32,
        computation: &Computation,
        key: Fingerprint,
    ) -> Option<Fingerprint> {
        match self.slot(view, node).state {
            _ if computation.settings.comparison == Comparison::Inputs => Some(key),
            State::Stale { known, .. } if known.key == key => Some(known.print),
            _ => self.memo.print(key),
        }
    }

    /// Asks for the values of what the node depends on, as far as they are not there.
    fn gather(&mut self, plan: &Plan, id: TaskId, key: Fingerprint) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        task.key = Some(key);
        let (view, node) = (task.view, task.node);
        let deps = &plan.nodes[node as usize].deps;
        let mut inputs = std::mem::take(&mut task.inputs);
        inputs.resize(deps.len(), None);
        let mut missing = 0;
        for (place, dep) in deps.iter().enumerate() {
            if inputs[place].is_none() {
                inputs[place] = self.at_hand(view, *dep);
            }
            if inputs[place].is_none() {
                self.demand(view, *dep, Want::Value, Waiter::Task(id, place as u32));
                missing += 1;
            }
        }
        if let Some(task) = self.tasks.get_mut(id) {
            task.inputs = inputs;
        }
        self.wait(id, Phase::Values, missing);
    }

    fn wait(&mut self, id: TaskId, phase: Phase, missing: usize) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        task.phase = phase;
        task.missing = missing;
        if missing == 0 {
            self.steps.push(Step::Advance(id));
        }
    }

    /// Joins the run of that key, or queues one.
    fn launch(&mut self, id: TaskId, key: Fingerprint) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let node = task.node;
        let inputs = std::mem::take(&mut task.inputs).into_iter().flatten();
        // Another view may have got the same result meanwhile.
        if let Some((value, print)) = self.memo.find(key) {
            self.effects.garbage.extend(inputs);
            return self.settle(id, Known { key, print }, Some(value));
        }
        let flight = match self.aloft.get(&key) {
            Some(flight) => {
                self.effects.garbage.extend(inputs);
                self.counts.joined += 1;
                *flight
            }
            None => {
                self.memo.missed();
                let flight = self.flights.insert(Flight {
                    node,
                    key,
                    inputs: inputs.collect(),
                    subscribers: Vec::new(),
                    present: 0,
                    progress: Progress::Queued,
                });
                self.aloft.insert(key, flight);
                self.ready.push_back(flight);
                flight
            }
        };
        task.phase = Phase::Aloft(flight);
        if let Some(flight) = self.flights.get_mut(flight) {
            flight.subscribers.push(id);
            flight.present += 1;
            if flight.subscribers.len() > TIDY_FROM.max(2 * flight.present) {
                flight.subscribers.retain(|task| self.tasks.contains(*task));
            }
        }
    }

    /// Notes what a node's result is, and hands it to those who wait: its fingerprint, and its value if there is one.
    pub(super) fn settle(&mut self, id: TaskId, known: Known, value: Option<Value>) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let (view, node) = (task.view, task.node);
        let informed = std::mem::take(&mut task.waiters[Want::Print as usize]);
        let served = match value {
            Some(_) => std::mem::take(&mut task.waiters[Want::Value as usize]),
            None => Waiters::default(),
        };
        if task.waiters[Want::Value as usize].present == 0 {
            self.end(id);
        }
        if !self.is_known(view, node) {
            self.slot_mut(view, node).state = State::Known(known);
        }
        // Who asked for the fingerprint gets a value too if it was just made: it may need it, and it may not be kept.
        for waiter in informed.list.into_iter().chain(served.list) {
            self.deliver(waiter, value.clone());
        }
        self.effects.garbage.extend(value);
    }

    /// Gives a waiter that is still there what it waited for.
    pub(super) fn deliver(&mut self, waiter: Waiter, value: Option<Value>) {
        match waiter {
            Waiter::Task(id, place) => {
                let Some(task) = self.tasks.get_mut(id) else { return };
                if value.is_some() {
                    task.inputs.resize(self.plan.nodes[task.node as usize].deps.len(), None);
                    task.inputs[place as usize] = value;
                }
                task.missing -= 1;
                if task.missing == 0 {
                    self.steps.push(Step::Advance(id));
                }
            }
            Waiter::Caller(id, place) => {
                if let Some(value) = value {
                    self.answer(id, place, Ok(value));
                }
            }
        }
    }
}
