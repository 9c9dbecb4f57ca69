//! The memory of batches that were used up, for those that come next.
//!
//! Who fills a batch and who uses it up are different threads as a rule, and memory that one thread asked the allocator for
//! and another gives back is handed about under locks of the allocator, for which both wait longer than for the queue's.
//! So each thread keeps what it has used up, since most that take also put.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::VecDeque;

use super::{Batch, Block};

/// Where the memory of batches comes from, and where it goes.
pub(in crate::queue) struct Supply<T> {
    block: fn(usize) -> Block<T>,
    take_back: fn(Batch<T>),
}

impl<T> Clone for Supply<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Supply<T> {}

impl<T> Default for Supply<T> {
    /// From the allocator.
    fn default() -> Self {
        Self { block: Block::with_room_for, take_back: drop }
    }
}

impl<T> Supply<T> {
    /// From what this thread has kept.
    pub(in crate::queue) fn spares() -> Self
    where
        T: 'static,
    {
        Self { block: Block::in_spare_room, take_back: Batch::spare }
    }

    /// An empty block with memory for so many.
    pub(super) fn block(self, count: usize) -> Block<T> {
        (self.block)(count)
    }

    /// Takes what is left of a batch that is used up.
    pub(in crate::queue) fn take_back(self, batch: Batch<T>) {
        (self.take_back)(batch);
    }
}

/// Bytes that a thread keeps for items of one type.
const BYTES: usize = 128 << 10;

thread_local! {
    /// A [`Shelf`] for every type of which there has been one.
    static SHELVES: RefCell<Vec<(TypeId, Box<dyn Any>)>> = const { RefCell::new(Vec::new()) };
}

/// Empty rings that keep their memory.
struct Shelf<X> {
    rings: Vec<VecDeque<X>>,
    bytes: usize,
}

/// An empty ring with memory for so many.
pub(super) fn ring<X: 'static>(count: usize) -> VecDeque<X> {
    let mut ring = on_shelf(Shelf::pop).flatten().unwrap_or_default();
    ring.reserve(count);
    ring
}

/// Keeps the memory of a ring that was used up.
pub(super) fn keep<X: 'static>(ring: VecDeque<X>) {
    if ring.is_empty() && ring.capacity() > 0 {
        // A thread that ends keeps nothing.
        on_shelf(|shelf: &mut Shelf<X>| shelf.push(ring));
    }
}

fn on_shelf<X: 'static, R>(act: impl FnOnce(&mut Shelf<X>) -> R) -> Option<R> {
    let on_shelves = |shelves: &RefCell<Vec<(TypeId, Box<dyn Any>)>>| {
        let mut shelves = shelves.try_borrow_mut().ok()?;
        let kind = TypeId::of::<X>();
        let at = shelves.iter().position(|(other, _)| *other == kind).unwrap_or_else(|| {
            shelves.push((kind, Box::new(Shelf::<X> { rings: Vec::new(), bytes: 0 })));
            shelves.len() - 1
        });
        shelves[at].1.downcast_mut().map(act)
    };
    SHELVES.try_with(on_shelves).ok().flatten()
}

impl<X> Shelf<X> {
    fn pop(&mut self) -> Option<VecDeque<X>> {
        let ring = self.rings.pop()?;
        self.bytes -= bytes(&ring);
        Some(ring)
    }

    fn push(&mut self, ring: VecDeque<X>) {
        if self.bytes + bytes(&ring) <= BYTES {
            self.bytes += bytes(&ring);
            self.rings.push(ring);
        }
    }
}

fn bytes<X>(ring: &VecDeque<X>) -> usize {
    ring.capacity() * size_of::<X>()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Something of this module alone, so that no other test of this thread has a shelf for it.
    type Kilobyte = [u128; 64];

    fn kept() -> (usize, usize) {
        on_shelf(|shelf: &mut Shelf<Kilobyte>| (shelf.rings.len(), shelf.bytes)).unwrap()
    }

    #[test]
    fn a_thread_keeps_what_it_used_up_within_bounds() {
        let mut full = ring::<Kilobyte>(4);
        full.push_back([0; 64]);
        keep(full);
        assert_eq!(kept(), (0, 0), "what holds items is not used up");
        for count in 1..200 {
            keep(VecDeque::<Kilobyte>::with_capacity(2));
            assert_eq!(kept(), (count.min(64), count.min(64) * 2048));
        }
        let ring = ring::<Kilobyte>(2);
        assert_eq!((ring.capacity(), kept()), (2, (63, 63 * 2048)));
        assert!(super::ring::<Kilobyte>(9).capacity() >= 9);
        assert_eq!(kept().0, 62);
        std::thread::spawn(|| assert_eq!(kept(), (0, 0))).join().unwrap();
    }
}
