//! Items in order of their ids: what every policy is made of.

use std::collections::VecDeque;
use std::{iter, mem};

use super::{Batch, Block, Run, Seen, Slot};
use crate::queue::TicketId;

/// So many items lie in one block. More, and taking one out of the middle moves more of them; fewer, and a long lane
/// consists of more blocks.
const BLOCK: usize = 64;

/// A batch of that many or more stays as it came; of fewer, the items join the last block.
const WORTH: usize = 8;

/// Items in order of their ids, which is that of their arrival. Adding the last one and taking the first take constant
/// time; any other one is found in logarithmic time and moves at most a block.
///
/// A short lane is one ring, so nothing is allocated while items pass; a long one is a row of them. Batches stay as they
/// came until one of their items is wanted alone, or one comes behind them.
///
/// What changes with every item is in as few lines of the cache as can be.
#[repr(C, align(64))]
pub(in crate::queue) struct Lane<T> {
    first: Block<T>,
    /// The blocks behind the first one, none of them empty, and none at all while the first one is.
    more: VecDeque<Block<T>>,
    /// What is behind the blocks, none of it empty.
    batches: VecDeque<Batch<T>>,
    /// The memory of a block that was used up, for the next one.
    spare: Block<T>,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        let (first, spare) = (Block::default(), Block::default());
        Self { first, more: VecDeque::new(), batches: VecDeque::new(), spare }
    }
}

