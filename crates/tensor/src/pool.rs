//! The compute threads: a worker per core, bounded spin, then park.
//!
//! How a job gets to the workers and how the caller learns that they are done stands in `gate.rs`, which is explored
//! by a model checker over all orders of its steps.

mod cores;
mod gate;
mod per_thread;
mod sync;

#[cfg(test)]
mod tests;

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

pub use cores::{Cores, CoresError};
use gate::{Caller, Worker};
pub use per_thread::PerThread;

/// What the workers are given: the function of one `run`, made to look as if it lived for ever.
type Job = &'static (dyn Fn(usize) + Sync);

/// The first panic of a round, if a worker panicked.
type Panic = Mutex<Option<Box<dyn Any + Send>>>;

/// A fixed set of workers that run one function at a time. The calling thread is worker 0.
///
/// Idle workers sleep: they spin for about 20 µs after a job, in the hope of the next one, and then park.
pub struct Pool {
    /// Locked for the length of a run, which is what makes callers take turns.
    caller: Mutex<Caller<Job>>,
    panic: Arc<Panic>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// A pool of `threads` workers (at least one), the caller included. Where the operating system refuses a thread,
    /// the pool goes on with those it got: results do not depend on their number.
    pub fn new(threads: usize) -> Self {
        Self::on(threads, &Cores::default())
    }

    /// As [`Pool::new`], with workers that stay on these processors. Where the caller is, is the caller's business.
    pub fn on(threads: usize, cores: &Cores) -> Self {
        let mut caller = Caller::new();
        let panic = Arc::new(Panic::default());
        let mut workers = Vec::new();
        for index in 1..threads {
            let started = caller.enlist(|worker| {
                let (panic, cores) = (Arc::clone(&panic), cores.clone());
                let name = format!("tidegate-compute-{index}");
                let body = move || {
                    // Whoever may not be there works where it may be: results do not depend on it.
                    let _ = cores.enter();
                    serve(worker, index, &panic);
                };
                let handle = std::thread::Builder::new().name(name).spawn(body)?;
                let thread = handle.thread().clone();
                workers.push(handle);
                Ok::<_, std::io::Error>(thread)
            });
            if started.is_err() {
                break;
            }
        }
        Self { caller: Mutex::new(caller), panic, workers }
    }

    /// Number of workers, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `work(worker)` once on every worker and returns when all have returned. A panic in a worker is resumed
    /// in the caller after all have returned. Callers on several threads take turns.
    ///
    /// # Panics
    /// If `work` panics, or when called from inside of `work`, which would wait for itself.
    pub fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        let inside = Inside::enter();
        if self.workers.is_empty() {
            return work(0);
        }
        // SAFETY: only the lifetime changes. `round` returns, and does not unwind, after every worker has returned
        // from its call of the function, and no worker keeps the reference longer than its call.
        let job = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(work) };
        let mut caller = lock(&self.caller);
        let own = caller.round(job, || work(0));
        let theirs = lock(&self.panic).take();
        drop(caller);
        drop(inside);
        if let Some(payload) = own.err().or(theirs) {
            resume_unwind(payload);
        }
    }

    /// The part of `0..items` that is worker `worker`'s, cut at multiples of `grain`.
    pub fn share(&self, items: usize, grain: usize, worker: usize) -> Range<usize> {
        let grains = items.div_ceil(grain);
        let cut = |w: usize| (grains * w / self.threads() * grain).min(items);
        cut(worker)..cut(worker + 1)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.caller).stop();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its jobs, so it has none of its own to report.
            let _ended = worker.join();
        }
    }
}

/// The life of worker `index`.
fn serve(mut worker: Worker<Job>, index: usize, panic: &Panic) {
    while worker.serve(|job| {
        let _inside = Inside::enter();
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| job(index))) {
            lock(panic).get_or_insert(payload);
        }
    }) {}
}

/// Marks a thread as being inside of `run`, so that a nested call is a message instead of a standstill.
struct Inside;

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

impl Inside {
    fn enter() -> Self {
        assert!(!INSIDE.replace(true), "Pool::run is called from inside of work that a pool runs");
        Self
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(false);
    }
}

/// Locks although a panic may have passed through: what stands behind these locks is whole at every moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
