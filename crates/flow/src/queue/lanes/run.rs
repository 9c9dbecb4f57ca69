//! Items that leave their lanes in one go.

use super::{Batch, Slot, Supply};
use crate::queue::ticket::Load;

/// Gathers plain items in batches, and counts them.
pub(in crate::queue) struct Run<'a, T> {
    into: &'a mut Vec<Batch<T>>,
    supply: Supply<T>,
    /// So many may come.
    most: usize,
    load: Load,
    /// Learns when items arrived, in nanoseconds, and how many did then.
    tell: &'a mut dyn FnMut(u64, u64),
    /// Those that were not told of yet.
    arrived: u64,
    count: u64,
}

impl<'a, T> Run<'a, T> {
    pub(in crate::queue) fn new(
        most: usize,
        (into, supply): (&'a mut Vec<Batch<T>>, Supply<T>),
        tell: &'a mut dyn FnMut(u64, u64),
    ) -> Self {
        Self { into, supply, most, load: Load::default(), tell, arrived: 0, count: 0 }
    }

    /// How many may come still.
    #[inline]
    pub(in crate::queue) fn left(&self) -> usize {
        self.most - self.load.items
    }

    /// The room that has become free.
    pub(in crate::queue) fn load(&self) -> Load {
        self.load
    }

    #[inline(always)]
    pub(super) fn take(&mut self, slot: Slot<T>) {
        if slot.arrived != self.arrived {
            self.tell();
            self.arrived = slot.arrived;
        }
        self.count += 1;
        let (left, details) = (self.left(), slot.details);
        self.load.add(Load { items: 1, cost: details.cost(), bytes: details.bytes() });
        match self.into.last_mut().and_then(Batch::room) {
            Some(block) => block.push(slot),
            None => {
                let mut block = self.supply.block(left);
                block.push(slot);
                self.into.push(Batch::of(block));
            }
        }
    }

    pub(super) fn take_batch(&mut self, batch: Batch<T>) {
        batch.each_arrival(&mut *self.tell);
        self.load.add(Load { items: batch.len(), cost: batch.cost(), bytes: batch.bytes() });
        self.into.push(batch);
    }

    fn tell(&mut self) {
        if self.count > 0 {
            (self.tell)(self.arrived, std::mem::take(&mut self.count));
        }
    }
}

impl<T> Drop for Run<'_, T> {
    fn drop(&mut self) {
        self.tell();
    }
}
