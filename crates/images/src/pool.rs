//! Threads that prepare pictures beside whatever else computes: a bounded queue by urgency, meters, and a future for
//! each picture whose dropping takes it back.

mod queue;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use thiserror::Error;

use crate::clip::{Clip, ClipRecipe, Frames, clip};
use crate::error::ImageError;
use crate::header::Limits;
use crate::patches::{Patches, patches};
use crate::recipe::Recipe;

pub use queue::Urgency;
use queue::{Job, Queue, Ticket};

/// How large a pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// Threads, at least 1.
    pub threads: usize,
    /// Pictures and clips that may wait.
    pub max_queued: usize,
    /// Encoded bytes that may wait.
    pub max_queued_bytes: usize,
    /// What every picture must keep.
    pub limits: Limits,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self { threads: 1, max_queued: 256, max_queued_bytes: 256 << 20, limits: Limits::default() }
    }
}

/// Why a pool does not deliver.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum PoolError {
    /// Too much waits already.
    #[error(
        "{queued} images of {queued_bytes} bytes wait to be prepared, and no more may wait; try again later"
    )]
    Full {
        /// Pictures and clips that wait.
        queued: usize,
        /// Their bytes.
        queued_bytes: usize,
    },
    /// The picture cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The pool ended before the picture's turn came, or its preparation panicked.
    #[error("the image was given up: the engine is stopping, or broke off while preparing it")]
    Stopped,
}

/// What a pool has done and holds. Counters only grow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meters {
    /// Threads of the pool.
    pub threads: usize,
    /// Threads that prepare something now.
    pub busy: usize,
    /// Pictures and clips that wait.
    pub queued: usize,
    /// Encoded bytes that wait.
    pub queued_bytes: usize,
    /// Pictures and clips that were prepared.
    pub prepared: u64,
    /// Patches of them.
    pub patches: u64,
    /// Time that threads spent, on failures too.
    pub busy_time: Duration,
    /// Pictures and clips that waited and were taken back.
    pub cancelled: u64,
    /// Pictures and clips that had no room.
    pub refused: u64,
    /// Failures by [`ImageError::kind`].
    pub failed: BTreeMap<&'static str, u64>,
}

/// Threads of their own that decode, resize and cut. Dropping the pool ends them after what they have in hand.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
    limits: Limits,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    meters: Meters,
    open: bool,
}

impl Shared {
    /// A panic elsewhere cannot leave the state half changed: nothing is computed under the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a job leaves for the meters: patches, or the kind of its failure.
pub(crate) type Outcome = Result<usize, &'static str>;

impl Pool {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn new(settings: PoolSettings) -> io::Result<Self> {
        let threads = settings.threads.max(1);
        let state = State {
            queue: Queue::new(settings.max_queued, settings.max_queued_bytes),
            meters: Meters { threads, ..Meters::default() },
            open: true,
        };
        let shared =
            Arc::new(Shared { state: Mutex::new(state), work: Condvar::new(), limits: settings.limits });
        let mut pool = Self { shared: Arc::clone(&shared), threads: Vec::with_capacity(threads) };
        for number in 0..threads {
            let shared = Arc::clone(&shared);
            let named = thread::Builder::new().name(format!("images-{number}"));
            pool.threads.push(named.spawn(move || serve(&shared))?);
        }
        Ok(pool)
    }

    /// The limits that every picture must keep.
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// Hands in a still picture. The future resolves when it is prepared; dropping it takes the picture back, unless
    /// a thread has it in hand.
    ///
    /// # Errors
    /// If no more may wait.
    pub fn still(
        &self,
        bytes: Arc<[u8]>,
        recipe: Arc<Recipe>,
        urgency: Urgency,
    ) -> Result<Preparing<Patches>, PoolError> {
        let size = bytes.len();
        self.submit(size, urgency, move |limits| {
            let patches = patches(&bytes, &recipe, limits)?;
            Ok((patches.grid.patches(), patches))
        })
    }

