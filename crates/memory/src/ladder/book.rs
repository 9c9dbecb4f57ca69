//! The book: where every object is, what is on its way, and who waits for it. No I/O and no clock; what happened is told.
//!
//! `room.rs` decides what goes to make room, `transfers.rs` what is moved next and what comes of it, `standing.rs` notes where
//! objects are.

mod entry;
mod room;
mod standing;
mod transfers;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::statistics::{LadderStatistics, Rates};
use super::{LadderError, LadderSettings, Priority, Raised, Reserved, Stay, Terms, Watermarks, Writing};
use crate::eviction::Eviction;
use crate::replay::Recorder;
use crate::rung::{Blob, Rung, RungError, Stop};
use crate::signal::Signal;
use crate::slot::Slot;
use crate::{Buffer, BufferPool, Key};
use entry::{Below, Entry, Rising, Stage};
use room::Sacrifice;

/// Something for a thread to do.
pub(super) enum Job {
    /// Bring an object up.
    Up(Raising),
    /// Write an object down.
    Down(Lowering),
    /// Remove an object below.
    Forget(Key),
}

/// An object to bring up, and room for it.
pub(super) struct Raising {
    pub(super) key: Key,
    pub(super) ticket: u64,
    pub(super) buffer: Buffer,
    pub(super) stop: Stop,
}

/// An object to write down, and what has to go for it.
pub(super) struct Lowering {
    pub(super) key: Key,
    pub(super) blob: Arc<Blob>,
    pub(super) evict: Vec<Key>,
    /// Bytes that come free beyond what it takes.
    pub(super) excess: usize,
}

/// What waits for room.
enum Hungry {
    Claim { bytes: usize, slot: Arc<Slot<Reserved>> },
    Rise(Key),
}

/// A place among what waits: by urgency, then by time.
type Place = (Priority, u64);

/// The rung below, as far as the book knows it.
struct Lower {
    rung: Arc<dyn Rung>,
    policy: Box<dyn Eviction>,
    used: usize,
    budget: usize,
    objects: usize,
}

pub(super) struct Book {
    pool: BufferPool,
    /// What the pool may use at most; it uses less while it is eased.
    allowed: usize,
    entries: HashMap<Key, Entry>,
    policy: Box<dyn Eviction>,
    lower: Option<Lower>,
    watermarks: Watermarks,
    writing: Writing,
    hungry: BTreeMap<Place, Hungry>,
    jobs: BTreeMap<Place, Job>,
    /// Transfers that run.
    running: usize,
    /// Bytes of memory whose objects are being written down, or wait for it.
    lowering: usize,
    /// Bytes of memory whose objects have no copy below.
    dirty: usize,
    /// Objects in memory, and the most that may be.
    hosted: usize,
    most_hosted: usize,
    /// What was brought up ahead and not asked for yet.
    ahead: HashSet<Key>,
    counter: u64,
    /// Grows with everything that asks for room, so that what was refused is tried again.
    attempt: u64,
    fault: Option<RungError>,
    ended: bool,
    recorder: Option<Recorder>,
    work: Arc<Signal>,
    counts: LadderStatistics,
}

impl Book {
    pub(super) fn new(
        pool: BufferPool,
        rung: Option<Arc<dyn Rung>>,
        settings: &LadderSettings,
        work: Arc<Signal>,
    ) -> Self {
        let lower = rung.map(|rung| Lower {
            rung,
            policy: settings.policy.make(),
            used: 0,
            budget: settings.below_bytes,
            objects: 0,
        });
        Self {
            allowed: pool.budget(),
            pool,
            entries: HashMap::new(),
            policy: settings.policy.make(),
            lower,
            watermarks: settings.watermarks,
            writing: settings.writing,
            hungry: BTreeMap::new(),
            jobs: BTreeMap::new(),
            running: 0,
            lowering: 0,
            dirty: 0,
            hosted: 0,
            most_hosted: settings.host_items,
            ahead: HashSet::new(),
            counter: 0,
            attempt: 0,
            fault: None,
            ended: false,
            recorder: settings.recorder.clone(),
            work,
            counts: LadderStatistics::default(),
        }
    }

