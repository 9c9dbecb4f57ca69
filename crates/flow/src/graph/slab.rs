//! A table that names its entries by ids which are never used for another entry.

use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::num::NonZeroU32;

/// The name of an entry. Once the entry is removed, its id finds nothing.
pub(super) struct Id<T> {
    index: u32,
    generation: NonZeroU32,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Id<T> {}

impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index && self.generation == other.generation
    }
}

impl<T> Eq for Id<T> {}

impl<T> Hash for Id<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u32(self.index);
        state.write_u32(self.generation.get());
    }
}

/// A table of entries.
pub(super) struct Slab<T> {
    entries: Vec<(NonZeroU32, Option<T>)>,
    free: Vec<u32>,
    present: usize,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new(), present: 0 }
    }

    pub(super) fn insert(&mut self, value: T) -> Id<T> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push((NonZeroU32::MIN, None));
            (self.entries.len() - 1) as u32
        });
        let (generation, entry) = &mut self.entries[index as usize];
        *entry = Some(value);
        self.present += 1;
        Id { index, generation: *generation, of: PhantomData }
    }

    pub(super) fn get(&self, id: Id<T>) -> Option<&T> {
        let (generation, entry) = &self.entries[id.index as usize];
        entry.as_ref().filter(|_| *generation == id.generation)
    }

    pub(super) fn get_mut(&mut self, id: Id<T>) -> Option<&mut T> {
        let (generation, entry) = &mut self.entries[id.index as usize];
        entry.as_mut().filter(|_| *generation == id.generation)
    }

    pub(super) fn remove(&mut self, id: Id<T>) -> Option<T> {
        let (generation, entry) = &mut self.entries[id.index as usize];
        if *generation != id.generation {
            return None;
        }
        let value = entry.take()?;
        self.present -= 1;
        // A place that has been used four thousand million times is given up rather than let an id name two entries.
        if let Some(next) = generation.checked_add(1) {
            *generation = next;
            self.free.push(id.index);
        }
        Some(value)
    }

    pub(super) fn contains(&self, id: Id<T>) -> bool {
        self.get(id).is_some()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().filter_map(|(_, entry)| entry.as_ref())
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.present
    }
}
