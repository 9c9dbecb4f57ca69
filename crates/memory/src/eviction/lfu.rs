//! Least frequently used: what was used least often goes first, and of those what was used longest ago. Good where
//! popularity lasts. Counts are halved now and then, or what was popular yesterday would never go.

use std::collections::{BTreeSet, HashMap};

use super::{Eviction, Facts, Policy};
use crate::Key;

pub(super) const POLICY: Policy =
    Policy { name: "lfu", about: "what was used least often goes first", make: || Box::new(Lfu::default()) };

/// Counts are halved after so many uses for each object there is.
const AGING: u64 = 16;

#[derive(Default)]
struct Lfu {
    clock: u64,
    aged: u64,
    /// By object: how often it was used, and when last.
    uses: HashMap<Key, (u64, u64)>,
    order: BTreeSet<(u64, u64, Key)>,
}

impl Lfu {
    fn age(&mut self) {
        if self.clock - self.aged <= AGING * self.uses.len() as u64 {
            return;
        }
        self.aged = self.clock;
        self.uses.values_mut().for_each(|(count, _)| *count = (*count / 2).max(1));
        self.order = self.uses.iter().map(|(key, (count, at))| (*count, *at, *key)).collect();
    }
}

impl Eviction for Lfu {
    fn insert(&mut self, key: Key, _facts: Facts) {
        self.touch(key);
    }

    fn touch(&mut self, key: Key) {
        self.clock += 1;
        let (count, at) = self.uses.get(&key).copied().unwrap_or_default();
        self.order.remove(&(count, at, key));
        self.uses.insert(key, (count + 1, self.clock));
        self.order.insert((count + 1, self.clock, key));
        self.age();
    }

    fn remove(&mut self, key: Key) {
        if let Some((count, at)) = self.uses.remove(&key) {
            self.order.remove(&(count, at, key));
        }
    }

    fn victim(&mut self, may: &mut dyn FnMut(Key) -> bool) -> Option<Key> {
        self.order.iter().map(|(_, _, key)| *key).find(|key| may(*key))
    }
}
