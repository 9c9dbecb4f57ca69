//! Those who run nodes, and the lock behind which the evaluation lies.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::Abortable;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::Cause;
use super::builder::{Blocks, Observer};
use super::evaluation::{Commitment, Effects, Evaluation, Job, JobTicket};
use super::memo::Product;
use super::node::{Computation, Mark, Ran, panic_cause};
use super::plan::Plan;

/// Something that happened to a node.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Event {
    /// The node.
    pub node: Arc<str>,
    /// What happened.
    pub what: Happening,
}

/// What happened to a node.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Happening {
    /// Its function begins.
    Started {
        /// For the how-manieth time in this run, counted from 1.
        attempt: u32,
    },
    /// Its function failed and will be tried again.
    Retried {
        /// The attempt that failed.
        attempt: u32,
        /// How long it waits before the next one.
        after: Duration,
        /// Why.
        cause: String,
    },
    /// It has a result.
    Finished {
        /// From its first beginning, in all.
        took: Duration,
        /// The size of the result.
        bytes: u64,
    },
    /// It has none.
    Failed {
        /// From its first beginning, in all.
        took: Duration,
        /// Why.
        cause: Cause,
    },
    /// Nobody waits for it any more, and it was dropped.
    Cancelled,
}

/// What the handles of a graph share.
pub(super) struct Shared {
    pub(super) plan: Arc<Plan>,
    evaluation: Mutex<Evaluation>,
    observer: Option<Observer>,
}

impl Shared {
    pub(super) fn new(evaluation: Evaluation, observer: Option<Observer>) -> Self {
        Self { plan: Arc::clone(&evaluation.plan), evaluation: Mutex::new(evaluation), observer }
    }

    /// Does something under the lock, and what follows from it after the lock: adds workers where runs wait and a runtime
    /// is at hand, wakes, and drops.
    pub(super) fn enter<R>(self: &Arc<Self>, act: impl FnOnce(&mut Evaluation) -> R) -> R {
        let ((result, hires), effects) = self.act(|evaluation| {
            let result = act(evaluation);
            evaluation.settle_down();
            let vacancies = evaluation.vacancies();
            let runtime = if vacancies > 0 { Handle::try_current().ok() } else { None };
            let hires = runtime.map(|runtime| (runtime, vacancies));
            evaluation.workers += hires.as_ref().map_or(0, |(_, workers)| *workers);
            (result, hires)
        });
        if let Some((runtime, workers)) = hires {
            for _ in 0..workers {
                let seat = Seat { shared: Arc::clone(self), place: Place::Free };
                runtime.spawn(work(seat));
            }
        }
        effects.follow();
        result
    }

    fn act<R>(&self, act: impl FnOnce(&mut Evaluation) -> R) -> (R, Effects) {
        let mut evaluation = self.evaluation.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut evaluation);
        (result, std::mem::take(&mut evaluation.effects))
    }

    fn tell(&self, node: u32, what: impl FnOnce() -> Happening) {
        if let Some(observer) = &self.observer {
            observer(&Event { node: Arc::clone(self.plan.name(node)), what: what() });
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// The right to run one node at a time. Whatever becomes of its task, the right is given back and a run does not hang.
struct Seat {
    shared: Arc<Shared>,
    place: Place,
}

/// What a worker is at.
enum Place {
    Free,
    Running(JobTicket),
    Left,
}

impl Seat {
    /// Hands in what a run came to, and takes the next one. Without one the worker leaves.
    fn turn(&mut self, landed: Option<(JobTicket, Result<Product, Cause>)>) -> Option<Job> {
        let shared = Arc::clone(&self.shared);
        shared.enter(|evaluation| {
            if let Some((ticket, outcome)) = landed {
                evaluation.land(ticket, outcome);
                evaluation.settle_down();
            }
            let job = evaluation.next_job();
            self.place = job.as_ref().map_or(Place::Left, |job| Place::Running(job.ticket));
            evaluation.workers -= usize::from(job.is_none());
            job
        })
    }

    /// Hands in what a run came to while something of it is still going on.
    fn land(&mut self, ticket: JobTicket, outcome: Result<Product, Cause>) {
        self.place = Place::Free;
        self.shared.enter(|evaluation| evaluation.land(ticket, outcome));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let landed = match self.place {
            Place::Left => return,
            Place::Free => None,
            Place::Running(ticket) => Some(ticket),
        };
        // The runtime shuts down, or the user's code panicked while it was dropped. Nobody is hired here, because on a
        // runtime that shuts down this would go on for ever; those who wait are woken, and hire where they are.
        let ((), effects) = self.shared.act(|evaluation| {
            if let Some(ticket) = landed {
                evaluation.land(ticket, Err(Cause::Abandoned));
                evaluation.settle_down();
            }
            evaluation.workers -= 1;
            evaluation.wake_everybody();
        });
        effects.follow();
    }
}

/// Runs nodes until none is ready.
async fn work(mut seat: Seat) {
    let mut next = seat.turn(None);
    while let Some(job) = next {
        let Job { node, ticket, .. } = job;
        let shared = Arc::clone(&seat.shared);
        let started = shared.observer.is_some().then(Instant::now);
        let took = || started.map_or(Duration::ZERO, |started| started.elapsed());
        let ran = fly(&shared, job).await;
        match &ran {
            None => shared.tell(node, || Happening::Cancelled),
            Some(Ran { outcome: Ok(Product { bytes, .. }), .. }) => {
                shared.tell(node, || Happening::Finished { took: took(), bytes: *bytes });
            }
            Some(Ran { outcome: Err(cause), .. }) => {
                shared.tell(node, || Happening::Failed { took: took(), cause: cause.clone() });
            }
        }
        next = match ran {
            None => seat.turn(None),
            Some(Ran { outcome, straggler: None }) => seat.turn(Some((ticket, outcome))),
            Some(Ran { outcome, straggler: Some(straggler) }) => {
                seat.land(ticket, outcome);
                straggler.end().await;
                seat.turn(None)
            }
        };
        // Nodes that never wait would otherwise keep the thread to themselves for as long as there are any.
        tokio::task::consume_budget().await;
    }
}

/// One run, its panics caught. None if it was dropped.
async fn fly(shared: &Arc<Shared>, job: Job) -> Option<Ran> {
    let Job { plan, node, inputs, abort, ticket } = job;
    let computation = plan.nodes[node as usize].computation()?;
    let run = async {
        let held = match computation.acquire().await {
            Ok(held) => held,
            Err(cause) => return Some(Ran { outcome: Err(cause), straggler: None }),
        };
        if is_unstoppable(computation) {
            let commitment = shared.enter(|evaluation| evaluation.commit(ticket));
            if commitment == Commitment::Dropped {
                return None;
            }
        }
        let mark = |mark: Mark<'_>| match mark {
            Mark::Attempt(attempt) => shared.tell(node, || Happening::Started { attempt }),
            Mark::Retry(attempt, after, cause) => {
                shared.tell(node, || Happening::Retried { attempt, after, cause: cause.to_string() });
            }
        };
        Some(computation.run(held, inputs, &mark).await)
    };
    match Abortable::new(AssertUnwindSafe(run).catch_unwind(), abort).await {
        Err(_) => None,
        Ok(Ok(ran)) => ran,
        Ok(Err(panic)) => Some(Ran { outcome: Err(panic_cause(panic.as_ref())), straggler: None }),
    }
}

/// Whether a run can be dropped only while it acquires what it holds.
fn is_unstoppable(computation: &Computation) -> bool {
    computation.settings.blocks == Blocks::Thread && computation.settings.acquire.is_some()
}
