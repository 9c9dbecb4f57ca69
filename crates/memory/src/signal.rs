//! Says that there may be work: a count that grows, and threads that sleep while it does not.

use super::sync::{Condvar, Mutex, lock, wait};

/// A count that threads can sleep on. Read it, look for work, and sleep only until it is another: so nothing that came in
/// between is slept through.
pub(crate) struct Signal {
    count: Mutex<u64>,
    changed: Condvar,
}

impl Signal {
    pub(crate) fn new() -> Self {
        Self { count: Mutex::new(0), changed: Condvar::new() }
    }

    /// The count now.
    pub(crate) fn count(&self) -> u64 {
        *lock(&self.count)
    }

    /// Makes it another, and wakes all who sleep.
    pub(crate) fn raise(&self) {
        *lock(&self.count) += 1;
        self.changed.notify_all();
    }

    /// Sleeps while it is `seen`.
    pub(crate) fn sleep(&self, seen: u64) {
        let mut count = lock(&self.count);
        while *count == seen {
            count = wait(&self.changed, count);
        }
    }
}
