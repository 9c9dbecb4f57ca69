//! Several items that left a queue for good, in one go.

use std::iter::FusedIterator;
use std::{mem, vec};

use super::Taken;
use super::lanes::{Batch, Supply};

/// Items that were taken for good together, in the order in which they left. It gives them out one after the other, and
/// what is not asked for is dropped with it.
///
/// Items that waited side by side stay where they lie until they are asked for, so that passing many costs little more
/// than passing their memory on. [`Popped::iter`] looks at them there; `collect` moves them into a list.
pub struct Popped<T> {
    first: Batch<T>,
    /// Batches behind the first one.
    more: vec::IntoIter<Batch<T>>,
    /// Items behind those, which were taken one by one.
    items: vec::IntoIter<Taken<T>>,
    /// Where batches go that are used up.
    supply: Supply<T>,
}

impl<T> Popped<T> {
    pub(super) fn new(batches: Vec<Batch<T>>, items: Vec<Taken<T>>) -> Self
    where
        T: 'static,
    {
        let (more, items) = (batches.into_iter(), items.into_iter());
        Self { first: Batch::default(), more, items, supply: Supply::spares() }
    }

    /// The next batch becomes the first.
    fn go_on(&mut self, next: Batch<T>) {
        self.supply.take_back(mem::replace(&mut self.first, next));
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The items that are left, where they lie.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let batches = std::iter::once(&self.first).chain(self.more.as_slice());
        let items = self.items.as_slice().iter().map(|taken| &taken.item);
        batches.flat_map(Batch::iter).map(|slot| slot.item).chain(items)
    }
}

impl<T> Default for Popped<T> {
    fn default() -> Self {
        let (more, items) = (Vec::new().into_iter(), Vec::new().into_iter());
        Self { first: Batch::default(), more, items, supply: Supply::default() }
    }
}

impl<T> Iterator for Popped<T> {
    type Item = Taken<T>;

    #[inline]
    fn next(&mut self) -> Option<Taken<T>> {
        loop {
            if let Some(slot) = self.first.pop() {
                return Some(slot.into_plain());
            }
            match self.more.next() {
                Some(next) => self.go_on(next),
                None => return self.items.next(),
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let more: usize = self.more.as_slice().iter().map(Batch::len).sum();
        let len = self.first.len() + more + self.items.len();
        (len, Some(len))
    }
}

impl<T> Drop for Popped<T> {
    fn drop(&mut self) {
        self.go_on(Batch::default());
    }
}

impl<T> ExactSizeIterator for Popped<T> {}

impl<T> FusedIterator for Popped<T> {}

impl<T> std::fmt::Debug for Popped<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Popped").field("len", &self.len()).finish_non_exhaustive()
    }
}
