//! Owners by small numbers, for policies that keep something for each.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use crate::queue::Owner;

/// So many owners of whom nothing waits are remembered, because most of them come back.
const REMEMBERED: usize = 64;

/// So many texts are recognised without being read.
const RECENT: usize = 4096;

/// 2^64 over the golden ratio: multiplied by it, numbers that follow each other end far apart.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The number of an owner while the policy holds it; afterwards it may become another one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct OwnerId(u32);

impl OwnerId {
    /// Where an owner's state stands in a list of all owners.
    #[inline]
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }

    /// The owner whose state stands there.
    #[inline]
    pub(super) fn at(index: usize) -> Self {
        Self(
            u32::try_from(index)
                .expect("four thousand million owners do not fit into any memory that exists"),
        )
    }
}

impl Default for OwnerId {
    fn default() -> Self {
        Self(u32::MAX)
    }
}

/// A map by small numbers that nobody outside chooses, which need no defence against chosen collisions.
pub(super) type NumberMap<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// Spreads a number by multiplication.
#[derive(Default)]
pub(super) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(SPREAD).rotate_left(32);
    }
}

/// All owners that are held, and some that were lately.
#[derive(Debug)]
pub(super) struct Owners {
    ids: HashMap<Owner, OwnerId>,
    known: Vec<Known>,
    /// Owners that are not held, the longest forgotten first, among some that are again.
    idle: VecDeque<OwnerId>,
    /// Owners by the address of their name: most tickets share one text with those before them.
    recent: Box<[OwnerId; RECENT]>,
}

impl Default for Owners {
    fn default() -> Self {
        let recent = Box::new([OwnerId::default(); RECENT]);
        Self { ids: HashMap::new(), known: Vec::new(), idle: VecDeque::new(), recent }
    }
}

#[derive(Debug)]
struct Known {
    name: Owner,
    holds: usize,
    is_listed_idle: bool,
}

impl Owners {
    /// The number of an owner. Unless it is held, it may become another one's with the next call.
    #[inline]
    pub(super) fn id(&mut self, name: &Owner) -> OwnerId {
        let address = name.address() as u64;
        let recent = (address.wrapping_mul(SPREAD) >> (u64::BITS - RECENT.ilog2())) as usize;
        let id = self.recent[recent];
        if self.known.get(id.index()).is_some_and(|known| known.name.is_clone_of(name)) {
            return id;
        }
        let id = match self.find(name) {
            Some(id) => id,
            None => self.enter(name.clone()),
        };
        self.recent[recent] = id;
        id
    }

    /// The number of an owner, if it has one.
    pub(super) fn find(&self, name: &str) -> Option<OwnerId> {
        self.ids.get(name).copied()
    }

    /// Sees to it that the number stays this owner's.
    #[inline]
    pub(super) fn hold(&mut self, id: OwnerId) {
        self.known[id.index()].holds += 1;
    }

    /// Ends one hold.
    #[inline]
    pub(super) fn release(&mut self, id: OwnerId) {
        let known = &mut self.known[id.index()];
        known.holds -= 1;
        if known.holds == 0 && !known.is_listed_idle {
            known.is_listed_idle = true;
            self.idle.push_back(id);
        }
    }

    /// The owner's name.
    pub(super) fn name(&self, id: OwnerId) -> &str {
        &self.known[id.index()].name
    }

    fn enter(&mut self, name: Owner) -> OwnerId {
        let known = Known { name: name.clone(), holds: 0, is_listed_idle: true };
        let id = match self.forgotten() {
            Some(id) => {
                self.ids.remove(&self.known[id.index()].name);
                self.known[id.index()] = known;
                id
            }
            None => {
                self.known.push(known);
                OwnerId::at(self.known.len() - 1)
            }
        };
        self.idle.push_back(id);
        self.ids.insert(name, id);
        id
    }

    /// A number that is free to be used anew.
    fn forgotten(&mut self) -> Option<OwnerId> {
        while self.idle.len() > REMEMBERED {
            let id = self.idle.pop_front()?;
            let known = &mut self.known[id.index()];
            known.is_listed_idle = false;
            if known.holds == 0 {
                return Some(id);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_stable_while_held_and_reused_afterwards() {
        let mut owners = Owners::default();
        let kept = owners.id(&"kept".into());
        owners.hold(kept);
        for round in 0..10_000 {
            let name = Owner::from(format!("owner {round}"));
            let id = owners.id(&name);
            (0..2).for_each(|_| owners.hold(id));
            assert_eq!(owners.id(&Owner::from(format!("owner {round}"))), id);
            assert_eq!(owners.name(id), &*name);
            (0..2).for_each(|_| owners.release(id));
        }
        assert_eq!(owners.id(&"kept".into()), kept);
        assert!(owners.known.len() <= 2 * REMEMBERED, "{} owners are remembered", owners.known.len());
        assert_eq!(owners.ids.len(), owners.known.len());
    }
}
