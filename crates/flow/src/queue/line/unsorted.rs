//! Items that came together and are not in lanes yet.
//!
//! Where a policy has a lane for every owner, putting a batch would touch as many of them as it has items, and taking one as
//! well: what lanes consist of would go from core to core with every turn of putters and takers. So a batch is left as it
//! came, which takes one step, and whoever takes next sorts all that came since, at the core where it is served.

use crate::queue::TicketId;
use crate::queue::lanes::{Block, Slot};

/// So many items are not left unsorted, so that who has to sort does not hold the lock for long.
const MOST: usize = 256;

/// Blocks in the order in which they came.
pub(super) struct Unsorted<T> {
    blocks: Vec<Block<T>>,
    len: usize,
}

impl<T> Default for Unsorted<T> {
    fn default() -> Self {
        Self { blocks: Vec::new(), len: 0 }
    }
}

impl<T> Unsorted<T> {
    pub(super) fn push(&mut self, block: Block<T>) -> &Self {
        self.len += block.len();
        self.blocks.push(block);
        self
    }

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.len >= MOST
    }

    /// Gives all of them out, in order.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Slot<T>> {
        self.len = 0;
        self.blocks.drain(..).flat_map(Block::into_slots)
    }

    pub(super) fn first(&self) -> Option<&Slot<T>> {
        self.iter().next()
    }

    pub(super) fn last(&self) -> Option<&Slot<T>> {
        self.blocks.iter().rev().find_map(Block::last)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot<T>> {
        self.blocks.iter().flat_map(Block::iter)
    }

    pub(super) fn get(&self, id: TicketId) -> Option<&Slot<T>> {
        self.blocks.iter().find_map(|block| block.get(id))
    }
}
