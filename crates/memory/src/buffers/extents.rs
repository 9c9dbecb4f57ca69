//! Which stretches of an arena are free: best fit, grown together with their neighbours, within a limit.

use std::collections::{BTreeMap, BTreeSet};

/// A stretch of an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) offset: usize,
    pub(crate) length: usize,
}

/// The free stretches of an arena.
#[derive(Clone, Debug)]
pub(crate) struct Extents {
    by_offset: BTreeMap<usize, usize>,
    by_length: BTreeSet<(usize, usize)>,
    used: usize,
    limit: usize,
}

impl Extents {
    /// An arena of so many bytes, all of them free.
    pub(crate) fn new(bytes: usize) -> Self {
        let mut extents =
            Self { by_offset: BTreeMap::new(), by_length: BTreeSet::new(), used: 0, limit: bytes };
        if bytes > 0 {
            extents.insert(Extent { offset: 0, length: bytes });
        }
        extents
    }

    /// The most bytes in use.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Changes the limit; what is in use stays.
    pub(crate) fn set_limit(&mut self, bytes: usize) {
        self.limit = bytes;
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// The free stretches, in order of their places.
    pub(crate) fn free(&self) -> impl Iterator<Item = Extent> {
        self.by_offset.iter().map(|(&offset, &length)| Extent { offset, length })
    }

    /// Takes the beginning of the smallest stretch that is long enough.
    pub(crate) fn take(&mut self, length: usize) -> Option<Extent> {
        if self.used.checked_add(length)? > self.limit {
            return None;
        }
        let &(found, offset) = self.by_length.range((length, 0)..).next()?;
        Some(self.cut(Extent { offset, length: found }, length))
    }

    /// Takes the beginning of the first stretch that is long enough and begins before `offset`, so that what is in use
    /// there can move to it.
    pub(crate) fn take_before(&mut self, length: usize, offset: usize) -> Option<Extent> {
        if self.used.checked_add(length)? > self.limit {
            return None;
        }
        let mut before = self.by_offset.range(..offset);
        let (&offset, &found) = before.find(|(_, found)| **found >= length)?;
        Some(self.cut(Extent { offset, length: found }, length))
    }

    fn cut(&mut self, found: Extent, length: usize) -> Extent {
        self.remove(found);
        if found.length > length {
            self.insert(Extent { offset: found.offset + length, length: found.length - length });
        }
        self.used += length;
        Extent { offset: found.offset, length }
    }

    /// Gives a stretch back.
    ///
    /// # Panics
    /// If any of it is free already: it would be handed to two owners.
    pub(crate) fn give(&mut self, extent: Extent) {
        let Extent { mut offset, mut length } = extent;
        if let Some((&before, &size)) = self.by_offset.range(..=offset).next_back() {
            assert!(before + size <= offset, "the stretch at {offset} is given back twice");
            if before + size == offset {
                self.remove(Extent { offset: before, length: size });
                (offset, length) = (before, size + length);
            }
        }
        if let Some((&after, &size)) = self.by_offset.range(extent.offset..).next() {
            assert!(extent.offset + extent.length <= after, "the stretch at {after} is given back twice");
            if extent.offset + extent.length == after {
                self.remove(Extent { offset: after, length: size });
                length += size;
            }
        }
        self.insert(Extent { offset, length });
        self.used -= extent.length;
    }

    fn insert(&mut self, Extent { offset, length }: Extent) {
        self.by_offset.insert(offset, length);
        self.by_length.insert((length, offset));
    }

    fn remove(&mut self, Extent { offset, length }: Extent) {
        self.by_offset.remove(&offset);
        self.by_length.remove(&(length, offset));
    }
}