impl<T> Lane<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty() && self.batches.is_empty()
    }

    #[inline]
    pub(super) fn first(&self) -> Option<Seen<'_, T>> {
        self.first.first().or_else(|| self.batches.front()?.first())
    }

    pub(super) fn last(&self) -> Option<Seen<'_, T>> {
        let batch = self.batches.back().and_then(Batch::last);
        batch.or_else(|| self.more.back().unwrap_or(&self.first).last())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Seen<'_, T>> {
        let blocks = iter::once(&self.first).chain(&self.more);
        blocks.flat_map(Block::iter).chain(self.batches.iter().flat_map(Batch::iter))
    }

    /// Adds an item; nearly always it is the last one.
    #[inline(always)]
    pub(super) fn insert(&mut self, slot: Slot<T>) {
        if !self.batches.is_empty() {
            self.unpack();
        }
        let last = self.more.back_mut().unwrap_or(&mut self.first);
        if last.last().is_some_and(|last| last.id > slot.id) {
            self.insert_within(slot);
        } else if last.len() < BLOCK {
            last.push(slot);
        } else {
            let mut block = mem::take(&mut self.spare);
            block.reserve(BLOCK);
            block.push(slot);
            self.more.push_back(block);
        }
    }

    #[cold]
    fn insert_within(&mut self, slot: Slot<T>) {
        let number = self.block_of(slot.id);
        let block = self.block_mut(number);
        block.insert(slot);
        if block.len() > BLOCK {
            let half = block.split_off(BLOCK / 2);
            self.more.insert(number, half);
        }
    }

    /// Adds items that come last.
    pub(super) fn append(&mut self, mut batch: Batch<T>) {
        if batch.len() < WORTH {
            batch.give_each(|slot| self.insert(slot));
        } else {
            self.batches.push_back(batch);
        }
    }

    /// Makes blocks of the batches.
    #[cold]
    fn unpack(&mut self) {
        for batch in mem::take(&mut self.batches) {
            if self.first.is_empty() {
                self.first = batch.into_block();
            } else {
                self.more.push_back(batch.into_block());
            }
        }
    }

    /// Takes out the first items, up to `most` and to the first that has something rare: a batch that fits goes as it
    /// came.
    #[inline(always)]
    pub(super) fn pop_run(&mut self, most: usize, run: &mut Run<'_, T>) {
        let mut left = most;
        while left > 0 {
            if self.first.is_empty() {
                let Some(batch) = self.batches.pop_front() else { return };
                if batch.len() <= left {
                    left -= batch.len();
                    run.take_batch(batch);
                    continue;
                }
                self.open(batch);
            }
            let Some(slot) = self.pop_if_plain() else { return };
            left -= 1;
            run.take(slot);
        }
    }

    /// Takes out the first, unless it has something rare.
    #[inline(always)]
    pub(super) fn pop_if_plain(&mut self) -> Option<Slot<T>> {
        self.open_first();
        let slot = self.first.pop_if_plain()?;
        if self.first.is_empty() {
            self.go_on();
        }
        Some(slot)
    }

    #[inline(always)]
    pub(super) fn pop_first(&mut self) -> Option<Slot<T>> {
        self.open_first();
        let slot = self.first.pop()?;
        if self.first.is_empty() {
            self.go_on();
        }
        Some(slot)
    }

    /// The block behind the used up first one becomes the first.
    #[inline(always)]
    fn go_on(&mut self) {
        if let Some(next) = self.more.pop_front() {
            self.spare = mem::replace(&mut self.first, next);
        }
    }

    /// Makes a block of the first batch, where there is no other.
    #[inline(always)]
    fn open_first(&mut self) {
        if self.first.is_empty()
            && let Some(batch) = self.batches.pop_front()
        {
            self.open(batch);
        }
    }

    #[cold]
    fn open(&mut self, batch: Batch<T>) {
        self.spare = mem::replace(&mut self.first, batch.into_block());
    }

    pub(super) fn get(&self, id: TicketId) -> Option<Seen<'_, T>> {
        let behind = self.batches.partition_point(|batch| batch.first().is_some_and(|first| first.id <= id));
        if let Some(batch) = behind.checked_sub(1) {
            return self.batches[batch].get(id);
        }
        let number = self.block_of(id);
        number.checked_sub(1).map_or(&self.first, |more| &self.more[more]).get(id)
    }

    pub(super) fn get_mut(&mut self, id: TicketId) -> Option<&mut T> {
        self.unpack();
        let number = self.block_of(id);
        self.block_mut(number).get_mut(id)
    }

    pub(super) fn remove(&mut self, id: TicketId) -> Option<Slot<T>> {
        self.unpack();
        let number = self.block_of(id);
        let block = self.block_mut(number);
        let slot = block.remove(id)?;
        let (left, is_first) = (block.len(), number == 0);
        match left {
            0 if is_first => self.go_on(),
            0 => drop(self.more.remove(number - 1)),
            _ if left < BLOCK / 4 => self.join_with_next(number),
            _ => {}
        }
        Some(slot)
    }

    /// Puts two blocks into one where few are left in both, so that stragglers do not keep much memory.
    fn join_with_next(&mut self, number: usize) {
        let left = self.block_mut(number).len();
        if self.more.get(number).is_some_and(|next| left + next.len() <= BLOCK / 2)
            && let Some(next) = self.more.remove(number)
        {
            self.block_mut(number).append(next);
        }
    }

    /// The number of the block in which that id is, or would be; the first one has the number 0.
    fn block_of(&self, id: TicketId) -> usize {
        self.more.partition_point(|block| block.first().is_some_and(|first| first.id <= id))
    }

    fn block_mut(&mut self, number: usize) -> &mut Block<T> {
        match number.checked_sub(1) {
            None => &mut self.first,
            Some(more) => &mut self.more[more],
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    use super::super::Supply;
    use super::*;
    use crate::queue::packing::Rares;
    use crate::queue::{Owner, Ticket};

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever comes in whatever order and goes from wherever.
        #[test]
        fn it_is_an_ordered_map(acts in prop::collection::vec((0..9u8, 0..800u64), 1..2000)) {
            let (mut lane, mut map) = (Lane::default(), BTreeMap::new());
            let mut rares = Rares::default();
            let mut last = 0;
            for (act, number) in acts {
                let id = TicketId(if act < 4 { last + 1 } else { number });
                last = last.max(if act == 0 { 0 } else { id.0 });
                let expected = map.get(&id).copied();
                prop_assert_eq!(lane.get(id).map(|slot| *slot.item), expected);
                if number % 16 == 0 {
                    prop_assert_eq!(lane.get_mut(id).copied(), expected);
                }
                match act {
                    8 => prop_assert_eq!(
                        lane.pop_first().map(|slot| slot.item),
                        map.pop_first().map(|(_, item)| item)
                    ),
                    5..8 => prop_assert_eq!(lane.remove(id).map(|slot| slot.item), map.remove(&id)),
                    0 => {
                        let owned = if number % 2 == 0 { Ticket::default() } else { Ticket::of("someone") };
                        let items = last + 1..last + 1 + number % 20;
                        let (mut batch, _) = Batch::gather(items.clone().map(|item| (item, owned.clone())));
                        batch.name(TicketId(items.start), 0);
                        lane.append(batch);
                        map.extend(items.clone().map(|item| (TicketId(item), item)));
                        last = items.end - 1;
                    }
                    4 => {
                        let (most, mut batches) = (number as usize % 40, Vec::new());
                        lane.pop_run(most, &mut Run::new(most, (&mut batches, Supply::default()), &mut |_, _| ()));
                        let popped: Vec<_> = batches.into_iter().flat_map(Batch::into_items).map(|(item, _)| item).collect();
                        let first = iter::from_fn(|| map.pop_first().map(|(_, item)| item));
                        prop_assert_eq!(popped, first.take(most).collect::<Vec<_>>());
                    }
                    _ if expected.is_none() => {
                        let (owner, details) = (Owner::default(), rares.note(&mut Ticket::default()));
                        lane.insert(Slot { id, arrived: 0, owner, details, item: number });
                        map.insert(id, number);
                    }
                    _ => {}
                }
                prop_assert_eq!(lane.first().map(|slot| slot.id), map.keys().next().copied());
                prop_assert_eq!(lane.is_empty(), map.is_empty());
                prop_assert!(lane.more.len() * BLOCK <= 8 * map.len());
            }
            prop_assert!(lane.iter().map(|slot| slot.id).eq(map.keys().copied()));
        }
    }
}
