//! What goes to make room: out of memory, and out of the rung below.

use std::sync::Arc;

use super::{Below, Book, Hungry, Job, LadderError, Lowering, Priority, Reserved, Stay};
use crate::buffers::size_class;
use crate::slot::Slot;
use crate::{Buffer, Key};

/// What asking for room comes to.
pub(super) enum Room {
    /// Here it is.
    Here(Buffer),
    /// It is being made.
    Soon,
    /// There is none, and nothing is on its way that could make any.
    Never(LadderError),
}

/// What may go from the rung below to make room there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sacrifice {
    /// What may go for good, and copies of what is in memory too.
    Copies,
    /// What may go for good and is nowhere else. Giving up a copy would leave another object without one: nothing would
    /// be gained, and the next round would write that one down again, for ever.
    NoCopies,
}

/// What shedding an object from memory came to.
enum Shed {
    Freed,
    Started,
    Nothing,
}

impl Book {
    /// Asks for room; the slot hears of it. Returns what names the claim.
    pub(in super::super) fn ask_room(&mut self, bytes: usize, slot: &Arc<Slot<Reserved>>) -> u64 {
        let claim = self.count();
        if self.ended {
            slot.fill(Err(LadderError::Ended));
            return claim;
        }
        self.attempt += 1;
        self.hungry.insert((Priority::Demand, claim), Hungry::Claim { bytes, slot: Arc::clone(slot) });
        self.feed();
        claim
    }

    /// Somebody does not wait for room any more.
    pub(in super::super) fn forget_claim(&mut self, claim: u64) {
        self.hungry.remove(&(Priority::Demand, claim));
        self.feed();
    }

    /// Room, if nobody waits for some and it can be had without waiting.
    pub(in super::super) fn room_now(&mut self, bytes: usize) -> Option<Buffer> {
        if self.ended || self.hungry.first_key_value().is_some_and(|(place, _)| place.0 == Priority::Demand) {
            return None;
        }
        self.attempt += 1;
        match self.room(bytes) {
            Room::Here(buffer) => Some(buffer),
            Room::Soon | Room::Never(_) => None,
        }
    }

    pub(super) fn room(&mut self, bytes: usize) -> Room {
        if size_class(bytes) > self.allowed {
            return Room::Never(LadderError::TooLarge { bytes, budget: self.allowed });
        }
        loop {
            if let Some(buffer) = self.pool.take(bytes) {
                return Room::Here(buffer);
            }
            let needed = (self.pool.used() + size_class(bytes)).saturating_sub(self.pool.budget());
            if needed == 0 && self.compact(1) > 0 {
                continue;
            }
            if self.lowering > 0 && self.lowering >= needed {
                self.hurry();
                return Room::Soon;
            }
            match self.shed() {
                Shed::Freed | Shed::Started => {}
                Shed::Nothing if self.lowering > 0 || self.is_rising() => return Room::Soon,
                // What is eased refuses nothing that there would be room for otherwise.
                Shed::Nothing if self.pool.budget() < self.allowed => {
                    // What is free and in too small stretches is no room either.
                    let wanted = if needed > 0 { self.pool.budget() + needed } else { self.allowed };
                    self.pool.set_budget(wanted.min(self.allowed));
                }
                Shed::Nothing => {
                    let (used, budget) = (self.pool.used(), self.pool.budget());
                    return Room::Never(LadderError::Full { bytes, used, budget, below: self.fault.clone() });
                }
            }
        }
    }

    /// Whether anything is on its way up, which may go again once it has been there.
    fn is_rising(&self) -> bool {
        self.running > 0 || self.jobs.values().any(|job| matches!(job, Job::Up(_)))
    }

