//! Workers that take items from a queue, as many as the queue needs.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::autoscale::{Autoscaler, Scaling, Sight};
use crate::metrics::{Histogram, HistogramSnapshot};
use crate::queue::{Lease, Queue};
use crate::random::Random;
use crate::retry::Backoff;

/// Where workers take their items.
///
/// For the implementer: `take` may be dropped at any moment, and loses no item then; an item that a worker drops
/// because it panicked is the item's own affair (a lease returns to its queue).
pub trait Source: Send + Sync + 'static {
    /// What is taken.
    type Item: Send + 'static;

    /// Waits for the next item; `None` once there will be no more.
    fn take(&self) -> impl Future<Output = Option<Self::Item>> + Send;

    /// How long the item has waited that waits longest; zero if none waits.
    fn delay(&self) -> Duration;
}

/// Workers get leases: one that panics returns its item, and one that forgets to acknowledge it does so too.
impl<T: Send + 'static> Source for Queue<T> {
    type Item = Lease<T>;

    fn take(&self) -> impl Future<Output = Option<Lease<T>>> + Send {
        Queue::take(self)
    }

    fn delay(&self) -> Duration {
        self.stats().oldest.unwrap_or_default()
    }
}

/// How many workers there are, and how they change.
#[derive(Clone, Debug, PartialEq)]
pub struct Staffing {
    range: RangeInclusive<usize>,
    scaling: Option<Scaling>,
    restart: Backoff,
}

impl Staffing {
    /// At least and at most so many workers; the least to begin with.
    pub fn workers(range: RangeInclusive<usize>) -> Self {
        let restart = Backoff::exponential(Duration::from_millis(10), Duration::from_secs(1));
        Self { range, scaling: None, restart }
    }

    /// Their number follows from how long items wait. Without this it changes only by [`WorkerPool::set_workers`].
    pub fn scaling(self, scaling: Scaling) -> Self {
        Self { scaling: Some(scaling), ..self }
    }

    /// So long a worker pauses whose items make it panic again and again.
    pub fn restart(self, restart: Backoff) -> Self {
        Self { restart, ..self }
    }
}

/// Workers that take items from a source and work on them, one item each at a time.
///
/// Their number changes while they work: whoever is dismissed ends its item first, and waits for none meanwhile. An
/// item that panics ends neither its worker nor the pool. Dropping the pool dismisses all workers.
pub struct WorkerPool {
    crew: Arc<Crew>,
    range: RangeInclusive<usize>,
}

/// What the workers share.
struct Crew {
    /// Seats that are taken. A worker with a seat from the wanted number on leaves it once its item has ended.
    seats: Mutex<BTreeSet<usize>>,
    wanted: watch::Sender<usize>,
    busy: AtomicUsize,
    done: AtomicU64,
    panics: AtomicU64,
    durations: Histogram,
    /// Told when the last worker leaves.
    deserted: Notify,
    /// Sends a worker to a seat.
    hire: Box<dyn Fn(Arc<Crew>, usize) + Send + Sync>,
}

/// A pool at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerPoolStatus {
    /// Workers that there should be.
    pub wanted: usize,
    /// Workers that there are, those included that leave when their item has ended.
    pub workers: usize,
    /// Workers that work on an item.
    pub busy: usize,
    /// Items that have ended, those included that panicked.
    pub done: u64,
    /// Items that panicked.
    pub panics: u64,
    /// How long the items took.
    pub durations: HistogramSnapshot,
}

impl WorkerPool {
    /// Workers begin to take items from `source` and to do `work` on each.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start<S, W, F>(source: S, staffing: Staffing, work: W) -> Self
    where
        S: Source,
        W: Fn(S::Item) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let Staffing { range, scaling, restart } = staffing;
        let job = Arc::new(Job { source, work, restart });
        let (runtime, hired) = (Handle::current(), Arc::clone(&job));
        let crew = Arc::new(Crew {
            seats: Mutex::default(),
            wanted: watch::Sender::new(0),
            busy: AtomicUsize::new(0),
            done: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            durations: Histogram::new(),
            deserted: Notify::new(),
            hire: Box::new(move |crew, seat| drop(runtime.spawn(worker(Arc::clone(&hired), crew, seat)))),
        });
        crew.want(*range.start());
        if let Some(scaling) = scaling {
            let scaler = Autoscaler::new(scaling, range.clone());
            tokio::spawn(scale(Arc::downgrade(&crew), job, scaler, scaling.every));
        }
        Self { crew, range }
    }

    /// From now on there are so many workers, within the bounds of the staffing.
    pub fn set_workers(&self, workers: usize) {
        self.crew.want(workers.clamp(*self.range.start(), *self.range.end()));
    }

    /// Everything at this moment.
    pub fn status(&self) -> WorkerPoolStatus {
        WorkerPoolStatus {
            wanted: *self.crew.wanted.borrow(),
            workers: self.crew.seats().len(),
            busy: self.crew.busy.load(Relaxed),
            done: self.crew.done.load(Relaxed),
            panics: self.crew.panics.load(Relaxed),
            durations: self.crew.durations.snapshot(),
        }
    }

    /// Waits until the source has no more items and the last of them has ended.
    pub async fn join(&self) {
        self.crew.deserted().await;
    }

    /// Takes no more items, and waits until those have ended that are being worked on.
    pub async fn stop(self) {
        self.crew.want(0);
        self.crew.deserted().await;
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.crew.want(0);
    }
}

