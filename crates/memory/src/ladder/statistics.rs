//! What a ladder tells about itself.

use std::time::Duration;

use crate::rung::RungError;

/// What a ladder holds and has done.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct LadderStatistics {
    /// Bytes of memory in use, with what size classes round up.
    pub host_used: usize,
    /// Bytes of memory that may be used.
    pub host_budget: usize,
    /// Objects in memory.
    pub host_objects: usize,
    /// Whether the memory is locked.
    pub host_locked: bool,
    /// Stretches of free memory.
    pub host_fragments: usize,
    /// Bytes in use on the rung below.
    pub below_used: usize,
    /// Bytes that may be used there.
    pub below_budget: usize,
    /// Objects there.
    pub below_objects: usize,
    /// Objects that were asked for and in memory.
    pub hits: u64,
    /// Objects that were asked for and brought up, or on their way.
    pub raises: u64,
    /// Objects that were asked for and nowhere.
    pub misses: u64,
    /// Objects that left memory with a copy below.
    pub lowered: u64,
    /// Objects that were given up for want of room.
    pub given_up: u64,
    /// Objects that were brought up before they were asked for.
    pub prefetched: u64,
    /// Of these, objects that were asked for afterwards.
    pub prefetches_used: u64,
    /// Objects that were not prefetched for want of room.
    pub prefetches_skipped: u64,
    /// Transfers that nobody waited for any more.
    pub cancelled: u64,
    /// Bytes written down.
    pub bytes_down: u64,
    /// Bytes brought up.
    pub bytes_up: u64,
    /// Transfers that wait or run.
    pub transfers: usize,
    /// Transfers that failed, damage included.
    pub faults: u64,
    /// Objects that were found damaged.
    pub damaged: u64,
    /// What went wrong last.
    pub last_fault: Option<RungError>,
    /// How fast bytes move.
    pub rates: Rates,
}

/// How fast bytes have moved lately, in bytes per second of one thread; `None` before the first transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Up.
    pub up: Option<f64>,
    /// Down.
    pub down: Option<f64>,
}

/// What a new measurement weighs.
const WEIGHT: f64 = 0.2;

impl Rates {
    pub(crate) fn learn(rate: &mut Option<f64>, bytes: usize, took: Duration) {
        let measured = bytes as f64 / took.as_secs_f64().max(1e-9);
        *rate = Some(rate.map_or(measured, |rate| rate + WEIGHT * (measured - rate)));
    }
}
