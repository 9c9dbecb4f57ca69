//! Items are handed over one by one and served together: streaming micro-batches.
//!
//! A batch leaves at once when an executor is idle, because waiting would only cost time; while all are busy, items
//! gather until a batch is full or the oldest has waited for as long as it may. So the size and the delay are maxima,
//! not aims. An item that makes a whole batch fail is found by bisection, and fails alone.
//!
//! Read `gather.rs` first: it decides which items leave when, is told the time and knows no task.

mod execute;
mod failure;
mod gather;
mod patience;
mod rules;
mod service;
mod stage;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::{Instant, timeout};

pub use failure::BatchFailure;
pub use rules::{Batch, WhenIdle};
pub use service::Client;
pub use stage::{Batched, Together};

use crate::metrics::{Histogram, HistogramSnapshot};
use crate::pipeline::Drained;
use crate::work::StageError;
use gather::{Entry, Gather};
use patience::until;

/// What serves a batch: one outcome for each item, in their order, or an error that is of all of them.
type Serve<I, O, E> = Box<dyn Fn(Vec<I>) -> BoxFuture<'static, Result<Vec<Result<O, E>>, E>> + Send + Sync>;

/// Serves items in batches. Clones are the same batcher.
///
/// It has tasks only while items are there, and it must be used inside a runtime.
pub struct Batcher<I, O, E> {
    shared: Arc<Shared<I, O, E>>,
}

struct Shared<I, O, E> {
    rules: Batch<I>,
    serve: Serve<I, O, E>,
    state: Mutex<State<I, O, E>>,
    /// One for each item that may be inside, waiting or being served.
    places: Arc<Semaphore>,
    /// Tells the timekeeper that something may be due earlier than it thinks.
    earlier: Notify,
    phase: watch::Sender<Phase>,
    waits: Histogram,
    runs: Histogram,
}

/// Where a batcher is in its life. It never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// It takes nothing more.
    Closed,
    /// It serves nothing more.
    Cut,
}

struct State<I, O, E> {
    gather: Gather<Waiting<I, O, E>>,
    /// Tasks that serve batches.
    executors: usize,
    /// When the timekeeper wakes up next, if there is one.
    alarm: Option<Instant>,
    counts: Counts,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    batches: u64,
    items: u64,
    errors: u64,
    bisected: u64,
}

/// An item that waits to be served, and who wants to know.
struct Waiting<I, O, E> {
    /// `None` once it has been handed over for good.
    item: Option<I>,
    reply: oneshot::Sender<Result<O, BatchFailure<E>>>,
    place: OwnedSemaphorePermit,
}

/// What a batcher has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatcherStats {
    /// Batches served, parts of bisected ones included.
    pub batches: u64,
    /// Items that were given an outcome.
    pub items: u64,
    /// Those of them whose outcome was a failure.
    pub errors: u64,
    /// Batches that were taken apart because they failed.
    pub bisected: u64,
    /// Items that wait to leave.
    pub waiting: usize,
    /// Batches under way.
    pub running: usize,
    /// How long items waited until their batch left.
    pub waits: HistogramSnapshot,
    /// How long batches took.
    pub runs: HistogramSnapshot,
}

