//! Who needs what, what is known, what runs: the synchronous heart of a graph.
//!
//! A *view* is a set of given inputs together with what is known under them. For every node that is being worked on in
//! a view there is a *task*; it first waits for the fingerprints of what it depends on, and if its own result is not
//! known under these, for their values, and then for a *flight*: one run of the node's function, shared by all views
//! that need the same result. A *caller* waits for values of tasks. A task that nobody waits for any more ends, and so
//! does a flight; that is all there is to cancellation.
//!
//! Nothing here waits or calls a function of the user; whoever holds the lock applies the [`Effects`] after letting go
//! of it. Everything that could be deep is a list of steps instead of a recursion.

mod demand;
mod ending;
mod flights;
mod forecast;
mod views;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;

use futures::future::AbortHandle;

pub use views::Change;

pub(super) use flights::{Commitment, Job, JobTicket};
pub(super) use forecast::Forecast;
pub(super) use views::Edit;

use super::fingerprint::BuildAsIs;
use super::memo::{Memo, Value};
use super::plan::{Plan, Source};
use super::slab::{Id, Slab};
use super::{Fingerprint, GraphError};

pub(super) type ViewId = Id<ViewState>;
pub(super) type CallerId = Id<Caller>;
type TaskId = Id<Task>;
type FlightId = Id<Flight>;

/// Given inputs, and what is known of all nodes under them.
pub(super) struct ViewState {
    /// How many hold it; with none it goes.
    handles: usize,
    slots: Vec<Slot>,
    given: BTreeMap<u32, Value>,
    /// Nodes whose results were declared void, with what tells their further results from the void ones.
    voided: BTreeMap<u32, Fingerprint>,
}

/// What is known of a node, and its task if it is being worked on.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    pub(super) state: State,
    task: Option<TaskId>,
}

/// What is known of a node. If a node is known, so is everything that it depends on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nobody has asked for it, or given it.
    New,
    /// The inputs under which it was known have changed, first of all `by`.
    Stale { by: u32, known: Known },
    /// Its last run, or that of something it depends on, failed.
    Failed,
    /// Its result is this, wherever its value may be.
    Known(Known),
}

/// Under which key a node's result is kept, and its fingerprint. Of an input both are the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    key: Fingerprint,
    print: Fingerprint,
}

/// A node that is being worked on in a view.
struct Task {
    view: ViewId,
    node: u32,
    phase: Phase,
    /// How many of the things that the phase waits for have not come.
    missing: usize,
    /// The values of what the node depends on, as far as they have come.
    inputs: Vec<Option<Value>>,
    key: Option<Fingerprint>,
    /// Tasks that wait to know the result's fingerprint, and callers and tasks that wait for its value.
    waiters: [Waiters; 2],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It has not begun.
    New,
    /// It waits until all that it depends on is known.
    Prints,
    /// It waits for the values of all that it depends on.
    Values,
    /// It waits for a run.
    Aloft(FlightId),
}

/// What a waiter needs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    Print = 0,
    Value = 1,
}

/// Those who wait for one thing of a task. Who goes away is only counted; the list is tidied when most of it has gone.
#[derive(Default)]
struct Waiters {
    list: Vec<Waiter>,
    present: usize,
}

/// Who waits, and at which of its places what it waits for goes.
#[derive(Clone, Copy)]
enum Waiter {
    Task(TaskId, u32),
    Caller(CallerId, u32),
}

/// One run of a node.
struct Flight {
    node: u32,
    key: Fingerprint,
    inputs: Vec<Value>,
    subscribers: Vec<TaskId>,
    present: usize,
    progress: Progress,
}

enum Progress {
    Queued,
    /// It can be dropped.
    Running(AbortHandle),
    /// It cannot be stopped.
    Committed,
}

/// Somebody who asked for values.
pub(super) struct Caller {
    view: ViewId,
    targets: Arc<[u32]>,
    answers: Vec<Option<Result<Value, GraphError>>>,
    missing: usize,
    /// When it wants to be woken.
    patience: Patience,
    waker: Waker,
}

