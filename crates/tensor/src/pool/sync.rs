//! What `gate.rs` waits and communicates with. Its model test puts the model checker's versions in this place.

use std::cell::UnsafeCell;
use std::time::{Duration, Instant};

pub(super) use std::sync::atomic::{AtomicU64, AtomicUsize};
pub(super) use std::thread::{Thread, current, park};

/// Waking a parked thread takes tens of microseconds and costs two switches of context, which is as long as a small
/// matrix product; spinning longer than that takes the core from tokio's threads.
const SPIN: Duration = Duration::from_micros(20);

/// Looks at `ready` for a short while; false if it did not come true.
pub(super) fn spin_until(ready: impl Fn() -> bool) -> bool {
    if ready() {
        return true;
    }
    let start = Instant::now();
    loop {
        for _ in 0..32 {
            std::hint::spin_loop();
            if ready() {
                return true;
            }
        }
        if start.elapsed() >= SPIN {
            return false;
        }
    }
}

/// A place that several threads may read and write; who may do so when is the user's duty.
pub(super) struct Shared<T>(UnsafeCell<T>);

impl<T> Shared<T> {
    pub(super) fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    pub(super) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
        read(self.0.get())
    }

    pub(super) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        write(self.0.get())
    }
}
