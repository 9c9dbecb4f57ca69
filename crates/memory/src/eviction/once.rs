//! Once: what has been used goes before what has not, each the oldest first. For whoever goes over more than fits again and
//! again and says ahead what comes next: what was used is what will be needed last.

use std::collections::{BTreeSet, HashMap};

use super::{Eviction, Facts, Policy};
use crate::Key;

pub(super) const POLICY: Policy = Policy {
    name: "once",
    about: "what was used goes first, what was brought up ahead stays; for rounds through more than fits",
    make: || Box::new(Once::default()),
};

#[derive(Default)]
struct Once {
    clock: u64,
    places: HashMap<Key, (State, u64)>,
    order: BTreeSet<(State, u64, Key)>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Used,
    Ahead,
}

impl Once {
    fn place(&mut self, key: Key, state: State) {
        self.clock += 1;
        if let Some((state, at)) = self.places.insert(key, (state, self.clock)) {
            self.order.remove(&(state, at, key));
        }
        self.order.insert((state, self.clock, key));
    }
}

impl Eviction for Once {
    fn insert(&mut self, key: Key, _facts: Facts) {
        self.place(key, State::Ahead);
    }

    fn touch(&mut self, key: Key) {
        self.place(key, State::Used);
    }

    fn remove(&mut self, key: Key) {
        if let Some((state, at)) = self.places.remove(&key) {
            self.order.remove(&(state, at, key));
        }
    }

    fn victim(&mut self, may: &mut dyn FnMut(Key) -> bool) -> Option<Key> {
        self.order.iter().map(|(_, _, key)| *key).find(|key| may(*key))
    }
}
