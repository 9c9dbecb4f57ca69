//! Durations, counted in buckets whose width grows with the value: log-linear, as in HdrHistogram.
//!
//! Every power of two is split into 32 equal buckets, so a percentile is off by at most 1/64 of itself (1.6 %) wherever
//! it lies between a nanosecond and 78 hours; durations below 32 ns are exact. Recording is two additions to memory
//! that the thread hardly ever shares with another.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::shards::{SHARDS, here};

/// Every power of two is split into `2^SPLIT_BITS` buckets.
const SPLIT_BITS: u32 = 5;
const SPLIT: u64 = 1 << SPLIT_BITS;
/// Durations of `2^VALUE_BITS` ns (78 hours) and more count as one nanosecond less than that.
const VALUE_BITS: u32 = 48;
/// The longest duration, in nanoseconds.
const MOST: u64 = (1 << VALUE_BITS) - 1;
const BUCKETS: usize = ((VALUE_BITS - SPLIT_BITS + 1) as usize) << SPLIT_BITS;

/// The bucket of a value in nanoseconds.
#[inline]
fn bucket_of(nanos: u64) -> usize {
    let doublings = (nanos | (SPLIT - 1)).ilog2() - (SPLIT_BITS - 1);
    let Some(doublings) = doublings.checked_sub(1) else { return nanos as usize };
    ((u64::from(doublings) << SPLIT_BITS) + (nanos >> doublings)) as usize
}

/// The middle of a bucket, in nanoseconds.
fn middle_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let doublings = (bucket >> SPLIT_BITS).saturating_sub(1);
    let first = (bucket - (doublings << SPLIT_BITS)) << doublings;
    first + ((1 << doublings) >> 1)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).map_or(MOST, |nanos| nanos.min(MOST))
}

/// What some threads have recorded, apart from what others write.
#[repr(align(128))]
struct Shard {
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
}

impl Shard {
    fn new() -> Self {
        Self {
            counts: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
            min: AtomicU64::new(u64::MAX),
            max: AtomicU64::new(0),
        }
    }

    fn record(&self, value: u64, times: u64) {
        self.counts[bucket_of(value)].fetch_add(times, Relaxed);
        self.sum.fetch_add(value.wrapping_mul(times), Relaxed);
        // New extremes are rare, and reading is much cheaper than writing.
        if value < self.min.load(Relaxed) {
            self.min.fetch_min(value, Relaxed);
        }
        if value > self.max.load(Relaxed) {
            self.max.fetch_max(value, Relaxed);
        }
    }

    #[inline]
    fn record_alone(&mut self, value: u64, times: u64) {
        *self.counts[bucket_of(value)].get_mut() += times;
        let sum = self.sum.get_mut();
        *sum = sum.wrapping_add(value.wrapping_mul(times));
        let (min, max) = (self.min.get_mut(), self.max.get_mut());
        (*min, *max) = (value.min(*min), value.max(*max));
    }

    fn snapshot(&self) -> HistogramSnapshot {
        let counts: Vec<u64> = self.counts.iter().map(|count| count.load(Relaxed)).collect();
        HistogramSnapshot {
            count: counts.iter().sum(),
            counts,
            sum: self.sum.load(Relaxed).into(),
            min: self.min.load(Relaxed),
            max: self.max.load(Relaxed),
        }
    }
}

/// A distribution of durations that one thread at a time records, which takes no atomic instructions.
pub(crate) struct Recorder {
    shard: Shard,
}

impl Recorder {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self { shard: Shard::new() }
    }

    /// Counts a duration in nanoseconds that occurred so many times, once at least.
    #[inline]
    pub(crate) fn record_nanos(&mut self, nanos: u64, times: u64) {
        self.shard.record_alone(nanos.min(MOST), times);
    }

    /// What was recorded so far.
    pub(crate) fn snapshot(&self) -> HistogramSnapshot {
        self.shard.snapshot()
    }
}

/// A distribution of durations that any number of threads record at once.
///
/// It takes 11 KiB for each of the at most 8 groups of threads that have recorded.
#[derive(Default)]
pub struct Histogram {
    shards: [OnceLock<Shard>; SHARDS],
}

impl Histogram {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one duration.
    pub fn record(&self, duration: Duration) {
        self.record_many(duration, 1);
    }

    /// Counts a duration that occurred so many times.
    pub fn record_many(&self, duration: Duration, times: u64) {
        if times > 0 {
            self.shards[here()].get_or_init(Shard::new).record(nanos(duration), times);
        }
    }

    /// What was recorded so far. What is recorded meanwhile may be in the counts and not yet in the sum.
    pub fn snapshot(&self) -> HistogramSnapshot {
        let mut all = HistogramSnapshot::default();
        for shard in self.shards.iter().filter_map(OnceLock::get) {
            all.merge(&shard.snapshot());
        }
        all
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.snapshot().fmt(f)
    }
}

/// A distribution of durations at one moment.
#[derive(Clone, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// By bucket; empty if nothing was recorded.
    counts: Vec<u64>,
    count: u64,
    sum: u128,
    min: u64,
    max: u64,
}

impl Default for HistogramSnapshot {
    fn default() -> Self {
        Self { counts: Vec::new(), count: 0, sum: 0, min: u64::MAX, max: 0 }
    }
}

impl HistogramSnapshot {
    /// How many durations were recorded.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// All of them together, exact.
    pub fn sum(&self) -> Duration {
        let second = Duration::from_secs(1).as_nanos();
        let seconds = u64::try_from(self.sum / second).unwrap_or(u64::MAX);
        Duration::new(seconds, (self.sum % second) as u32)
    }

    /// The shortest, exact; zero if there is none.
    pub fn min(&self) -> Duration {
        Duration::from_nanos(if self.count == 0 { 0 } else { self.min })
    }

    /// The longest, exact; zero if there is none.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// The mean, exact; zero if there is none.
    pub fn mean(&self) -> Duration {
        let mean = self.sum.checked_div(self.count.into()).unwrap_or(0);
        Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX))
    }

    /// The duration that a share `q` (0 to 1) of all did not exceed, off by at most 1/64 of it; zero if there is none.
    pub fn quantile(&self, q: f64) -> Duration {
        let rank = (q.clamp(0.0, 1.0) * self.count as f64).ceil() as u64;
        let rank = rank.clamp(1, self.count.max(1));
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        let nanos = bucket.map_or(0, |bucket| middle_of(bucket).clamp(self.min, self.max));
        Duration::from_nanos(nanos)
    }

    /// How many did not exceed `limit`, together with those in the same bucket, which exceed it by less than 1/32.
    pub fn count_up_to(&self, limit: Duration) -> u64 {
        let buckets = bucket_of(nanos(limit)) + 1;
        self.counts.iter().take(buckets).sum()
    }

    /// How many lie between each of these ascending bounds and the one before, and last how many lie beyond all of them;
    /// each bound is as exact as [`HistogramSnapshot::count_up_to`].
    pub fn counts_between(&self, bounds: impl IntoIterator<Item = Duration>) -> Vec<u64> {
        let mut below = 0;
        let mut counts: Vec<u64> = bounds
            .into_iter()
            .map(|bound| {
                let up_to = self.count_up_to(bound);
                up_to.saturating_sub(std::mem::replace(&mut below, up_to))
            })
            .collect();
        counts.push(self.count.saturating_sub(below));
        counts
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }
}

impl fmt::Debug for HistogramSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HistogramSnapshot")
            .field("count", &self.count)
            .field("min", &self.min())
            .field("median", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("max", &self.max())
            .finish_non_exhaustive()
    }
}
