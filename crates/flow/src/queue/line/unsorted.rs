//! Items that came together and are not in lanes yet.
//!
//! Where a policy has a lane for every owner, putting a batch would touch as many of them as it has items, and taking one as
//! well: what lanes consist of would go from core to core with every turn of putters and takers. So a batch is left as it
//! came, which takes one step, and whoever takes next sorts all that came since, at the core where it is served.

use crate::queue::TicketId;
use crate::queue::lanes::{Batch, Seen};

/// So many items are not left unsorted, so that who has to sort does not hold the lock for long.
const MOST: usize = 256;

/// Batches in the order in which they came.
pub(super) struct Unsorted<T> {
    batches: Vec<Batch<T>>,
    len: usize,
}

impl<T> Default for Unsorted<T> {
    fn default() -> Self {
        Self { batches: Vec::new(), len: 0 }
    }
}

impl<T> Unsorted<T> {
    pub(super) fn push(&mut self, batch: Batch<T>) -> &Self {
        self.len += batch.len();
        self.batches.push(batch);
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
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Batch<T>> {
        self.len = 0;
        self.batches.drain(..)
    }

    pub(super) fn first(&self) -> Option<Seen<'_, T>> {
        self.iter().next()
    }

    pub(super) fn last(&self) -> Option<Seen<'_, T>> {
        self.batches.iter().rev().find_map(Batch::last)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Seen<'_, T>> {
        self.batches.iter().flat_map(Batch::iter)
    }

    pub(super) fn get(&self, id: TicketId) -> Option<Seen<'_, T>> {
        self.batches.iter().find_map(|batch| batch.get(id))
    }
}
