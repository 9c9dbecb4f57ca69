//! How many retries a caller may add to the load of a callee that fails.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::shards::{SHARDS, here};
use crate::rate::TokenBucket;

/// For so many seconds a success allows for retries, and a retry counts against them.
const SECONDS: u32 = 10;

/// Lets retries through in proportion to successes, plus a few per second so that a callee that has failed for a while
/// is still tried.
///
/// The shape is that of Finagle's and tower's budgets: within ten seconds, no more retries than `ratio` times the
/// successes of those ten seconds plus the minimum. Clones share one budget, so several stages that call the same
/// service can be given the same. It is told the time as an `Instant` because those who share it have no other moment
/// in common.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    ratio: f64,
    began: OnceLock<Instant>,
    /// Successes are many, and threads that have them at once do not write to the same memory.
    successes: [Seconds; SHARDS],
    spent: Mutex<Spent>,
}

#[derive(Debug)]
struct Spent {
    /// Retries that successes paid for.
    retries: Seconds,
    minimum: Option<TokenBucket>,
}

impl RetryBudget {
    /// A budget of `ratio` retries per success and nothing besides.
    pub fn ratio(ratio: f64) -> Self {
        Self::build(ratio, None)
    }

    /// Allows `retries` per second besides, whatever succeeds.
    pub fn min_per_sec(self, retries: u32) -> Self {
        let bucket = NonZeroU32::new(retries).map(|n| TokenBucket::new(n, Duration::from_secs(1), n));
        Self::build(self.shared.ratio, bucket)
    }

    fn build(ratio: f64, minimum: Option<TokenBucket>) -> Self {
        let spent = Mutex::new(Spent { retries: Seconds::default(), minimum });
        Self {
            shared: Arc::new(Shared { ratio, began: OnceLock::new(), successes: Default::default(), spent }),
        }
    }

    /// Notes a success. Takes no lock, since successes are many.
    pub fn deposit(&self, now: Instant) {
        self.shared.successes[here()].add(self.second(now));
    }

    /// Takes one retry, and says whether it was there.
    pub fn withdraw(&self, now: Instant) -> bool {
        let second = self.second(now);
        let since = now.saturating_duration_since(self.began(now));
        let mut spent = self.shared.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let successes: u64 = self.shared.successes.iter().map(|shard| shard.sum(second)).sum();
        let earned = self.shared.ratio * successes as f64;
        if (spent.retries.sum(second) + 1) as f64 <= earned {
            spent.retries.add(second);
            return true;
        }
        spent.minimum.as_mut().is_some_and(|bucket| bucket.try_take(since, 1).is_ok())
    }

    fn began(&self, now: Instant) -> Instant {
        *self.shared.began.get_or_init(|| now)
    }

    /// Number of the second that `now` falls into, from 1.
    fn second(&self, now: Instant) -> u32 {
        let seconds = now.saturating_duration_since(self.began(now)).as_secs();
        u32::try_from(seconds).unwrap_or(u32::MAX - 1) + 1
    }
}

/// Counts of the last seconds. Each cell holds the number of its second in the upper half and a count in the lower.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Seconds {
    cells: [AtomicU64; SECONDS as usize],
}

impl Seconds {
    fn add(&self, second: u32) {
        let cell = &self.cells[(second % SECONDS) as usize];
        let of = |held: u64| (held >> 32) as u32;
        if of(cell.load(Ordering::Relaxed)) == second {
            // No second has the 2^32 calls that it would take to spill into the upper half.
            cell.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // A late caller may find its second gone: then there is nothing to note.
        let _ = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| match of(held) {
            held_of if held_of < second => Some(u64::from(second) << 32 | 1),
            held_of if held_of == second => Some(held + 1),
            _ => None,
        });
    }

    /// Everything of the ten seconds that end with this one.
    fn sum(&self, second: u32) -> u64 {
        let held = self.cells.iter().map(|cell| cell.load(Ordering::Relaxed));
        let recent = held.filter(|held| ((held >> 32) as u32).saturating_add(SECONDS) > second);
        recent.map(|held| held & u64::from(u32::MAX)).sum()
    }
}