/// How much of an answer somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// Everything, or the first error.
    UntilError,
    /// Everything.
    UntilEnd,
}

/// Lists of ids shorter than this are not worth tidying. Longer ones are tidied when more than half of them name what is
/// gone.
const TIDY_FROM: usize = 16;

/// What is still to be done before the lock is let go.
enum Step {
    Open(TaskId),
    Advance(TaskId),
    Cancel(TaskId),
}

/// What is to be done once the lock is let go.
#[derive(Default)]
pub(super) struct Effects {
    wakers: Vec<Waker>,
    /// Values that may be the last of their kind, and whose end is the user's code.
    garbage: Vec<Value>,
}

impl Effects {
    /// Wakes before it drops: the end of a value is the user's code and may panic.
    pub(super) fn follow(self) {
        self.wakers.into_iter().for_each(Waker::wake);
        drop(self.garbage);
    }
}

/// What has happened since the graph was built.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) runs: u64,
    pub(super) joined: u64,
    pub(super) failures: u64,
    pub(super) cancelled: u64,
}

/// The state of a graph.
pub(super) struct Evaluation {
    pub(super) plan: Arc<Plan>,
    pub(super) memo: Memo,
    views: Slab<ViewState>,
    tasks: Slab<Task>,
    flights: Slab<Flight>,
    /// The flights that a task may join.
    aloft: HashMap<Fingerprint, FlightId, BuildAsIs>,
    callers: Slab<Caller>,
    ready: VecDeque<FlightId>,
    steps: Vec<Step>,
    current: ViewId,
    concurrency: usize,
    pub(super) workers: usize,
    pub(super) effects: Effects,
    pub(super) counts: Counts,
}

impl Evaluation {
    pub(super) fn new(plan: Arc<Plan>, memo: Memo, concurrency: usize) -> Self {
        let mut given = BTreeMap::new();
        let mut slots = Vec::with_capacity(plan.nodes.len());
        for (node, spec) in plan.nodes.iter().enumerate() {
            let mut state = State::New;
            if let Source::Given(Some(initial)) = &spec.source {
                given.insert(node as u32, Arc::clone(&initial.value));
                state = State::Known(Known { key: initial.print, print: initial.print });
            }
            slots.push(Slot { state, task: None });
        }
        let mut views = Slab::new();
        let current = views.insert(ViewState { handles: 1, slots, given, voided: BTreeMap::new() });
        Self {
            plan,
            memo,
            views,
            tasks: Slab::new(),
            flights: Slab::new(),
            aloft: HashMap::default(),
            callers: Slab::new(),
            ready: VecDeque::new(),
            steps: Vec::new(),
            current,
            concurrency,
            workers: 0,
            effects: Effects::default(),
            counts: Counts::default(),
        }
    }

    /// The value of a node if it is there.
    pub(super) fn at_hand(&self, view: ViewId, node: u32) -> Option<Value> {
        match (self.slot(view, node).state, &self.plan.nodes[node as usize].source) {
            (State::Known(_), Source::Given(_)) => self.view(view).given.get(&node).cloned(),
            (State::Known(known), Source::Computed(_)) => self.memo.get(known.key),
            _ => None,
        }
    }

    /// Registers somebody who waits for the values of `targets`.
    pub(super) fn ask(
        &mut self,
        view: ViewId,
        targets: Arc<[u32]>,
        patience: Patience,
        waker: Waker,
    ) -> CallerId {
        let answers = vec![None; targets.len()];
        let missing = targets.len();
        let caller = self.callers.insert(Caller {
            view,
            targets: Arc::clone(&targets),
            answers,
            missing,
            patience,
            waker,
        });
        for (place, target) in targets.iter().enumerate() {
            let waiter = Waiter::Caller(caller, place as u32);
            match self.at_hand(view, *target) {
                Some(value) => self.deliver(waiter, Some(value)),
                None => self.demand(view, *target, Want::Value, waiter),
            }
        }
        caller
    }

