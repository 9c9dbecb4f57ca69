//! What a queue counts.

use std::time::Duration;

use super::rejected::Rejection;
use crate::metrics::HistogramSnapshot;

/// A queue at one moment, and what it has done since it was made.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Items that wait, those included that were put off or are on their way to the disk.
    pub depth: usize,
    /// Sum of their costs.
    pub cost: u64,
    /// Sum of their bytes.
    pub bytes: u64,
    /// How long the item that arrived first has been there.
    pub oldest: Option<Duration>,
    /// Items that were handed out and not yet acknowledged.
    pub in_flight: usize,
    /// Items among the dead letters.
    pub dead_letters: usize,
    /// Items that leave per second while there are any, over the last minute.
    pub per_second: Option<f64>,
    /// How long serving an item takes: the median of the last ones.
    pub service: Option<Duration>,
    /// How long items waited that were handed out for the first time: each of them, as exactly as [`super::Taken::arrived`].
    pub waits: HistogramSnapshot,
    /// What has happened so far.
    pub totals: Tally,
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// Items accepted.
    pub accepted: u64,
    /// Items handed out; one that was handed out twice counts twice.
    pub taken: u64,
    /// Items acknowledged, or taken for good.
    pub done: u64,
    /// Items that came back and wait again.
    pub returned: u64,
    /// Leases that ran out.
    pub ran_out: u64,
    /// Items that went among the dead letters.
    pub dead: u64,
    /// Dead letters that were tried again.
    pub revived: u64,
    /// Dead letters that went because there were too many.
    pub forgotten: u64,
    /// Items whose deadline passed while they waited.
    pub expired: u64,
    /// Items let go because the queue was overloaded.
    pub shed: u64,
    /// Items let go because the queue was full and they had waited longest.
    pub dropped: u64,
    /// Items whose key was known.
    pub duplicates: u64,
    /// Items that were not accepted, by reason.
    pub rejected: RejectedTally,
}

/// Items that were not accepted, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RejectedTally {
    /// Too many items waited, or others waited for room.
    pub items: u64,
    /// The cost was too high.
    pub cost: u64,
    /// The bytes were too many.
    pub bytes: u64,
    /// They came too fast.
    pub rate: u64,
    /// They did not get in in the time they had.
    pub timed_out: u64,
    /// Their deadline had passed, or would have before they were served.
    pub late: u64,
    /// The queue was closed.
    pub closed: u64,
    /// The store did not take them.
    pub store: u64,
}

impl RejectedTally {
    pub(super) fn count(&mut self, reason: &Rejection) {
        let counter = match reason {
            Rejection::Items | Rejection::Turn => &mut self.items,
            Rejection::Cost => &mut self.cost,
            Rejection::Bytes => &mut self.bytes,
            Rejection::Rate => &mut self.rate,
            Rejection::TimedOut => &mut self.timed_out,
            Rejection::Expired | Rejection::Doomed { .. } => &mut self.late,
            Rejection::Closed => &mut self.closed,
            Rejection::Durable | Rejection::Store(_) => &mut self.store,
        };
        *counter += 1;
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        let Self { items, cost, bytes, rate, timed_out, late, closed, store } = self;
        items + cost + bytes + rate + timed_out + late + closed + store
    }
}