impl fmt::Debug for WorkerPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerPool").field("status", &self.status()).field("range", &self.range).finish()
    }
}

impl Crew {
    fn seats(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills the seats below `workers`; workers on others learn that they are dismissed.
    fn want(self: &Arc<Self>, workers: usize) {
        self.fill(&mut self.seats(), workers);
    }

    /// The same, unless another number than `before` has been wanted meanwhile.
    fn want_instead_of(self: &Arc<Self>, before: usize, workers: usize) {
        let mut seats = self.seats();
        if *self.wanted.borrow() == before {
            self.fill(&mut seats, workers);
        }
    }

    fn fill(self: &Arc<Self>, seats: &mut BTreeSet<usize>, workers: usize) {
        self.wanted.send_replace(workers);
        for seat in 0..workers {
            if seats.insert(seat) {
                (self.hire)(Arc::clone(self), seat);
            }
        }
    }

    /// Leaves a seat if it is not wanted any more. Decided under the same lock as in `want`, so that a seat which is
    /// wanted again is either kept or filled anew.
    fn leaves(&self, seat: usize) -> bool {
        let mut seats = self.seats();
        let leaves = seat >= *self.wanted.borrow();
        if leaves {
            self.vacate(&mut seats, seat);
        }
        leaves
    }

    fn vacate(&self, seats: &mut BTreeSet<usize>, seat: usize) {
        seats.remove(&seat);
        if seats.is_empty() {
            self.deserted.notify_waiters();
        }
    }

    async fn deserted(&self) {
        loop {
            let told = self.deserted.notified();
            if self.seats().is_empty() {
                return;
            }
            told.await;
        }
    }
}

/// What every worker does.
struct Job<S, W> {
    source: S,
    work: W,
    restart: Backoff,
}

async fn worker<S, W, F>(job: Arc<Job<S, W>>, crew: Arc<Crew>, seat: usize)
where
    S: Source,
    W: Fn(S::Item) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let mut wanted = crew.wanted.subscribe();
    let mut random = Random::seeded(seat as u64);
    let mut panics_in_a_row = 0;
    while !crew.leaves(seat) {
        let item = tokio::select! {
            biased;
            _ = wanted.wait_for(|wanted| seat >= *wanted) => continue,
            item = job.source.take() => item,
        };
        let Some(item) = item else {
            crew.vacate(&mut crew.seats(), seat);
            return;
        };
        crew.busy.fetch_add(1, Relaxed);
        let begun = Instant::now();
        let outcome = AssertUnwindSafe(async { (job.work)(item).await }).catch_unwind().await;
        crew.durations.record(begun.elapsed());
        crew.busy.fetch_sub(1, Relaxed);
        crew.done.fetch_add(1, Relaxed);
        if outcome.is_ok() {
            panics_in_a_row = 0;
        } else {
            panics_in_a_row += 1;
            crew.panics.fetch_add(1, Relaxed);
            let pause = job.restart.delay(panics_in_a_row, &mut random);
            let _ = timeout(pause, wanted.wait_for(|wanted| seat >= *wanted)).await;
        }
    }
}

async fn scale<S: Source, W: Send + Sync>(
    crew: Weak<Crew>,
    job: Arc<Job<S, W>>,
    mut scaler: Autoscaler,
    every: Duration,
) {
    let begun = Instant::now();
    loop {
        sleep(every).await;
        let Some(crew) = crew.upgrade() else { return };
        let workers = *crew.wanted.borrow();
        if workers == 0 || crew.seats().is_empty() {
            return;
        }
        let sight = Sight { delay: job.source.delay(), busy: crew.busy.load(Relaxed), workers };
        if let Some(wanted) = scaler.look(begun.elapsed(), sight) {
            crew.want_instead_of(workers, wanted);
        }
    }
}