    /// Lets an object leave memory, or begins to.
    fn shed(&mut self) -> Shed {
        while let Some(key) = self.next_to_leave() {
            let Some(entry) = self.entries.get(&key) else { return Shed::Nothing };
            let (below, stay, is_refused) = (entry.below, entry.stay, entry.refused == self.attempt);
            if below == Below::Present {
                self.counts.lowered += 1;
                self.drop_host(key);
                return Shed::Freed;
            }
            if below == Below::Absent && !is_refused && self.lower(key, Priority::Demand, Sacrifice::Copies) {
                return Shed::Started;
            }
            if stay == Stay::WhileRoom {
                self.counts.given_up += 1;
                self.drop_host(key);
                if below == Below::Absent {
                    self.entries.remove(&key);
                }
                return Shed::Freed;
            }
            let attempt = self.attempt;
            self.entries.entry(key).and_modify(|entry| entry.refused = attempt);
        }
        Shed::Nothing
    }

    /// The object that is to leave memory first, of those that may and can.
    fn next_to_leave(&mut self) -> Option<Key> {
        let Self { policy, entries, attempt, .. } = self;
        policy.victim(&mut |key| {
            entries.get(&key).is_some_and(|entry| {
                let is_refused = entry.refused == *attempt || entry.below == Below::Leaving;
                let is_stuck = entry.stay == Stay::Always && entry.below != Below::Present && is_refused;
                entry.is_free() && entry.below != Below::Coming && !is_stuck
            })
        })
    }

    /// Begins to write an object down, if there is room below or can be made.
    pub(super) fn lower(&mut self, key: Key, priority: Priority, sacrifice: Sacrifice) -> bool {
        let Some(blob) = self.entries.get(&key).and_then(|entry| entry.host.clone()) else { return false };
        let Some((evict, excess)) = self.room_below(key, blob.bytes.len(), sacrifice) else { return false };
        self.lowering += blob.bytes.footprint();
        self.entries.entry(key).and_modify(|entry| entry.bytes_below = blob.bytes.len());
        self.set_below(key, Below::Coming);
        let place = (priority, self.count());
        self.jobs.insert(place, Job::Down(Lowering { key, blob, evict, excess }));
        self.work.raise();
        true
    }

    /// Takes room on the rung below: who has to go for it, and how much more than needed comes free then.
    fn room_below(&mut self, newcomer: Key, bytes: usize, sacrifice: Sacrifice) -> Option<(Vec<Key>, usize)> {
        let Self { lower, entries, .. } = self;
        let lower = lower.as_mut()?;
        let footprint = lower.rung.footprint(bytes);
        let mut evict = Vec::new();
        let mut gain = 0;
        while lower.used + footprint > lower.budget + gain {
            let victim = lower.policy.victim(&mut |key| {
                let may = |entry: &super::Entry| {
                    let is_spare = match entry.host {
                        Some(_) => sacrifice == Sacrifice::Copies,
                        None => entry.stay == Stay::WhileRoom,
                    };
                    entry.rising.is_none() && is_spare
                };
                key != newcomer && !evict.contains(&key) && entries.get(&key).is_some_and(may)
            })?;
            gain += lower.rung.footprint(entries[&victim].bytes_below);
            evict.push(victim);
        }
        let excess = gain.saturating_sub(footprint);
        lower.used = (lower.used + footprint).saturating_sub(gain).max(lower.used);
        for key in &evict {
            let is_last = self.entries.get(key).is_some_and(|entry| entry.host.is_none());
            self.counts.given_up += u64::from(is_last);
            self.set_below(*key, Below::Leaving);
        }
        Some((evict, excess))
    }

    /// Begins to remove an object from the rung below.
    pub(super) fn forget(&mut self, key: Key) {
        self.set_below(key, Below::Leaving);
        let place = (Priority::Prefetch, self.count());
        self.jobs.insert(place, Job::Forget(key));
        self.work.raise();
    }

