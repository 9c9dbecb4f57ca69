//! Items that wait side by side, and can come and go together.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Details, Slot};
use crate::queue::{Taken, Ticket, TicketId};

/// Slots in order of their ids, and what they sum up to.
pub(in crate::queue) struct Block<T> {
    slots: VecDeque<Slot<T>>,
    /// Of the plain ones.
    cost: u64,
    bytes: u64,
    rares: usize,
}

impl<T> Default for Block<T> {
    fn default() -> Self {
        Self { slots: VecDeque::new(), cost: 0, bytes: 0, rares: 0 }
    }
}

impl<T> Block<T> {
    /// Packs items that have no names yet, up to the first whose ticket has something rare; that one and those behind
    /// it come back.
    pub(in crate::queue) fn gather(items: impl IntoIterator<Item = (T, Ticket)>) -> (Self, Vec<(T, Ticket)>) {
        let mut items = items.into_iter();
        let mut block = Self::default();
        block.reserve(items.size_hint().0);
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

    /// Whether none has anything rare.
    pub(super) fn is_plain(&self) -> bool {
        self.rares == 0
    }

    /// The times at which they arrived, each with how many did then.
    pub(in crate::queue) fn each_arrival(&self, mut tell: impl FnMut(Duration, u64)) {
        let ends =
            self.slots.front().zip(self.slots.back()).map(|(first, last)| (first.arrived, last.arrived));
        match ends {
            Some((first, last)) if first == last => tell(Duration::from_nanos(first), self.len() as u64),
            _ => self.slots.iter().for_each(|slot| tell(Duration::from_nanos(slot.arrived), 1)),
        }
    }

    /// The slots themselves.
    pub(in crate::queue) fn into_slots(self) -> impl Iterator<Item = Slot<T>> {
        self.slots.into_iter()
    }

    /// Plain items, as they came.
    pub(in crate::queue) fn into_taken(self) -> impl Iterator<Item = Taken<T>> {
        self.slots.into_iter().map(Slot::into_plain)
    }

    /// The same, without names.
    pub(in crate::queue) fn into_items(self) -> impl Iterator<Item = (T, Ticket)> {
        self.into_taken().map(Taken::into_item)
    }

    pub(super) fn reserve(&mut self, count: usize) {
        self.slots.reserve(count);
    }

    pub(super) fn first(&self) -> Option<&Slot<T>> {
        self.slots.front()
    }

    pub(super) fn last(&self) -> Option<&Slot<T>> {
        self.slots.back()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot<T>> {
        self.slots.iter()
    }

    pub(super) fn get(&self, id: TicketId) -> Option<&Slot<T>> {
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
    pub(super) fn split_off(&mut self, at: usize) -> Self {
        let mut half = Self { slots: self.slots.split_off(at), ..Self::default() };
        for slot in half.slots.iter().map(|slot| slot.details).collect::<Vec<_>>() {
            self.uncount(slot);
            half.count(slot);
        }
        half
    }

    /// Takes over all slots of one that comes behind.
    pub(super) fn append(&mut self, mut next: Self) {
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
