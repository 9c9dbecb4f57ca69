//! How much a taker takes at once.

use std::time::Duration;

/// How much a taker takes at once: so many items, so much cost, and how long it waits for the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpTo {
    pub(super) items: usize,
    pub(super) cost: u64,
    pub(super) wait: Option<Duration>,
}

impl UpTo {
    /// At most so many items, and at least one.
    pub const fn items(items: usize) -> Self {
        Self { items, cost: u64::MAX, wait: None }
    }

    /// At most that sum of costs, unless the first item alone costs more.
    #[must_use]
    pub const fn cost(mut self, cost: u64) -> Self {
        self.cost = cost;
        self
    }

    /// Waits at most so long for the first item, instead of until there is one. Nobody waits for a second.
    #[must_use]
    pub const fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }
}

impl From<usize> for UpTo {
    fn from(items: usize) -> Self {
        Self::items(items)
    }
}
