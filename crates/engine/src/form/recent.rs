//! The things used last, a bounded number of them.

/// A list of at most so many entries; the one that was not asked for the longest gives way. Few entries, so looking
/// through all of them costs nothing beside what an entry is worth.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    /// The one asked for last comes last.
    entries: Vec<(K, V)>,
    capacity: usize,
}

impl<K: PartialEq, V: Clone> Recent<K, V> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { entries: Vec::with_capacity(capacity), capacity }
    }

    pub(super) fn get(&mut self, key: &K) -> Option<V> {
        let at = self.entries.iter().rposition(|(other, _)| other == key)?;
        let entry = self.entries.remove(at);
        let value = entry.1.clone();
        self.entries.push(entry);
        Some(value)
    }

    pub(super) fn put(&mut self, key: K, value: V) {
        self.entries.retain(|(other, _)| *other != key);
        if self.entries.len() == self.capacity {
            self.entries.remove(0);
        }
        self.entries.push((key, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_unused_for_longest_gives_way() {
        let mut recent = Recent::new(2);
        recent.put("a", 1);
        recent.put("b", 2);
        assert_eq!(recent.get(&"a"), Some(1));
        recent.put("c", 3);
        assert_eq!((recent.get(&"a"), recent.get(&"b"), recent.get(&"c")), (Some(1), None, Some(3)));
        recent.put("c", 4);
        assert_eq!((recent.get(&"a"), recent.get(&"c")), (Some(1), Some(4)));
    }
}
