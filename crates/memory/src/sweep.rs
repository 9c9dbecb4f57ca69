//! Parts of a file that are needed one after the other, again and again, of which memory holds only some: the layers of a
//! model that is larger than its memory.
//!
//! Of a round through more than fits, the least recently used is what is needed next; to forget that, as caches do, would
//! mean to read everything in every round. So as many parts as fit are held for good, and spread evenly, so that the disk
//! is busy with the others meanwhile. What is left of the memory is a window for these: a few parts ahead of the one that
//! is in use are on their way, on threads of the ladder. Which part follows which is learnt from what followed last time.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::buffers::size_class;
use crate::files::Files;
use crate::ladder::{Leftovers, OpenError, Raised};
use crate::rung::{Part, PartsRung, RungError};
use crate::{Key, Ladder, LadderError, LadderSettings, PolicyChoice};

/// Bytes of the window, where the budget allows it and parts are not larger: enough for all threads to have something to
/// read while some parts lie ready.
const WINDOW: usize = 48 << 20;

/// Parts of the window at the least: one in use, two on their way.
const LEAST: usize = 3;

/// Threads that read. One alone would leave the disk idle while it compares a checksum.
const THREADS: usize = 4;

/// Parts of a file, needed one after the other. Clones are the same.
#[derive(Clone)]
pub struct Sweep {
    shared: Arc<Shared>,
}

struct Shared {
    ladder: Ladder,
    plan: Plan,
    order: Mutex<Order>,
    waited: AtomicU64,
}

/// Which parts are held for good, and how much room there is for the others.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    held: Vec<bool>,
    held_bytes: usize,
    /// Bytes of all parts.
    bytes: usize,
    /// What a buffer of the window holds.
    slot: usize,
    /// How many of them there are.
    window: usize,
}

/// What follows what.
struct Order {
    last: usize,
    next: Vec<usize>,
}

/// What a sweep holds and has done.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct SweepStatistics {
    /// Bytes of memory that it may use.
    pub budget: usize,
    /// Bytes of all parts.
    pub bytes: usize,
    /// Bytes of those that are held for good.
    pub held: usize,
    /// Bytes that were read.
    pub read: u64,
    /// How long those who asked for parts waited for them.
    pub waited: Duration,
    /// Reads that failed, damage included.
    pub faults: u64,
}

/// Why there can be no sweep.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SweepError {
    /// Not even the window fits.
    #[error("a memory of {budget} bytes is too small to read {bytes} bytes through; allow {least} or more")]
    Budget {
        /// Bytes that were allowed.
        budget: usize,
        /// Bytes of all parts.
        bytes: usize,
        /// Bytes that would do.
        least: usize,
    },
    /// The ladder cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What is to be held cannot be read.
    #[error("cannot hold what is to be held: {0}")]
    Read(#[from] LadderError),
}

impl Plan {
    fn new(parts: &[Part], budget: usize) -> Result<Self, SweepError> {
        let rooms = || parts.iter().map(|part| size_class(part.bytes));
        let (all, slot) = (rooms().sum::<usize>(), rooms().max().unwrap_or(0));
        let bytes = parts.iter().map(|part| part.bytes).sum();
        if all <= budget {
            return Ok(Self { held: vec![true; parts.len()], held_bytes: all, bytes, slot: 0, window: 0 });
        }
        let least = LEAST * slot;
        if least > budget {
            return Err(SweepError::Budget { budget, bytes, least });
        }
        let window = (WINDOW.min(budget / 2) / slot).max(LEAST);
        let spare = budget - window * slot;
        let (mut held_bytes, mut before) = (0, 0);
        let held = rooms().map(|room| {
            before += room;
            // As much of what has come so far as of all.
            let is_held = held_bytes + room <= (spare as u128 * before as u128 / all as u128) as usize;
            held_bytes += if is_held { room } else { 0 };
            is_held
        });
        let held = held.collect();
        Ok(Self { held, held_bytes, bytes, slot, window: (budget - held_bytes) / slot })
    }
}

impl Sweep {
    /// Reads what is held for good of the parts of a file.
    ///
    /// # Errors
    /// When the budget is too small, the memory is refused, or a part is not what it should be.
    pub fn open<F: Files + 'static>(
        files: F,
        name: &str,
        parts: Vec<Part>,
        budget: usize,
    ) -> Result<Self, SweepError> {
        let plan = Plan::new(&parts, budget)?;
        let next = (1..=parts.len()).map(|next| next % parts.len()).collect();
        let settings = LadderSettings {
            host_bytes: plan.held_bytes + plan.window * plan.slot,
            below_bytes: usize::MAX,
            leftovers: Leftovers::Keep,
            policy: PolicyChoice::once(),
            threads: THREADS,
            ..LadderSettings::default()
        };
        let room = |number: usize| if plan.held[number] { 0 } else { plan.slot };
        let rung = Arc::new(PartsRung::new(files, name, parts, room));
        let ladder = Ladder::open(&settings, Some(rung))?;
        let held = (0..plan.held.len()).filter(|number| plan.held[*number]).map(key);
        let raising: Vec<_> = held
            .map(|key| {
                ladder.pin(key);
                ladder.get(key)
            })
            .collect();
        raising.into_iter().try_for_each(|raise| raise.wait().map(drop))?;
        let order = Mutex::new(Order { last: 0, next });
        Ok(Self { shared: Arc::new(Shared { ladder, plan, order, waited: AtomicU64::default() }) })
    }

    /// A part, which stays in memory for as long as the answer is held; nobody should hold two. Waits until it is there, and
    /// lets those be read that will be needed after it.
    ///
    /// # Errors
    /// When it cannot be read, or is not what it should be.
    pub fn part(&self, number: usize) -> Raised {
        let Shared { ladder, waited, .. } = &*self.shared;
        let began = Instant::now();
        let raise = ladder.get(key(number));
        ladder.prefetch(self.ahead(number).into_iter().map(key));
        let raised = raise.wait();
        // If it has just come, it was not there to be touched when it was asked for.
        ladder.touch([key(number)]);
        waited.fetch_add(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        raised
    }

    /// What is to be read while a part is in use, and learns what it followed.
    fn ahead(&self, number: usize) -> Vec<usize> {
        let plan = &self.shared.plan;
        let mut order = self.shared.order.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut order.last, number);
        if before != number {
            order.next[before] = number;
        }
        let mut ahead = Vec::with_capacity(plan.window);
        let mut next = order.next[number];
        // What follows may go round without ever coming back to this part.
        for _ in 0..plan.held.len() {
            if next == number || ahead.len() + 1 >= plan.window || ahead.first() == Some(&next) {
                break;
            }
            if !plan.held[next] {
                ahead.push(next);
            }
            next = order.next[next];
        }
        ahead
    }

    /// What it holds and has done.
    pub fn statistics(&self) -> SweepStatistics {
        let Shared { ladder, plan, waited, .. } = &*self.shared;
        let ladder = ladder.statistics();
        SweepStatistics {
            budget: ladder.host_budget,
            bytes: plan.bytes,
            held: plan.held_bytes,
            read: ladder.bytes_up,
            waited: Duration::from_nanos(waited.load(Ordering::Relaxed)),
            faults: ladder.faults,
        }
    }

    /// What went wrong last, if anything did.
    pub fn last_fault(&self) -> Option<RungError> {
        self.shared.ladder.statistics().last_fault
    }
}

fn key(number: usize) -> Key {
    Key(number as u128)
}

impl std::fmt::Debug for Sweep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sweep").field("ladder", &self.shared.ladder).finish_non_exhaustive()
    }
}