impl<I, O, E> Batcher<I, O, E>
where
    I: Send + 'static,
    O: Send + 'static,
    E: StageError,
{
    /// A batcher that serves with this function: it is given the items of a batch and answers with one outcome for
    /// each, in their order, or with one error for all.
    pub fn new<F, Fut>(rules: Batch<I>, serve: F) -> Self
    where
        F: Fn(Vec<I>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<Result<O, E>>, E>> + Send + 'static,
    {
        let state =
            State { gather: Gather::new(&rules), executors: 0, alarm: None, counts: Counts::default() };
        let shared = Shared {
            places: Arc::new(Semaphore::new(rules.capacity)),
            rules,
            serve: Box::new(move |items| Box::pin(serve(items))),
            state: Mutex::new(state),
            earlier: Notify::new(),
            phase: watch::Sender::new(Phase::Open),
            waits: Histogram::new(),
            runs: Histogram::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Has an item served with others. Waits for a place first; dropped before its batch leaves, the item is not
    /// served.
    ///
    /// # Errors
    /// Says what went wrong with it, or with its whole batch.
    pub fn submit(&self, item: I) -> impl Future<Output = Result<O, BatchFailure<E>>> + Send + use<I, O, E> {
        submit(self.shared.clone(), item, None, None)
    }

    /// Has an item served with others, in time for it to be done by `deadline` as far as past batches tell.
    ///
    /// # Errors
    /// Says what went wrong with it, or with its whole batch. It is not served after its deadline.
    pub fn submit_by(
        &self,
        item: I,
        deadline: Instant,
    ) -> impl Future<Output = Result<O, BatchFailure<E>>> + Send + use<I, O, E> {
        submit(self.shared.clone(), item, Some(deadline), None)
    }

    /// Serves all items of a stream and gives their outcomes in the order of the items. Reads ahead as far as there
    /// are places; dropping it cancels what has not left.
    pub fn process<S>(
        &self,
        items: S,
    ) -> impl Stream<Item = Result<O, BatchFailure<E>>> + Send + use<I, O, E, S>
    where
        S: Stream<Item = I> + Send,
    {
        let (shared, ahead) = (self.shared.clone(), self.shared.rules.capacity);
        items.map(move |item| submit(shared.clone(), item, None, None)).buffered(ahead)
    }

    /// A client of this batcher that is a `tower` service.
    pub fn client(&self) -> Client<I, O, E> {
        Client::new(self.clone())
    }

    /// Takes nothing more. What is inside is served, without waiting for others that cannot come.
    pub fn close(&self) {
        self.shared.enter(Phase::Closed);
        execute::hurry(&self.shared);
    }

    /// Takes nothing more and waits until all that is inside has been served, but no longer than `time`; then what waits
    /// and what is being served is cut short, and ends in [`BatchFailure::Cut`].
    pub async fn drain(&self, time: Duration) -> Drained {
        self.close();
        let capacity = self.shared.rules.capacity;
        let places = u32::try_from(capacity).unwrap_or(u32::MAX);
        if timeout(time, self.shared.places.acquire_many(places)).await.is_ok() {
            return Drained { cut: 0 };
        }
        let cut = (capacity - self.shared.places.available_permits()) as u64;
        self.shared.enter(Phase::Cut);
        let waiting = self.shared.state().gather.clear();
        execute::tell(&self.shared, waiting, Err(BatchFailure::Cut));
        Drained { cut }
    }

    /// What it has done so far.
    pub fn stats(&self) -> BatcherStats {
        let state = self.shared.state();
        let Counts { batches, items, errors, bisected } = state.counts;
        BatcherStats {
            batches,
            items,
            errors,
            bisected,
            waiting: state.gather.len(),
            running: state.executors,
            waits: self.shared.waits.snapshot(),
            runs: self.shared.runs.snapshot(),
        }
    }
}

async fn submit<I, O, E>(
    shared: Arc<Shared<I, O, E>>,
    item: I,
    deadline: Option<Instant>,
    place: Option<OwnedSemaphorePermit>,
) -> Result<O, BatchFailure<E>>
where
    I: Send + 'static,
    O: Send + 'static,
    E: StageError,
{
    let outcome = until(deadline, pin!(served(shared, item, deadline, place))).await;
    outcome.unwrap_or(Err(BatchFailure::Expired))
}

async fn served<I, O, E>(
    shared: Arc<Shared<I, O, E>>,
    item: I,
    deadline: Option<Instant>,
    place: Option<OwnedSemaphorePermit>,
) -> Result<O, BatchFailure<E>>
where
    I: Send + 'static,
    O: Send + 'static,
    E: StageError,
{
    let place = match place {
        Some(place) => place,
        None => shared.place().await?,
    };
    let (reply, answer) = oneshot::channel();
    let (lane, cost) = (shared.rules.lane(&item), shared.rules.cost_of(&item));
    let waiting = Waiting { item: Some(item), reply, place };
    let id = execute::put(&shared, lane, Entry { item: waiting, cost, arrived: Instant::now(), deadline });
    // Dropped with this future, it takes the item along, unless that has its answer.
    let left = Left { shared: &shared, lane, id };
    let answered = answer.await;
    std::mem::forget(left);
    answered.unwrap_or(Err(BatchFailure::Aborted))
}

/// Takes an item out that nobody waits for any more, if it is still there. It only borrows, so one that is not needed is
/// forgotten.
struct Left<'a, I, O, E> {
    shared: &'a Shared<I, O, E>,
    lane: gather::Lane,
    id: u64,
}

impl<I, O, E> Drop for Left<'_, I, O, E> {
    fn drop(&mut self) {
        let removed = self.shared.state().gather.remove(self.lane, self.id);
        // Dropped only here, since what the item does when it is dropped is not for a lock.
        drop(removed);
    }
}

impl<I, O, E> Shared<I, O, E> {
    /// A place for an item, when it is this caller's turn.
    async fn place(&self) -> Result<OwnedSemaphorePermit, BatchFailure<E>> {
        // The places are never closed, so this waits for one and cannot fail otherwise.
        let place = self.places.clone().acquire_owned().await.map_err(|_| BatchFailure::Aborted)?;
        // Asked with a place in hand: a drain that has begun waits for all of them, so it sees that one, or was seen.
        if *self.phase.borrow() == Phase::Open { Ok(place) } else { Err(BatchFailure::Closed) }
    }

    fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let is_later = (*now as u8) < phase as u8;
            if is_later {
                *now = phase;
            }
            is_later
        });
    }

    /// Returns when nothing more is served.
    async fn cut(&self) {
        // The sender is here, so this waits for the phase and cannot fail otherwise.
        drop(self.phase.subscribe().wait_for(|phase| *phase == Phase::Cut).await);
    }

    fn state(&self) -> MutexGuard<'_, State<I, O, E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I, O, E> Clone for Batcher<I, O, E> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<I, O, E> fmt::Debug for Batcher<I, O, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher").field("rules", &self.shared.rules).finish_non_exhaustive()
    }
}
