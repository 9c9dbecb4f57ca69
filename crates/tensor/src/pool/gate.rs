//! Where a caller posts one job at a time for all workers, and waits until they are done with it.
//!
//! There is one number for each direction. `round` grows when a job has been posted; a worker that has seen an older
//! round takes the job. `running` counts the workers that have not finished it; the one that brings it to zero wakes
//! the caller. Both sides park only after they have looked, and whoever changes a number wakes the other side
//! afterwards, every time: waking a thread that is not parked leaves it a token (one atomic swap) with which its next
//! park returns at once, so a wake-up cannot fall between the look and the park. Nothing is allocated.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::sync::{AtomicU64, AtomicUsize, Shared, Thread, current, park, spin_until};

/// The workers read `round` in a loop while others write `running`, so each has a pair of cache lines of its own.
#[repr(align(128))]
struct Line<T>(T);

struct Gate<J> {
    round: Line<AtomicU64>,
    running: Line<AtomicUsize>,
    /// Written by the caller while `running` is zero, read by workers between a new `round` and their share in
    /// bringing `running` down again.
    posted: Shared<Option<Posted<J>>>,
}

// SAFETY: `posted` is the only part that is not `Sync` by itself; writes and reads of it are kept apart as said there.
unsafe impl<J: Send + Sync> Sync for Gate<J> {}
// SAFETY: a gate owns its parts; moving it moves a job, which is `Send`.
unsafe impl<J: Send + Sync> Send for Gate<J> {}

#[derive(Clone)]
struct Posted<J> {
    order: Order<J>,
    caller: Thread,
}

#[derive(Clone)]
enum Order<J> {
    Work(J),
    Stop,
}

/// The side that posts jobs.
pub(super) struct Caller<J> {
    gate: Arc<Gate<J>>,
    workers: Vec<Thread>,
}

impl<J: Clone> Caller<J> {
    /// A gate without workers.
    pub(super) fn new() -> Self {
        let gate = Gate {
            round: Line(AtomicU64::new(0)),
            running: Line(AtomicUsize::new(0)),
            posted: Shared::new(None),
        };
        Self { gate: Arc::new(gate), workers: Vec::new() }
    }

    /// Adds a worker: `start` begins a thread that serves with the half it is given, and returns the thread.
    pub(super) fn enlist<E>(&mut self, start: impl FnOnce(Worker<J>) -> Result<Thread, E>) -> Result<(), E> {
        let seen = self.gate.round.0.load(Relaxed);
        self.workers.push(start(Worker { gate: Arc::clone(&self.gate), seen })?);
        Ok(())
    }

    /// Gives `job` to every worker, does `meanwhile`, and returns when all workers are done, even if `meanwhile`
    /// panicked; the panic is the error.
    pub(super) fn round<R>(&mut self, job: J, meanwhile: impl FnOnce() -> R) -> std::thread::Result<R> {
        self.post(Order::Work(job));
        let outcome = catch_unwind(AssertUnwindSafe(meanwhile));
        self.wait();
        outcome
    }

    /// Tells every worker to end, and returns when each has taken notice.
    pub(super) fn stop(&mut self) {
        self.post(Order::Stop);
        self.wait();
        self.workers.clear();
    }

    fn post(&mut self, order: Order<J>) {
        let posted = Posted { order, caller: current() };
        // SAFETY: `post` is private, takes `&mut self`, and both of its users wait for `running` to be zero before
        // they return, so no worker reads the last order any more, and none sees this one before `round` grows.
        self.gate.posted.with_mut(|place| unsafe { *place = Some(posted) });
        self.gate.running.0.store(self.workers.len(), Relaxed);
        self.gate.round.0.fetch_add(1, Release);
        for worker in &self.workers {
            worker.unpark();
        }
    }

    fn wait(&self) {
        wait_until(|| self.gate.running.0.load(Acquire) == 0);
    }
}

/// The side that does jobs.
pub(super) struct Worker<J> {
    gate: Arc<Gate<J>>,
    seen: u64,
}

impl<J: Clone> Worker<J> {
    /// Waits for the next job and does it. False means that there will be none. `work` must not panic: the caller
    /// would wait for ever.
    pub(super) fn serve(&mut self, work: impl FnOnce(J)) -> bool {
        let gate = &self.gate;
        wait_until(|| gate.round.0.load(Acquire) != self.seen);
        self.seen += 1;
        // SAFETY: the round is new to this worker and it has not counted itself out of `running`, so the caller does
        // not write; the load above came after the caller's last write.
        let Some(Posted { order, caller }) = gate.posted.with(|place| unsafe { (*place).clone() }) else {
            return false;
        };
        let go_on = match order {
            Order::Work(job) => {
                work(job);
                true
            }
            Order::Stop => false,
        };
        // The caller may return, and post again, as soon as this brings zero: nothing of the gate is read after it.
        if gate.running.0.fetch_sub(1, Release) == 1 {
            caller.unpark();
        }
        go_on
    }
}

/// Spins for a while and then parks until `ready`. Tokens left by earlier wake-ups cost a turn of the loop.
fn wait_until(ready: impl Fn() -> bool) {
    if spin_until(&ready) {
        return;
    }
    while !ready() {
        park();
    }
}
