//! Time as a value that can be replaced, so that deadlines and stalls are tested without waiting.

use std::time::{Duration, Instant};

/// Time since some fixed moment; never goes back.
pub(crate) trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> Duration;
}

/// The system's monotonic clock.
pub(crate) struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock that starts at zero.
    pub(crate) fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}
