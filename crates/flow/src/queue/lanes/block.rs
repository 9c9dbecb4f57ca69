//! Items that wait side by side.

use std::collections::VecDeque;

use super::{Seen, Slot, spares};
use crate::queue::TicketId;

/// Slots in order of their ids.
pub(super) struct Block<T> {
    slots: VecDeque<Slot<T>>,
}

impl<T> Default for Block<T> {
    fn default() -> Self {
        Self::with_room_for(0)
    }
}

impl<T> Block<T> {
    /// An empty one with memory for so many.
    pub(super) fn with_room_for(count: usize) -> Self {
        Self { slots: VecDeque::with_capacity(count) }
    }

    /// An empty one in memory that this thread has kept.
    pub(super) fn in_spare_room(count: usize) -> Self
    where
        T: 'static,
    {
        Self { slots: spares::ring(count) }
    }

    /// Keeps its memory, if it is used up.
    pub(super) fn spare(self)
    where
        T: 'static,
    {
        spares::keep(self.slots);
    }

    /// Gives names, one after the other from that one, to items that arrived then.
    pub(super) fn name(&mut self, first: TicketId, arrived: u64) {
        for (slot, id) in self.slots.iter_mut().zip(first.0..) {
            (slot.id, slot.arrived) = (TicketId(id), arrived);
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether there is room for one more without more memory.
    pub(super) fn has_room(&self) -> bool {
        self.slots.len() < self.slots.capacity()
    }

    /// Tells when they arrived, and how many did then.
    pub(super) fn each_arrival(&self, mut tell: impl FnMut(u64, u64)) {
        let ends =
            self.slots.front().zip(self.slots.back()).map(|(first, last)| (first.arrived, last.arrived));
        match ends {
            Some((first, last)) if first == last => tell(first, self.len() as u64),
            _ => self.slots.iter().for_each(|slot| tell(slot.arrived, 1)),
        }
    }

    pub(super) fn reserve(&mut self, count: usize) {
        self.slots.reserve(count);
    }

    #[inline]
    pub(super) fn first(&self) -> Option<Seen<'_, T>> {
        self.at(0)
    }

    #[inline]
    pub(super) fn last(&self) -> Option<Seen<'_, T>> {
        self.slots.back().map(Slot::seen)
    }

    #[inline]
    pub(super) fn at(&self, at: usize) -> Option<Seen<'_, T>> {
        self.slots.get(at).map(Slot::seen)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Seen<'_, T>> {
        self.slots.iter().map(Slot::seen)
    }

    pub(super) fn get(&self, id: TicketId) -> Option<Seen<'_, T>> {
        self.at(self.position(id).ok()?)
    }

    pub(super) fn get_mut(&mut self, id: TicketId) -> Option<&mut T> {
        let at = self.position(id).ok()?;
        self.slots.get_mut(at).map(|slot| &mut slot.item)
    }

    #[inline(always)]
    pub(super) fn push(&mut self, slot: Slot<T>) {
        self.slots.push_back(slot);
    }

    /// Takes out the first, unless it has something rare.
    #[inline(always)]
    pub(super) fn pop_if_plain(&mut self) -> Option<Slot<T>> {
        let is_plain = self.slots.front()?.details.elsewhere().is_none();
        if is_plain { self.pop() } else { None }
    }

    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<Slot<T>> {
        self.slots.pop_front()
    }

    /// Takes all of them out.
    #[inline(always)]
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Slot<T>> {
        self.slots.drain(..)
    }

    /// Adds one that comes somewhere in between.
    pub(super) fn insert(&mut self, slot: Slot<T>) {
        let at = self.position(slot.id).unwrap_or_else(|at| at);
        self.slots.insert(at, slot);
    }

    pub(super) fn remove(&mut self, id: TicketId) -> Option<Slot<T>> {
        self.slots.remove(self.position(id).ok()?)
    }

    /// Parts with its slots from that place on.
    pub(super) fn split_off(&mut self, at: usize) -> Self {
        Self { slots: self.slots.split_off(at) }
    }

    /// Takes over all slots of one that comes behind.
    pub(super) fn append(&mut self, mut next: Self) {
        self.slots.append(&mut next.slots);
    }

    fn position(&self, id: TicketId) -> Result<usize, usize> {
        self.slots.binary_search_by_key(&id, |slot| slot.id)
    }
}
