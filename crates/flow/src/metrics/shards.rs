//! Numbers that many threads write at once without slowing each other down.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// So many threads can write without sharing a cache line; more share.
pub(crate) const SHARDS: usize = 8;

/// The shard of this thread: threads take turns at the shards in the order in which they first ask.
pub(crate) fn here() -> usize {
    const UNSET: usize = usize::MAX;
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: Cell<usize> = const { Cell::new(UNSET) };
    }
    SHARD.with(|shard| {
        if shard.get() == UNSET {
            shard.set(NEXT.fetch_add(1, Relaxed) % SHARDS);
        }
        shard.get()
    })
}

/// Alone on its cache lines; processors fetch them in pairs of 64 bytes.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Alone(AtomicU64);

/// A count that many add to.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    shards: [Alone; SHARDS],
}

impl Tally {
    pub(crate) fn add(&self, n: u64) {
        self.shards[here()].0.fetch_add(n, Relaxed);
    }

    /// Takes back what this thread has added.
    pub(crate) fn take(&self, n: u64) {
        self.shards[here()].0.fetch_sub(n, Relaxed);
    }

    pub(crate) fn total(&self) -> u64 {
        self.shards.iter().fold(0, |sum, shard| sum.wrapping_add(shard.0.load(Relaxed)))
    }
}