    /// The answers, once there are as many as the caller waits for.
    pub(super) fn answers(
        &mut self,
        caller: CallerId,
        waker: &Waker,
    ) -> Option<Vec<Result<Value, GraphError>>> {
        let waiting = self.callers.get_mut(caller)?;
        if !waiting.is_content() {
            waiting.waker.clone_from(waker);
            return None;
        }
        let answers = std::mem::take(&mut waiting.answers);
        self.forget(caller, &answers);
        Some(answers.into_iter().flatten().collect())
    }

    /// Ends the waiting of somebody who goes away.
    pub(super) fn leave(&mut self, caller: CallerId) {
        let Some(waiting) = self.callers.get_mut(caller) else { return };
        let answers = std::mem::take(&mut waiting.answers);
        self.forget(caller, &answers);
        self.effects.garbage.extend(answers.into_iter().flatten().filter_map(Result::ok));
    }

    fn forget(&mut self, caller: CallerId, answers: &[Option<Result<Value, GraphError>>]) {
        let Some(Caller { view, targets, .. }) = self.callers.remove(caller) else { return };
        for (target, answer) in targets.iter().zip(answers) {
            if answer.is_none() {
                self.lower(view, *target, Want::Value);
            }
        }
    }

    /// Does what is left to do. Afterwards the state is at rest until the next call.
    pub(super) fn settle_down(&mut self) {
        if self.steps.is_empty() {
            return;
        }
        let plan = Arc::clone(&self.plan);
        while let Some(step) = self.steps.pop() {
            match step {
                Step::Open(task) => self.open(&plan, task),
                Step::Advance(task) => self.advance(&plan, task),
                Step::Cancel(task) => self.cancel(task),
            }
        }
    }

    /// How many workers should be added.
    pub(super) fn vacancies(&self) -> usize {
        self.ready.len().min(self.concurrency.saturating_sub(self.workers))
    }

    /// Whether nothing is left of anybody who asked.
    #[cfg(test)]
    pub(super) fn is_at_rest(&self) -> bool {
        let left = self.tasks.len() + self.flights.len() + self.callers.len() + self.aloft.len();
        self.workers == 0 && left == 0 && self.views.len() == 1
    }

    /// The length of the longest list of those who wait for something.
    #[cfg(test)]
    pub(super) fn longest_list(&self) -> usize {
        let lists = self.tasks.values().flat_map(|task| &task.waiters);
        let lists = lists.map(|waiters| waiters.list.len());
        let subscribers = self.flights.values().map(|flight| flight.subscribers.len());
        lists.chain(subscribers).chain([self.ready.len()]).max().unwrap_or(0)
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn callers_now(&self) -> usize {
        self.callers.len()
    }

    pub(super) fn wake_everybody(&mut self) {
        let wakers = self.callers.values().map(|caller| caller.waker.clone());
        self.effects.wakers.extend(wakers);
    }

    fn view(&self, view: ViewId) -> &ViewState {
        self.views.get(view).expect("a view is there as long as somebody holds it or waits in it")
    }

    fn view_mut(&mut self, view: ViewId) -> &mut ViewState {
        self.views.get_mut(view).expect("a view is there as long as somebody holds it or waits in it")
    }

    pub(super) fn slot(&self, view: ViewId, node: u32) -> &Slot {
        &self.view(view).slots[node as usize]
    }

    fn slot_mut(&mut self, view: ViewId, node: u32) -> &mut Slot {
        &mut self.view_mut(view).slots[node as usize]
    }

    fn is_known(&self, view: ViewId, node: u32) -> bool {
        matches!(self.slot(view, node).state, State::Known(_))
    }
}

impl Caller {
    fn is_content(&self) -> bool {
        let has_error = || self.answers.iter().any(|answer| matches!(answer, Some(Err(_))));
        self.missing == 0 || self.patience == Patience::UntilError && has_error()
    }
}
