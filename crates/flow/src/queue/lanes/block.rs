//! Items that wait side by side, and can come and go together.

use std::collections::VecDeque;

use super::{Details, Slot};
use crate::queue::{Taken, Ticket, TicketId};

/// Slots in order of their ids, and what they sum up to.
pub(in crate::queue) struct Block<T> {
    slots: VecDeque<Slot<T>>,
    /// Of the plain ones.
    cost: u64,
    bytes: u64,
    rares: usize,
    origin: Origin,
}

/// Whether the items of a block came together.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Together,
    OneByOne,
}

impl<T> Default for Block<T> {
    fn default() -> Self {
        Self { slots: VecDeque::new(), cost: 0, bytes: 0, rares: 0, origin: Origin::OneByOne }
    }
}

impl<T> Block<T> {
    /// Packs items that have no names yet, up to the first whose ticket has something rare; that one and those behind
    /// it come back.
    pub(in crate::queue) fn gather(items: impl IntoIterator<Item = (T, Ticket)>) -> (Self, Vec<(T, Ticket)>) {
        let mut items = items.into_iter();
        let mut block = Self::with_room_for(items.size_hint().0);
        block.origin = Origin::Together;
        while let Some((item, ticket)) = items.next() {
            let Some(details) = Details::of(&ticket) else {
                return (block, [(item, ticket)].into_iter().chain(items).collect());
            };
            block.push(Slot::unnamed(item, ticket.owner, details));
        }
        (block, Vec::new())
    }

    /// Gives names, one after the other from that one, to items that arrived then.
    pub(in crate::queue) fn name(&mut self, first: TicketId, arrived: u64) {
        for (slot, id) in self.slots.iter_mut().zip(first.0..) {
            (slot.id, slot.arrived) = (TicketId(id), arrived);
        }
    }

    #[inline]
    pub(in crate::queue) fn len(&self) -> usize {
        self.slots.len()
    }

    #[inline]
    pub(in crate::queue) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The sum of the costs, if all are plain.
    pub(in crate::queue) fn cost(&self) -> u64 {
        self.cost
    }

    /// The sum of the bytes, if all are plain.
    pub(in crate::queue) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether it may be passed on as it is: its items came together and have nothing rare. The memory of a block that
    /// was filled one by one is better kept.
    pub(super) fn is_parcel(&self) -> bool {
        self.origin == Origin::Together && self.rares == 0
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

    /// The slots themselves.
    pub(in crate::queue) fn into_slots(self) -> impl Iterator<Item = Slot<T>> {
        self.slots.into_iter()
    }

    /// Plain items and their tickets, as they came.
    pub(in crate::queue) fn into_items(self) -> impl Iterator<Item = (T, Ticket)> {
        self.slots.into_iter().map(|slot| slot.into_plain().into_item())
    }

    /// Takes out the first of a block of plain items.
    #[inline]
    pub(in crate::queue) fn pop_plain(&mut self) -> Option<Taken<T>> {
        self.slots.pop_front().map(Slot::into_plain)
    }

    /// An empty one with memory for so many.
    pub(in crate::queue) fn with_room_for(count: usize) -> Self {
        Self { slots: VecDeque::with_capacity(count), ..Self::default() }
    }

    pub(super) fn reserve(&mut self, count: usize) {
        self.slots.reserve(count);
    }

    pub(super) fn first(&self) -> Option<&Slot<T>> {
        self.slots.front()
    }

    pub(in crate::queue) fn last(&self) -> Option<&Slot<T>> {
        self.slots.back()
    }

    pub(in crate::queue) fn iter(&self) -> impl Iterator<Item = &Slot<T>> {
        self.slots.iter()
    }

    pub(in crate::queue) fn get(&self, id: TicketId) -> Option<&Slot<T>> {
        self.slots.get(self.position(id).ok()?)
    }

    pub(super) fn get_mut(&mut self, id: TicketId) -> Option<&mut Slot<T>> {
        let at = self.position(id).ok()?;
        self.slots.get_mut(at)
    }

    #[inline(always)]
    pub(super) fn push(&mut self, slot: Slot<T>) {
        self.count(slot.details);
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
        let details = self.slots.front()?.details;
        self.uncount(details);
        self.slots.pop_front()
    }

    /// Adds one that comes somewhere in between.
    pub(super) fn insert(&mut self, slot: Slot<T>) {
        self.count(slot.details);
        let at = self.position(slot.id).unwrap_or_else(|at| at);
        self.slots.insert(at, slot);
    }

    pub(super) fn remove(&mut self, id: TicketId) -> Option<Slot<T>> {
        let slot = self.slots.remove(self.position(id).ok()?)?;
        self.uncount(slot.details);
        Some(slot)
    }

    /// Parts with its slots from that place on.
    pub(in crate::queue) fn split_off(&mut self, at: usize) -> Self {
        let mut half = Self { slots: self.slots.split_off(at), origin: self.origin, ..Self::default() };
        for slot in half.slots.iter().map(|slot| slot.details).collect::<Vec<_>>() {
            self.uncount(slot);
            half.count(slot);
        }
        half
    }

    /// Takes over all slots of one that comes behind.
    pub(in crate::queue) fn append(&mut self, mut next: Self) {
        self.slots.append(&mut next.slots);
        self.cost += next.cost;
        self.bytes += next.bytes;
        self.rares += next.rares;
    }

    #[inline(always)]
    fn count(&mut self, details: Details) {
        match details.elsewhere() {
            Some(_) => self.rares += 1,
            None => (self.cost, self.bytes) = (self.cost + details.cost(), self.bytes + details.bytes()),
        }
    }

    #[inline(always)]
    fn uncount(&mut self, details: Details) {
        match details.elsewhere() {
            Some(_) => self.rares -= 1,
            None => (self.cost, self.bytes) = (self.cost - details.cost(), self.bytes - details.bytes()),
        }
    }

    fn position(&self, id: TicketId) -> Result<usize, usize> {
        self.slots.binary_search_by_key(&id, |slot| slot.id)
    }
}
