//! What can be seen of a pipeline from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::time::Instant;

use super::road::Gate;
use super::stage::Control;
use crate::breaker::BreakerState;
use crate::metrics::HistogramSnapshot;

/// What has become of the items of a pipeline. Every accepted item is in exactly one of these places, up to the
/// moment that reading them one after the other takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineStats {
    /// Items that were let in.
    pub accepted: u64,
    /// Items that came out.
    pub completed: u64,
    /// Items that a stage gave up.
    pub failed: u64,
    /// Items whose deadline passed.
    pub expired: u64,
    /// Items that a drain ended.
    pub cut: u64,
    /// Items whose caller no longer wanted them.
    pub cancelled: u64,
    /// The stages in their order.
    pub stages: Vec<StageStats>,
}

/// What has become of the items of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageStats {
    /// Its name.
    pub name: Arc<str>,
    /// How many items it may work on at once; `None` for as many as there are credits.
    pub workers: Option<usize>,
    /// Items it works on.
    pub in_flight: u64,
    /// Items that wait for a worker.
    pub waiting: usize,
    /// Items that went on to the next stage.
    pub completed: u64,
    /// Items that it gave up.
    pub errors: u64,
    /// Items that were taken away from it: cancelled, expired or cut.
    pub abandoned: u64,
    /// Attempts after the first.
    pub retries: u64,
    /// Items for which the fallback was asked.
    pub fallbacks: u64,
    /// From getting a worker to the outcome, retries included, of items that were not taken away.
    pub latency: HistogramSnapshot,
    /// What its breaker does, if it has one.
    pub breaker: Option<BreakerState>,
}

impl PipelineStats {
    pub(super) fn of(gate: &Gate, controls: &[&Control]) -> Self {
        let tally = &gate.tally;
        let read = |count: &AtomicU64| count.load(Relaxed);
        Self {
            completed: read(&tally.completed),
            failed: read(&tally.failed),
            expired: read(&tally.expired),
            cut: read(&tally.cut),
            cancelled: read(&tally.cancelled),
            // Last, so that no item seems to have ended that was not accepted.
            accepted: read(&tally.accepted),
            stages: controls.iter().map(|control| StageStats::of(control)).collect(),
        }
    }

    /// Items that are inside.
    pub fn in_flight(&self) -> u64 {
        let ended = self.completed + self.failed + self.expired + self.cut + self.cancelled;
        self.accepted.saturating_sub(ended)
    }

    /// The stage of that name.
    pub fn stage(&self, name: &str) -> Option<&StageStats> {
        self.stages.iter().find(|stage| &*stage.name == name)
    }
}

impl StageStats {
    fn of(control: &Control) -> Self {
        let counts = &control.counts;
        let errors = counts.errors.load(Relaxed);
        let abandoned = counts.abandoned.load(Relaxed);
        let latency = counts.latency.snapshot();
        // Last, so that nothing seems to have ended that has not begun.
        let begun = counts.begun.total();
        Self {
            name: control.name.clone(),
            workers: control.seats.limit(),
            in_flight: begun.saturating_sub(latency.count() + abandoned),
            waiting: control.seats.waiting(),
            completed: latency.count().saturating_sub(errors),
            errors,
            abandoned,
            retries: counts.retries.load(Relaxed),
            fallbacks: counts.fallbacks.load(Relaxed),
            latency,
            breaker: control.breaker.as_ref().map(|breaker| breaker.state(Instant::now())),
        }
    }

    /// Items that got a worker.
    pub fn entered(&self) -> u64 {
        self.completed + self.errors + self.abandoned + self.in_flight
    }
}
