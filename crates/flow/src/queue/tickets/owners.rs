//! Owners by small numbers, so that a waiting ticket needs four bytes for its owner and a policy no text.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// So many owners of whom nothing waits are remembered, because most of them come back.
const REMEMBERED: usize = 64;

/// So many handles of one name are kept at most, and never more than the owner has tickets.
const SPARE: usize = 64;

/// So many texts are recognised without being read.
const RECENT: usize = 512;

/// 2^64 over the golden ratio: multiplied by it, numbers that follow each other end far apart.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The number of an owner while anything of it waits or a policy holds it; afterwards it may become another one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::queue) struct OwnerId(u32);

impl OwnerId {
    /// Where an owner's state stands in a list of all owners.
    pub(in crate::queue) fn index(self) -> usize {
        self.0 as usize
    }

    /// The owner whose state stands there.
    pub(in crate::queue) fn at(index: usize) -> Self {
        Self(u32::try_from(index).expect("there are fewer owners than tickets, and those have 32-bit places"))
    }
}

impl Default for OwnerId {
    fn default() -> Self {
        Self(u32::MAX)
    }
}

/// A map by small numbers that nobody outside chooses, which need no defence against chosen collisions.
pub(in crate::queue) type NumberMap<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// Spreads a number by multiplication.
#[derive(Default)]
pub(in crate::queue) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(SPREAD).rotate_left(32);
    }
}

/// All owners of whom something waits.
pub(in crate::queue) struct Owners {
    ids: HashMap<Arc<str>, OwnerId>,
    owners: Vec<Owner>,
    /// Owners without references, the longest forgotten first, among some that have been referred to again since.
    idle: VecDeque<OwnerId>,
    /// Owners by the address of their name: most tickets share one text with those before them.
    recent: Box<[OwnerId; RECENT]>,
}

impl Default for Owners {
    fn default() -> Self {
        let recent = Box::new([OwnerId::default(); RECENT]);
        Self { ids: HashMap::new(), owners: Vec::new(), idle: VecDeque::new(), recent }
    }
}

struct Owner {
    name: Arc<str>,
    /// Handles that came with tickets and go out with others: counting references costs more than keeping some.
    spare: Vec<Arc<str>>,
    references: usize,
    is_listed_idle: bool,
}

impl Owners {
    /// The number of an owner, which counts as referred to once more.
    pub(in crate::queue) fn refer(&mut self, name: Arc<str>) -> OwnerId {
        let id = self.id(&name);
        let owner = &mut self.owners[id.index()];
        owner.references += 1;
        if owner.spare.len() < SPARE && Arc::ptr_eq(&owner.name, &name) {
            owner.spare.push(name);
        }
        id
    }

    /// Refers once more to an owner that is referred to.
    pub(in crate::queue) fn hold(&mut self, id: OwnerId) {
        self.owners[id.index()].references += 1;
    }

    /// The number of an owner, if it has one. Without a reference it may become another one's.
    pub(in crate::queue) fn find(&self, name: &str) -> Option<OwnerId> {
        self.ids.get(name).copied()
    }

    /// Ends one reference and hands the name out.
    pub(in crate::queue) fn part(&mut self, id: OwnerId) -> Arc<str> {
        let owner = &mut self.owners[id.index()];
        let name = owner.spare.pop().unwrap_or_else(|| Arc::clone(&owner.name));
        self.release(id);
        name
    }

    /// Ends one reference.
    pub(in crate::queue) fn release(&mut self, id: OwnerId) {
        let owner = &mut self.owners[id.index()];
        owner.references -= 1;
        if owner.references == 0 && !owner.is_listed_idle {
            owner.is_listed_idle = true;
            self.idle.push_back(id);
        }
    }

    /// The owner's name.
    pub(in crate::queue) fn name(&self, id: OwnerId) -> &Arc<str> {
        &self.owners[id.index()].name
    }

    fn id(&mut self, name: &Arc<str>) -> OwnerId {
        let address = Arc::as_ptr(name).addr() as u64;
        let recent = (address.wrapping_mul(SPREAD) >> (u64::BITS - RECENT.ilog2())) as usize;
        let id = self.recent[recent];
        if self.owners.get(id.index()).is_some_and(|owner| Arc::ptr_eq(&owner.name, name)) {
            return id;
        }
        let id = match self.ids.get(name) {
            Some(id) => *id,
            None => self.enter(Arc::clone(name)),
        };
        self.recent[recent] = id;
        id
    }

    fn enter(&mut self, name: Arc<str>) -> OwnerId {
        let owner = Owner { name: name.clone(), spare: Vec::new(), references: 0, is_listed_idle: true };
        let id = match self.forgotten() {
            Some(id) => {
                self.ids.remove(&self.owners[id.index()].name);
                self.owners[id.index()] = owner;
                id
            }
            None => {
                self.owners.push(owner);
                OwnerId::at(self.owners.len() - 1)
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
            let owner = &mut self.owners[id.index()];
            owner.is_listed_idle = false;
            if owner.references == 0 {
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
    fn numbers_are_stable_while_referred_to_and_reused_afterwards() {
        let mut owners = Owners::default();
        let kept = owners.refer("kept".into());
        for round in 0..10_000 {
            let id = owners.refer(format!("owner {round}").into());
            owners.hold(id);
            assert_eq!(owners.refer(format!("owner {round}").into()), id);
            assert_eq!(&**owners.name(id), format!("owner {round}"));
            (0..3).for_each(|_| owners.release(id));
        }
        assert_eq!(owners.refer("kept".into()), kept);
        assert!(owners.owners.len() <= 2 * REMEMBERED, "{} owners are remembered", owners.owners.len());
        assert_eq!(owners.ids.len(), owners.owners.len());
    }
}
