//! A table bounded in weight that keeps what is used again.

use std::collections::HashMap;

use super::Fingerprint;
use super::fingerprint::BuildAsIs;

/// Stands for "none" among places.
const NOWHERE: u32 = u32::MAX;

struct Entry<V> {
    key: Fingerprint,
    value: V,
    weight: u64,
    /// Whether it was used since it came or since the hand last passed.
    was_used: bool,
    newer: u32,
    older: u32,
}

/// A table bounded in weight, with SIEVE eviction (Zhang et al., "SIEVE is Simpler than LRU", NSDI 2024).
///
/// A hand walks from the oldest entry to the newest, clears the mark of those that were used and evicts the first that
/// was not. Unlike the least recently used order, a use only sets a mark, and a long scan of values that nobody asks for
/// twice does not push out those that are asked for again and again.
pub(super) struct Sieve<V> {
    places: HashMap<Fingerprint, u32, BuildAsIs>,
    entries: Vec<Option<Entry<V>>>,
    free: Vec<u32>,
    newest: u32,
    oldest: u32,
    hand: u32,
    weight: u64,
    bound: u64,
}

impl<V> Sieve<V> {
    pub(super) fn new(bound: u64) -> Self {
        Self {
            places: HashMap::default(),
            entries: Vec::new(),
            free: Vec::new(),
            newest: NOWHERE,
            oldest: NOWHERE,
            hand: NOWHERE,
            weight: 0,
            bound,
        }
    }

    /// The value, which from now on counts as used.
    pub(super) fn get(&mut self, key: Fingerprint) -> Option<&V> {
        let place = *self.places.get(&key)?;
        let entry = self.entries[place as usize].as_mut()?;
        entry.was_used = true;
        Some(&entry.value)
    }

    /// The value, without counting as a use.
    pub(super) fn peek(&self, key: Fingerprint) -> Option<&V> {
        let place = *self.places.get(&key)?;
        self.entries[place as usize].as_ref().map(|entry| &entry.value)
    }

    /// Adds an entry and gives what had to leave for it: the entry itself if it is heavier than the bound.
    pub(super) fn insert(&mut self, key: Fingerprint, value: V, weight: u64) -> Vec<(Fingerprint, V)> {
        let mut gone: Vec<_> = self.remove(key).map(|before| (key, before)).into_iter().collect();
        if weight > self.bound {
            gone.push((key, value));
            return gone;
        }
        while self.weight > self.bound - weight {
            gone.extend(self.evict());
        }
        let entry = Entry { key, value, weight, was_used: false, newer: NOWHERE, older: self.newest };
        let place = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            (self.entries.len() - 1) as u32
        });
        self.entries[place as usize] = Some(entry);
        match self.entry(self.newest) {
            Some(newest) => newest.newer = place,
            None => self.oldest = place,
        }
        self.newest = place;
        self.weight += weight;
        self.places.insert(key, place);
        gone
    }

    pub(super) fn remove(&mut self, key: Fingerprint) -> Option<V> {
        let place = self.places.remove(&key)?;
        let entry = self.entries[place as usize].take()?;
        self.free.push(place);
        match self.entry(entry.newer) {
            Some(newer) => newer.older = entry.older,
            None => self.newest = entry.older,
        }
        match self.entry(entry.older) {
            Some(older) => older.newer = entry.newer,
            None => self.oldest = entry.newer,
        }
        if self.hand == place {
            self.hand = entry.newer;
        }
        self.weight -= entry.weight;
        Some(entry.value)
    }

    /// Takes out everything.
    pub(super) fn clear(&mut self) -> Vec<(Fingerprint, V)> {
        let emptied = std::mem::replace(self, Self::new(self.bound));
        emptied.entries.into_iter().flatten().map(|entry| (entry.key, entry.value)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn weight(&self) -> u64 {
        self.weight
    }

    pub(super) fn bound(&self) -> u64 {
        self.bound
    }

    fn evict(&mut self) -> Option<(Fingerprint, V)> {
        if self.hand == NOWHERE {
            self.hand = self.oldest;
        }
        loop {
            let oldest = self.oldest;
            let entry = self.entry(self.hand)?;
            if !entry.was_used {
                let key = entry.key;
                return self.remove(key).map(|value| (key, value));
            }
            entry.was_used = false;
            self.hand = if entry.newer == NOWHERE { oldest } else { entry.newer };
        }
    }

    fn entry(&mut self, place: u32) -> Option<&mut Entry<V>> {
        self.entries.get_mut(place as usize)?.as_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::content::fingerprint_of;

    /// Adds an entry and gives the numbers of those that left.
    fn insert(sieve: &mut Sieve<u64>, number: u64, weight: u64) -> Vec<u64> {
        sieve.insert(key(number), number, weight).into_iter().map(|(_, number)| number).collect()
    }

    fn key(number: u64) -> Fingerprint {
        fingerprint_of(&number).unwrap()
    }

    fn sieve(bound: u64, numbers: impl IntoIterator<Item = u64>) -> Sieve<u64> {
        let mut sieve = Sieve::new(bound);
        numbers.into_iter().for_each(|number| assert!(sieve.insert(key(number), number, 1).is_empty()));
        sieve
    }

    #[test]
    fn what_was_used_stays_and_the_oldest_of_the_rest_goes() {
        let mut sieve = sieve(4, 0..4);
        sieve.get(key(0));
        sieve.get(key(2));
        assert_eq!(insert(&mut sieve, 4, 1), [1]);
        assert_eq!(insert(&mut sieve, 5, 1), [3], "the mark of 2 was cleared, and 3 had none");
        assert_eq!(insert(&mut sieve, 6, 2), [4, 5], "the hand walks on from where it was");
        assert_eq!(sieve.weight(), 4);
    }

    #[test]
    fn a_scan_does_not_push_out_what_is_used() {
        let mut sieve = sieve(10, 0..10);
        for number in 10..1000 {
            (0..5).for_each(|used| assert!(sieve.get(key(used)).is_some(), "{used} left for {number}"));
            sieve.insert(key(number), number, 1);
        }
    }

    #[test]
    fn what_is_too_heavy_does_not_enter_and_its_predecessor_leaves() {
        let mut sieve = sieve(3, 0..3);
        assert_eq!(sieve.insert(key(1), 11, 4), [(key(1), 1), (key(1), 11)]);
        assert_eq!((sieve.len(), sieve.weight(), sieve.bound()), (2, 2, 3));
        assert_eq!(sieve.clear().len(), 2);
        assert_eq!((sieve.len(), sieve.weight()), (0, 0));
    }
}
