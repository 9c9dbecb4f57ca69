//! Presence and frequency, as managers of keys and values use them: what has been needed once goes before all that has
//! been needed again, so that a scan pushes out nothing but itself.
//!
//! Keys that went are remembered for as long as as many others went. One that comes back meanwhile has been needed
//! twice. Counts are halved as objects come, so that what was popular once is overtaken.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::{Eviction, Facts, Policy};
use crate::Key;

pub(super) const POLICY: Policy = Policy {
    name: "presence",
    about: "what was needed once goes first, then what is needed least often; a scan pushes out only itself",
    make: || Box::new(Presence::default()),
};

/// Counts stop here.
const MOST: u32 = 8;

/// Counts are halved after so many uses for each object there is.
const AGING: u64 = 8;

#[derive(Default)]
struct Presence {
    clock: u64,
    aged: u64,
    /// By object: how often it was needed, and when last.
    present: HashMap<Key, (u32, u64)>,
    order: BTreeSet<(u32, u64, Key)>,
    /// What went, with the number of its going; the queue names them in that order.
    absent: HashMap<Key, u64>,
    gone: VecDeque<(u64, Key)>,
}

impl Presence {
    fn need(&mut self, key: Key, count: u32) {
        self.clock += 1;
        if let Some((count, at)) = self.present.insert(key, (count, self.clock)) {
            self.order.remove(&(count, at, key));
        }
        self.order.insert((count, self.clock, key));
        if self.clock - self.aged > AGING * self.present.len() as u64 {
            self.aged = self.clock;
            self.present.values_mut().for_each(|(count, _)| *count = (*count / 2).max(1));
            self.order = self.present.iter().map(|(key, (count, at))| (*count, *at, *key)).collect();
        }
    }
}

impl Eviction for Presence {
    fn insert(&mut self, key: Key, _facts: Facts) {
        let count = if self.absent.remove(&key).is_some() { 2 } else { 1 };
        self.need(key, count);
    }

    fn touch(&mut self, key: Key) {
        let count = self.present.get(&key).map_or(0, |(count, _)| *count);
        self.need(key, (count + 1).min(MOST));
    }

    fn remove(&mut self, key: Key) {
        let Some((count, at)) = self.present.remove(&key) else { return };
        self.order.remove(&(count, at, key));
        self.clock += 1;
        self.absent.insert(key, self.clock);
        self.gone.push_back((self.clock, key));
        while self.gone.len() > self.present.len().max(1) * 2 {
            if let Some((number, key)) = self.gone.pop_front()
                && self.absent.get(&key) == Some(&number)
            {
                self.absent.remove(&key);
            }
        }
    }

    fn victim(&mut self, may: &mut dyn FnMut(Key) -> bool) -> Option<Key> {
        self.order.iter().map(|(_, _, key)| *key).find(|key| may(*key))
    }
}