    /// Makes room ahead of time: writes down until what is above the low watermark could leave memory at once.
    pub(super) fn clean(&mut self) {
        let mark = |share: f64, budget: usize| (share * budget as f64) as usize;
        let (high, low) = (self.watermarks.high, self.watermarks.low);
        let (used, budget) = (self.pool.used(), self.pool.budget());
        while used > mark(high, budget) && self.dirty.saturating_sub(self.lowering) > mark(low, budget) {
            let Self { policy, entries, attempt, .. } = &mut *self;
            let is_dirty = |entry: &super::Entry| entry.below == Below::Absent && entry.refused != *attempt;
            let next = policy.victim(&mut |key| entries.get(&key).is_some_and(is_dirty));
            if !next.is_some_and(|key| self.lower(key, Priority::Background, Sacrifice::NoCopies)) {
                return;
            }
        }
    }

    /// Begins to remove below what is beyond the budget there.
    pub(in super::super) fn settle_down(&mut self) {
        let mut leaving = 0;
        while let Some(lower) = &mut self.lower
            && lower.used > lower.budget + leaving
        {
            let Some(key) = lower.policy.victim(&mut |_| true) else { return };
            leaving += lower.rung.footprint(self.entries[&key].bytes_below);
            self.counts.given_up += 1;
            self.forget(key);
        }
    }

    pub(in super::super) fn set_host_budget(&mut self, bytes: usize) {
        // As the pool counts it, in whole blocks.
        self.pool.set_budget(bytes);
        self.allowed = self.pool.budget();
        self.ease(bytes);
    }

    /// Uses no more than so much, but for what could not be had otherwise.
    pub(in super::super) fn ease(&mut self, bytes: usize) {
        self.pool.set_budget(bytes.min(self.allowed));
        self.attempt += 1;
        self.feed();
    }

    /// Lets go what is beyond the number of objects, or beyond a budget that was lowered.
    pub(super) fn trim(&mut self) {
        while self.pool.used() > self.pool.budget() || self.hosted > self.most_hosted {
            self.hurry();
            let coming = self.jobs.values().filter(|job| matches!(job, Job::Down(_))).count() + self.running;
            let is_enough = self.pool.used() <= self.pool.budget() + self.lowering
                && self.hosted <= self.most_hosted.saturating_add(coming);
            if is_enough || matches!(self.shed(), Shed::Nothing) {
                return;
            }
        }
    }

    /// Lets what is written down ahead of time be written down now.
    fn hurry(&mut self) {
        let is_slow = |(place, job): (&super::Place, &Job)| {
            (place.0 == Priority::Background && matches!(job, Job::Down(_))).then_some(*place)
        };
        let slow: Vec<super::Place> = self.jobs.iter().filter_map(is_slow).collect();
        for place in slow {
            if let Some(job) = self.jobs.remove(&place) {
                self.jobs.insert((Priority::Demand, place.1), job);
            }
        }
    }

    /// Moves objects that nobody holds towards the beginning of the memory, the last ones first, until there are at most
    /// `most` of them or none can move. Returns how many moved.
    pub(in super::super) fn compact(&mut self, most: usize) -> usize {
        let mut objects: Vec<(usize, Key)> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.host.as_ref().is_some_and(|blob| Arc::strong_count(blob) == 1))
            .filter_map(|(key, entry)| Some((entry.host.as_ref()?.bytes.offset(), *key)))
            .collect();
        objects.sort_unstable_by(|a, b| b.cmp(a));
        let mut moved = 0;
        for (offset, key) in objects {
            if moved == most {
                break;
            }
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            let Some(blob) = entry.host.as_mut().and_then(Arc::get_mut) else { continue };
            let Some(mut to) = self.pool.take_before(blob.bytes.len(), offset) else { continue };
            to.copy_from_slice(&blob.bytes);
            to.clear_padding();
            if entry.below != Below::Present {
                self.dirty = self.dirty - blob.bytes.footprint() + to.footprint();
            }
            blob.bytes = to;
            moved += 1;
        }
        moved
    }
}
