//! Items that leave their lanes in one go.

use super::{Block, Slot};
use crate::queue::ticket::Load;

/// Gathers plain items in blocks, and counts them.
pub(in crate::queue) struct Run<'a, T> {
    into: &'a mut Vec<Block<T>>,
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
        into: &'a mut Vec<Block<T>>,
        tell: &'a mut dyn FnMut(u64, u64),
    ) -> Self {
        Self { into, most, load: Load::default(), tell, arrived: 0, count: 0 }
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
        match self.into.last_mut() {
            Some(block) if block.has_room() => block.push(slot),
            _ => {
                let mut block = Block::with_room_for(left);
                block.push(slot);
                self.into.push(block);
            }
        }
    }

    pub(super) fn take_block(&mut self, block: Block<T>) {
        block.each_arrival(&mut *self.tell);
        self.load.add(Load { items: block.len(), cost: block.cost(), bytes: block.bytes() });
        self.into.push(block);
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