    /// Hands in a clip, likewise.
    ///
    /// # Errors
    /// If no more may wait.
    pub fn clip(
        &self,
        frames: Frames,
        recipe: Arc<ClipRecipe>,
        urgency: Urgency,
    ) -> Result<Preparing<Clip>, PoolError> {
        let size = frames.bytes();
        self.submit(size, urgency, move |limits| {
            let clip = clip(&frames, &recipe, limits)?;
            Ok((clip.patches.grid.patches(), clip))
        })
    }

    /// What has been done and what waits.
    pub fn meters(&self) -> Meters {
        let state = self.shared.state();
        let mut meters = state.meters.clone();
        (meters.queued, meters.queued_bytes) = (state.queue.len(), state.queue.bytes());
        meters
    }

    fn submit<T: Send + 'static>(
        &self,
        bytes: usize,
        urgency: Urgency,
        prepare: impl FnOnce(&Limits) -> Result<(usize, T), ImageError> + Send + 'static,
    ) -> Result<Preparing<T>, PoolError> {
        let (reply, prepared) = oneshot::channel();
        let run = move |limits: &Limits| {
            let (outcome, result) = match prepare(limits) {
                Ok((patches, value)) => (Ok(patches), Ok(value)),
                Err(error) => (Err(error.kind()), Err(error)),
            };
            // Whoever asked may have left while this ran; the meters count the work all the same.
            let _left = reply.send(result);
            outcome
        };
        let mut state = self.shared.state();
        match state.queue.push(Job { bytes, run: Box::new(run) }, urgency) {
            Some(ticket) => {
                drop(state);
                self.shared.work.notify_one();
                let place = Some((Arc::clone(&self.shared), ticket));
                Ok(Preparing { prepared, place })
            }
            None => {
                state.meters.refused += 1;
                let (queued, queued_bytes) = (state.queue.len(), state.queue.bytes());
                Err(PoolError::Full { queued, queued_bytes })
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.shared.state();
            state.open = false;
            state.queue.clear()
        };
        // Outside of the lock, because jobs call whoever waits for them when they are dropped.
        drop(waiting);
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A thread ends by itself only; it has caught every panic of its jobs.
            let _ended = thread.join();
        }
    }
}

/// What one thread does until the pool closes.
fn serve(shared: &Shared) {
    let mut state = shared.state();
    while state.open {
        let Some(job) = state.queue.pop() else {
            state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        state.meters.busy += 1;
        drop(state);
        let begun = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| (job.run)(&shared.limits))).unwrap_or(Err("panic"));
        let took = begun.elapsed();
        state = shared.state();
        let meters = &mut state.meters;
        meters.busy -= 1;
        meters.busy_time += took;
        match outcome {
            Ok(patches) => {
                meters.prepared += 1;
                meters.patches += patches as u64;
            }
            Err(kind) => *meters.failed.entry(kind).or_default() += 1,
        }
    }
}

/// A picture or a clip on its way through the pool.
#[derive(Debug)]
#[must_use = "dropping it takes the picture back"]
pub struct Preparing<T> {
    prepared: oneshot::Receiver<Result<T, ImageError>>,
    /// Where it waits; `None` once it has come out.
    place: Option<(Arc<Shared>, Ticket)>,
}

impl<T> Future for Preparing<T> {
    type Output = Result<T, PoolError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let prepared = std::task::ready!(Pin::new(&mut self.prepared).poll(context));
        self.place = None;
        Poll::Ready(match prepared {
            Ok(result) => result.map_err(PoolError::Image),
            Err(oneshot::Canceled) => Err(PoolError::Stopped),
        })
    }
}

impl<T> Drop for Preparing<T> {
    fn drop(&mut self) {
        let Some((shared, ticket)) = self.place.take() else { return };
        let job = {
            let mut state = shared.state();
            let job = state.queue.remove(ticket);
            state.meters.cancelled += u64::from(job.is_some());
            job
        };
        drop(job);
    }
}

#[cfg(test)]
mod tests;
