//! Items in order of their ids: what every policy is made of.

use std::collections::VecDeque;
use std::{iter, mem};

use super::{Block, Run, Slot};
use crate::queue::TicketId;

/// So many items lie in one block. More, and taking one out of the middle moves more of them; fewer, and a long lane
/// consists of more blocks.
const BLOCK: usize = 64;

/// A block of that many or more stays as it came; of fewer, the items join the last one.
const WORTH: usize = 8;

/// Items in order of their ids, which is that of their arrival. Adding the last one and taking the first take constant
/// time; any other one is found in logarithmic time and moves at most a block.
///
/// A short lane is one ring, so nothing is allocated while items pass; a long one is a row of them. The ring has a line
/// of the cache to itself, because that is what changes with every item.
#[repr(C, align(64))]
pub(in crate::queue) struct Lane<T> {
    first: Block<T>,
    /// The blocks behind the first one, none of them empty, and none at all while the first one is.
    more: VecDeque<Block<T>>,
    /// The memory of a block that was used up, for the next one.
    spare: Block<T>,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self { first: Block::default(), more: VecDeque::new(), spare: Block::default() }
    }
}

impl<T> Lane<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    #[inline]
    pub(super) fn first(&self) -> Option<&Slot<T>> {
        self.first.first()
    }

    pub(super) fn last(&self) -> Option<&Slot<T>> {
        self.more.back().unwrap_or(&self.first).last()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot<T>> {
        iter::once(&self.first).chain(&self.more).flat_map(Block::iter)
    }

    /// Adds an item; nearly always it is the last one.
    #[inline(always)]
    pub(super) fn insert(&mut self, slot: Slot<T>) {
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
    pub(super) fn append(&mut self, block: Block<T>) {
        let last = self.more.back_mut().unwrap_or(&mut self.first);
        if last.is_empty() {
            self.spare = mem::replace(last, block);
        } else if block.len() < WORTH && last.len() < BLOCK {
            last.append(block);
        } else if !block.is_empty() {
            self.more.push_back(block);
        }
    }

    /// Takes out the first items, up to `most` and to the first that has something rare: a block that came as one goes
    /// as one.
    #[inline(always)]
    pub(super) fn pop_run(&mut self, most: usize, run: &mut Run<'_, T>) {
        let mut left = most;
        while left > 0 {
            if self.first.is_parcel() && (WORTH..=left).contains(&self.first.len()) {
                let next = self.more.pop_front().unwrap_or_else(|| mem::take(&mut self.spare));
                let block = mem::replace(&mut self.first, next);
                left -= block.len();
                run.take_block(block);
            } else if let Some(slot) = self.pop_if_plain() {
                left -= 1;
                run.take(slot);
            } else {
                return;
            }
        }
    }

    /// Takes out the first, unless it has something rare.
    #[inline(always)]
    pub(super) fn pop_if_plain(&mut self) -> Option<Slot<T>> {
        let slot = self.first.pop_if_plain()?;
        if self.first.is_empty() {
            self.go_on();
        }
        Some(slot)
    }

    #[inline(always)]
    pub(super) fn pop_first(&mut self) -> Option<Slot<T>> {
        if self.first.len() == 1 && !self.more.is_empty() {
            let last = self.first.pop();
            self.go_on();
            return last;
        }
        self.first.pop()
    }

    /// The block behind the used up first one becomes the first.
    fn go_on(&mut self) {
        if let Some(next) = self.more.pop_front() {
            self.spare = mem::replace(&mut self.first, next);
        }
    }

    pub(super) fn get(&self, id: TicketId) -> Option<&Slot<T>> {
        let number = self.block_of(id);
        number.checked_sub(1).map_or(&self.first, |more| &self.more[more]).get(id)
    }

    pub(super) fn get_mut(&mut self, id: TicketId) -> Option<&mut Slot<T>> {
        let number = self.block_of(id);
        self.block_mut(number).get_mut(id)
    }

    pub(super) fn remove(&mut self, id: TicketId) -> Option<Slot<T>> {
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

    use super::*;
    use crate::queue::packing::Rares;
    use crate::queue::{Owner, Ticket};

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever comes in whatever order and goes from wherever.
        #[test]
        fn it_is_an_ordered_map(acts in prop::collection::vec((0..8u8, 0..800u64), 1..2000)) {
            let (mut lane, mut map) = (Lane::default(), BTreeMap::new());
            let mut rares = Rares::default();
            let mut last = 0;
            for (act, number) in acts {
                let id = TicketId(if act < 4 { last + 1 } else { number });
                last = last.max(id.0);
                let expected = map.get(&id).copied();
                prop_assert_eq!(lane.get(id).map(|slot| slot.item), expected);
                prop_assert_eq!(lane.get_mut(id).map(|slot| slot.item), expected);
                match act {
                    5 => prop_assert_eq!(
                        lane.pop_first().map(|slot| slot.item),
                        map.pop_first().map(|(_, item)| item)
                    ),
                    6 | 7 => prop_assert_eq!(lane.remove(id).map(|slot| slot.item), map.remove(&id)),
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
