//! Least recently used: what was used longest ago goes first. Good where what was used will be used again soon; a scan
//! through more than fits pushes everything out.

use std::collections::{BTreeMap, HashMap};

use super::{Eviction, Facts, Policy};
use crate::Key;

pub(super) const POLICY: Policy =
    Policy { name: "lru", about: "what was used longest ago goes first", make: || Box::new(Lru::default()) };

#[derive(Default)]
struct Lru {
    clock: u64,
    places: HashMap<Key, u64>,
    order: BTreeMap<u64, Key>,
}

impl Eviction for Lru {
    fn insert(&mut self, key: Key, _facts: Facts) {
        self.touch(key);
    }

    fn touch(&mut self, key: Key) {
        self.clock += 1;
        if let Some(before) = self.places.insert(key, self.clock) {
            self.order.remove(&before);
        }
        self.order.insert(self.clock, key);
    }

    fn remove(&mut self, key: Key) {
        if let Some(place) = self.places.remove(&key) {
            self.order.remove(&place);
        }
    }

    fn victim(&mut self, may: &mut dyn FnMut(Key) -> bool) -> Option<Key> {
        self.order.values().copied().find(|key| may(*key))
    }
}
