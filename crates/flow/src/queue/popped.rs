//! Several items that left a queue for good, in one go.

use std::iter::FusedIterator;
use std::vec;

use super::Taken;
use super::lanes::Block;

/// Items that were taken for good together, in the order in which they left. It gives them out one after the other, and
/// what is not asked for is dropped with it.
///
/// Items that waited side by side stay where they lie until they are asked for, so that passing many costs little more
/// than passing their memory on. [`Popped::iter`] looks at them there; `collect` moves them into a list.
pub struct Popped<T> {
    first: Block<T>,
    /// Blocks behind the first one.
    more: vec::IntoIter<Block<T>>,
    /// Items behind those, which were taken one by one.
    items: vec::IntoIter<Taken<T>>,
}

impl<T> Popped<T> {
    pub(super) fn new(blocks: Vec<Block<T>>, items: Vec<Taken<T>>) -> Self {
        Self { first: Block::default(), more: blocks.into_iter(), items: items.into_iter() }
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The items that are left, where they lie.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let blocks = std::iter::once(&self.first).chain(self.more.as_slice());
        let items = self.items.as_slice().iter().map(|taken| &taken.item);
        blocks.flat_map(Block::iter).map(|slot| &slot.item).chain(items)
    }
}

impl<T> Default for Popped<T> {
    fn default() -> Self {
        Self::new(Vec::new(), Vec::new())
    }
}

impl<T> Iterator for Popped<T> {
    type Item = Taken<T>;

    #[inline]
    fn next(&mut self) -> Option<Taken<T>> {
        loop {
            if let Some(taken) = self.first.pop_plain() {
                return Some(taken);
            }
            match self.more.next() {
                Some(next) => self.first = next,
                None => return self.items.next(),
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let more: usize = self.more.as_slice().iter().map(Block::len).sum();
        let len = self.first.len() + more + self.items.len();
        (len, Some(len))
    }
}

impl<T> ExactSizeIterator for Popped<T> {}

impl<T> FusedIterator for Popped<T> {}

impl<T> std::fmt::Debug for Popped<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Popped").field("len", &self.len()).finish_non_exhaustive()
    }
}
