//! How large a batch may become, how long its items may wait, and which of them go together.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::gather::Lane;

type Measure<I> = Arc<dyn Fn(&I) -> u64 + Send + Sync>;

/// A drain waits for all places, which are counted in 32 bits there.
const MOST_PLACES: usize =
    if Semaphore::MAX_PERMITS < u32::MAX as usize { Semaphore::MAX_PERMITS } else { u32::MAX as usize };

/// How large a batch may become, how long its items may wait, and which of them go together.
pub struct Batch<I> {
    pub(super) size: usize,
    pub(super) within: Duration,
    pub(super) most_cost: u64,
    pub(super) when_idle: WhenIdle,
    pub(super) executors: usize,
    pub(super) most_executors: usize,
    pub(super) capacity: usize,
    /// Makes the items of a part of a batch that failed as a whole.
    pub(super) copy: Option<fn(&I) -> I>,
    cost: Option<Measure<I>>,
    key: Option<Measure<I>>,
    length: Option<Measure<I>>,
    buckets: Vec<u64>,
}

/// What items do that could leave because an executor is idle, though their batch is not full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenIdle {
    /// They leave. While they are served others gather, so batches grow by themselves under load.
    #[default]
    Leave,
    /// They wait if items have been coming so fast that the batch should be full before the longest delay is over, and
    /// no longer than that should take; else they leave.
    Adapt,
    /// They wait until the batch is full or the longest delay is over.
    Wait,
}

impl<I> Default for Batch<I> {
    /// Up to 32 items within 100 ms.
    fn default() -> Self {
        Self::up_to(32)
    }
}

impl<I> Batch<I> {
    /// At most so many items in a batch; one at least.
    pub fn up_to(size: usize) -> Self {
        Self {
            size: size.max(1),
            within: Duration::from_millis(100),
            most_cost: u64::MAX,
            when_idle: WhenIdle::Leave,
            executors: 1,
            most_executors: usize::MAX,
            capacity: 1024.max(2 * size).min(MOST_PLACES),
            copy: None,
            cost: None,
            key: None,
            length: None,
            buckets: Vec::new(),
        }
    }

    /// No item waits longer than that for others; 100 ms unless set. Its batch then leaves though executors are busy.
    pub fn within(mut self, delay: Duration) -> Self {
        self.within = delay;
        self
    }

    /// The items of a batch cost at most so much together (bytes, tokens); an item that alone costs more goes alone.
    pub fn cost(mut self, most: u64, cost: impl Fn(&I) -> u64 + Send + Sync + 'static) -> Self {
        self.most_cost = most;
        self.cost = Some(Arc::new(cost));
        self
    }

    /// Only items with the same key go together (a shape, a model, an adapter).
    pub fn key(mut self, key: impl Fn(&I) -> u64 + Send + Sync + 'static) -> Self {
        self.key = Some(Arc::new(key));
        self
    }

    /// Only items of similar length go together: up to the first bound, above it and up to the second, and so on.
    pub fn buckets(
        mut self,
        bounds: impl Into<Vec<u64>>,
        length: impl Fn(&I) -> u64 + Send + Sync + 'static,
    ) -> Self {
        self.buckets = bounds.into();
        self.buckets.sort_unstable();
        self.length = Some(Arc::new(length));
        self
    }

    /// What items do that could leave because an executor is idle.
    pub fn when_idle(mut self, when_idle: WhenIdle) -> Self {
        self.when_idle = when_idle;
        self
    }

    /// So many batches are served at once before further items wait for others; 1 unless set.
    pub fn executors(mut self, executors: usize) -> Self {
        self.executors = executors.max(1);
        self
    }

    /// Never serves more than so many batches at once, even if items then wait longer than they should.
    pub fn at_most(mut self, executors: usize) -> Self {
        self.most_executors = executors.max(1);
        self
    }

    /// At most so many items are inside, waiting or being served; further ones wait with whoever brings them. 1024 or
    /// twice the size unless set.
    pub fn capacity(mut self, items: usize) -> Self {
        self.capacity = items.clamp(1, MOST_PLACES);
        self
    }

    /// A batch that fails as a whole with a permanent error, or that panics, is served again in halves, and so on down
    /// to the items that fail alone. Transient errors are of all items and are not looked into.
    pub fn bisect(mut self) -> Self
    where
        I: Clone,
    {
        self.copy = Some(I::clone);
        self
    }

    pub(super) fn cost_of(&self, item: &I) -> u64 {
        self.cost.as_ref().map_or(0, |cost| cost(item))
    }

    pub(super) fn lane(&self, item: &I) -> Lane {
        let key = self.key.as_ref().map_or(0, |key| key(item));
        let length = self.length.as_ref().map_or(0, |length| length(item));
        Lane { key, bucket: self.buckets.partition_point(|bound| *bound < length) }
    }
}

impl<I> fmt::Debug for Batch<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("size", &self.size)
            .field("within", &self.within)
            .field("most_cost", &self.most_cost)
            .field("when_idle", &self.when_idle)
            .field("executors", &self.executors)
            .field("buckets", &self.buckets)
            .finish_non_exhaustive()
    }
}