    fn count(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// Notes an object that the rung below held when it was opened.
    pub(super) fn found(&mut self, key: Key, bytes: usize) {
        let used = self.count();
        self.entries.insert(
            key,
            Entry {
                bytes,
                host: None,
                below: Below::Absent,
                stay: Stay::WhileRoom,
                cost: 0.0,
                pins: 0,
                used,
                rising: None,
                refused: 0,
                bytes_below: bytes,
                doomed: false,
            },
        );
        let footprint = self.lower.as_ref().map_or(0, |lower| lower.rung.footprint(bytes));
        self.lower.iter_mut().for_each(|lower| lower.used += footprint);
        self.set_below(key, Below::Present);
    }

    /// Puts an object in memory.
    pub(super) fn put(&mut self, key: Key, blob: Arc<Blob>, terms: Terms) {
        let used = self.count();
        let is_new = !self.entries.contains_key(&key);
        let entry = self.entries.entry(key).or_insert_with(|| Entry {
            bytes: blob.bytes.len(),
            host: None,
            below: Below::Absent,
            stay: terms.stay,
            cost: terms.cost,
            pins: 0,
            used,
            rising: None,
            refused: 0,
            bytes_below: 0,
            doomed: false,
        });
        entry.stay = entry.stay.max(terms.stay);
        if entry.host.is_none() {
            entry.bytes = blob.bytes.len();
            self.set_host(key, blob);
        }
        self.record(key);
        if !is_new {
            self.touch(key);
        }
        if self.writing == Writing::Through && self.is_dirty(key) {
            self.lower(key, Priority::Background, Sacrifice::Copies);
        }
        self.clean();
        self.feed();
    }

    /// Asks for an object; the slot hears of it.
    pub(super) fn get(&mut self, key: Key, slot: &Arc<Slot<Raised>>) {
        match self.entries.get(&key) {
            Some(Entry { host: Some(blob), .. }) => {
                let blob = Arc::clone(blob);
                self.record(key);
                self.counts.hits += 1;
                self.touch(key);
                slot.fill(Ok(blob));
            }
            Some(Entry { below: Below::Present, .. }) => {
                self.counts.raises += 1;
                self.record(key);
                self.touch(key);
                self.rise(key, Priority::Demand);
                if let Some(rising) = self.entries.get_mut(&key).and_then(|entry| entry.rising.as_mut()) {
                    rising.waiting.push(Arc::clone(slot));
                }
                self.attempt += 1;
                self.feed();
            }
            _ => {
                self.counts.misses += 1;
                slot.fill(Err(LadderError::Absent { key }));
            }
        }
    }

    /// Brings an object up ahead, unless that would take more than half of the memory. False if it is not there or there
    /// is no room.
    pub(super) fn prefetch(&mut self, key: Key) -> bool {
        let Some(entry) = self.entries.get(&key) else { return false };
        if entry.host.is_some() || entry.rising.is_some() {
            return true;
        }
        if entry.below != Below::Present {
            return false;
        }
        let bytes = |key: &Key| self.entries.get(key).map_or(0, |entry| entry.bytes);
        let ahead: usize = self.ahead.iter().map(bytes).sum();
        if 2 * (ahead + entry.bytes) > self.pool.budget() {
            self.counts.prefetches_skipped += 1;
            return false;
        }
        self.ahead.insert(key);
        self.counts.prefetched += 1;
        self.rise(key, Priority::Prefetch);
        self.attempt += 1;
        self.feed();
        true
    }

    pub(super) fn pin(&mut self, key: Key) -> bool {
        let entry = self.entries.get_mut(&key).filter(|entry| entry.is_there());
        entry.map(|entry| entry.pins += 1).is_some()
    }

    pub(super) fn unpin(&mut self, key: Key) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.pins = entry.pins.saturating_sub(1);
            self.feed();
        }
    }

    pub(super) fn contains(&self, key: Key) -> bool {
        self.entries.get(&key).is_some_and(Entry::is_there)
    }

    /// Removes an object from all rungs; whoever waits for it hears that.
    pub(super) fn remove(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.pins = 0;
        if let Some(rising) = entry.rising.take() {
            self.stop_rising(rising, &LadderError::Absent { key });
        }
        self.drop_host(key);
        self.ahead.remove(&key);
        let Some(entry) = self.entries.get_mut(&key) else { return };
        match entry.below {
            Below::Present => self.forget(key),
            Below::Coming | Below::Leaving => entry.doomed = true,
            Below::Absent => {
                self.entries.remove(&key);
            }
        }
        self.feed();
    }

    pub(super) fn clear(&mut self) {
        let keys: Vec<Key> = self.entries.keys().copied().collect();
        keys.into_iter().for_each(|key| self.remove(key));
    }

    /// Somebody does not wait for an object any more.
    pub(super) fn abandon(&mut self, key: Key, slot: &Arc<Slot<Raised>>) {
        let Some(rising) = self.entries.get_mut(&key).and_then(|entry| entry.rising.as_mut()) else { return };
        rising.waiting.retain(|waiting| !Arc::ptr_eq(waiting, slot));
        if !rising.waiting.is_empty() || rising.ahead {
            return;
        }
        self.counts.cancelled += 1;
        if rising.stage == Stage::Running {
            rising.stop.ask();
        } else if let Some(rising) = self.entries.get_mut(&key).and_then(|entry| entry.rising.take()) {
            self.stop_rising(rising, &LadderError::Absent { key });
        }
        self.feed();
    }

    pub(super) fn end(&mut self) {
        self.ended = true;
        for (_, hungry) in std::mem::take(&mut self.hungry) {
            if let Hungry::Claim { slot, .. } = hungry {
                slot.fill(Err(LadderError::Ended));
            }
        }
        let risings = self.entries.values_mut().filter_map(|entry| entry.rising.take());
        for rising in risings {
            rising.stop.ask();
            rising.waiting.into_iter().for_each(|slot| slot.fill(Err(LadderError::Ended)));
        }
        // What is to be written down still is; what nobody will read is not read.
        self.jobs.retain(|_, job| !matches!(job, Job::Up(_)));
    }

    /// Whether there is nothing left to do and never will be.
    pub(super) fn has_ended(&self) -> bool {
        self.ended && self.jobs.is_empty()
    }

    pub(super) fn statistics(&self) -> LadderStatistics {
        let (below_used, below_budget, below_objects) =
            self.lower.as_ref().map_or((0, 0, 0), |lower| (lower.used, lower.budget, lower.objects));
        LadderStatistics {
            host_used: self.pool.used(),
            host_budget: self.pool.budget(),
            host_objects: self.hosted,
            host_locked: self.pool.locked(),
            host_fragments: self.pool.fragments(),
            below_used,
            below_budget,
            below_objects,
            transfers: self.jobs.len() + self.running,
            last_fault: self.fault.clone(),
            ..self.counts.clone()
        }
    }
}
