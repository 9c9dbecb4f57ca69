//! By cost: what saves least for the room it takes goes first.
//!
//! Greedy-Dual-Size-Frequency (Cherkasova, "Improving WWW proxies performance with Greedy-Dual-Size-Frequency caching
//! policy", HP Labs 1998): an object is worth the cost of having it again, times how often it was used, for each byte. To
//! that is added what the last victim was worth when the object was used last, so that what is not used any more is
//! overtaken by what is.

use std::collections::{BTreeSet, HashMap};

use super::{Eviction, Facts, Policy};
use crate::Key;

pub(super) const POLICY: Policy = Policy {
    name: "cost",
    about: "what saves least time for the room it takes goes first: cost to bring back, uses, bytes",
    make: || Box::new(Cost::default()),
};

#[derive(Default)]
struct Cost {
    clock: u64,
    /// What the last victim was worth.
    floor: f64,
    objects: HashMap<Key, Object>,
    /// By worth, whose bits are in the order of the numbers because it is never negative, then by last use.
    order: BTreeSet<(u64, u64, Key)>,
}

#[derive(Clone, Copy)]
struct Object {
    /// Seconds for each byte.
    density: f64,
    uses: f64,
    worth: u64,
    at: u64,
}

impl Eviction for Cost {
    fn insert(&mut self, key: Key, facts: Facts) {
        let density = facts.cost.max(0.0) / facts.bytes.max(1) as f64;
        self.objects.insert(key, Object { density, uses: 0.0, worth: 0, at: 0 });
        self.touch(key);
    }

    fn touch(&mut self, key: Key) {
        self.clock += 1;
        let Some(object) = self.objects.get_mut(&key) else { return };
        self.order.remove(&(object.worth, object.at, key));
        object.uses += 1.0;
        object.worth = (self.floor + object.uses * object.density).to_bits();
        object.at = self.clock;
        self.order.insert((object.worth, object.at, key));
    }

    fn remove(&mut self, key: Key) {
        if let Some(object) = self.objects.remove(&key) {
            self.order.remove(&(object.worth, object.at, key));
        }
    }

    fn victim(&mut self, may: &mut dyn FnMut(Key) -> bool) -> Option<Key> {
        let (worth, _, key) = self.order.iter().find(|(_, _, key)| may(*key)).copied()?;
        self.floor = self.floor.max(f64::from_bits(worth));
        Some(key)
    }
}
