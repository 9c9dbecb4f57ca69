//! A bounded line of items whose order is a policy's: the queue without waiting, time or threads.
//!
//! The line keeps the items and knows their tickets; the policy orders the tickets and never sees an item. Nothing is
//! lost: an item that was accepted leaves by exactly one of [`Line::take`], [`Line::remove`], [`Line::expire`] and
//! [`Line::drain`], and an item that is not accepted is given back.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::policy::{Discipline, Policy};
use super::{Capacity, Reason, Refused, Taken, Ticket, TicketId};

/// One item that waits.
struct Waiting<T> {
    item: T,
    ticket: Ticket,
    arrived: Duration,
}

/// A bounded queue of items with tickets.
///
/// Every `now` is the time since a moment that the owner chose; a `now` before an earlier one counts as that one.
pub struct Line<T> {
    capacity: Capacity,
    policy: Box<dyn Policy>,
    waiting: BTreeMap<TicketId, Waiting<T>>,
    /// Deadlines of the tickets that the policy has.
    deadlines: BTreeSet<(Duration, TicketId)>,
    /// Tickets whose deadline has passed: gone from the policy, not yet handed out by `expire`.
    overdue: BTreeSet<TicketId>,
    cost: u64,
    next_id: u64,
    now: Duration,
    is_open: bool,
}

impl<T> Line<T> {
    /// An empty, open queue.
    pub fn new(capacity: Capacity, discipline: Discipline) -> Self {
        Self {
            capacity,
            policy: discipline.build(),
            waiting: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            overdue: BTreeSet::new(),
            cost: 0,
            next_id: 0,
            now: Duration::ZERO,
            is_open: true,
        }
    }

    /// Adds an item behind those that are already there, as far as the policy goes by arrival.
    ///
    /// The bound on cost does not apply to an empty queue, so that an item larger than the bound waits alone instead
    /// of never.
    ///
    /// # Errors
    /// Gives the item back when the queue is full or closed.
    pub fn try_put(&mut self, item: T, ticket: Ticket, now: Duration) -> Result<TicketId, Refused<T>> {
        self.advance(now);
        if let Some(reason) = self.objection(ticket.cost) {
            return Err(Refused { item, reason });
        }
        let id = TicketId(self.next_id);
        self.next_id += 1;
        self.admit(Taken { item, id, ticket, arrived: self.now });
        Ok(id)
    }

    /// Whether an item of that cost would be accepted now.
    ///
    /// # Errors
    /// Says why not.
    pub fn has_room(&self, cost: u64) -> Result<(), Reason> {
        self.objection(cost).map_or(Ok(()), Err)
    }

    /// The ticket that `take` would take now, for an owner that must see whether it fits before taking it.
    pub fn next_ticket(&mut self, now: Duration) -> Option<(TicketId, &Ticket)> {
        self.advance(now);
        let id = self.policy.next(self.now)?;
        self.waiting.get(&id).map(|waiting| (id, &waiting.ticket))
    }

    /// The item that `take` would take now.
    pub fn peek(&mut self, now: Duration) -> Option<&T> {
        let (id, _) = self.next_ticket(now)?;
        self.item(id)
    }

    /// Takes the item that is next under the policy; never one whose deadline has passed. A closed queue gives out
    /// what it has.
    pub fn take(&mut self, now: Duration) -> Option<Taken<T>> {
        let (id, _) = self.next_ticket(now)?;
        self.withdraw(id)
    }

    /// Puts back an item that was taken from this queue. It keeps its arrival and with it its place; since it was
    /// accepted once, neither the bounds nor `close` keep it out.
    ///
    /// # Panics
    /// If the ticket is one that waits here already, which means that the item was taken from another queue.
    pub fn put_back(&mut self, taken: Taken<T>) {
        assert!(!self.waiting.contains_key(&taken.id), "{:?} waits here already", taken.id);
        self.admit(taken);
    }

    /// Takes out an item wherever it stands, overdue or not.
    pub fn remove(&mut self, id: TicketId) -> Option<T> {
        self.withdraw(id).map(|taken| taken.item)
    }

    /// Takes out all items whose deadline is `now` or before, in order of arrival.
    pub fn expire(&mut self, now: Duration) -> Vec<Taken<T>> {
        self.advance(now);
        let overdue = std::mem::take(&mut self.overdue);
        overdue.into_iter().filter_map(|id| self.withdraw(id)).collect()
    }

    /// The earliest deadline of the items that wait: the next moment at which `expire` has something to do.
    pub fn next_deadline(&self) -> Option<Duration> {
        if self.overdue.is_empty() {
            self.deadlines.first().map(|(deadline, _)| *deadline)
        } else {
            Some(self.now)
        }
    }

    /// Takes out everything in order of arrival.
    pub fn drain(&mut self) -> Vec<Taken<T>> {
        let ids: Vec<TicketId> = self.waiting.keys().copied().collect();
        ids.into_iter().filter_map(|id| self.withdraw(id)).collect()
    }

    /// Accepts nothing more.
    pub fn close(&mut self) {
        self.is_open = false;
    }

    /// Whether `close` has been called.
    pub fn is_closed(&self) -> bool {
        !self.is_open
    }

    /// How many would be taken before that ticket if nothing else came or went and no time passed.
    pub fn ahead_of(&mut self, id: TicketId, now: Duration) -> Option<usize> {
        self.order(now).iter().position(|other| *other == id)
    }

    /// The tickets in the order in which they would be taken if nothing else came or went and no time passed.
    pub fn order(&mut self, now: Duration) -> Vec<TicketId> {
        self.advance(now);
        self.policy.order(self.now)
    }

    /// The item of a ticket that waits.
    pub fn item(&self, id: TicketId) -> Option<&T> {
        self.waiting.get(&id).map(|waiting| &waiting.item)
    }

    /// The item of a ticket that waits, to be changed in its place.
    pub fn item_mut(&mut self, id: TicketId) -> Option<&mut T> {
        self.waiting.get_mut(&id).map(|waiting| &mut waiting.item)
    }

    /// All items in order of arrival, those included whose deadline has passed and which `expire` has not handed out.
    pub fn iter(&self) -> impl Iterator<Item = (TicketId, &T)> {
        self.waiting.iter().map(|(id, waiting)| (*id, &waiting.item))
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Sum of the costs of all items.
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// The bounds.
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// How long the item that arrived first has been waiting; time spent outside between `take` and `put_back` counts.
    pub fn oldest_age(&self, now: Duration) -> Option<Duration> {
        self.waiting.first_key_value().map(|(_, first)| now.saturating_sub(first.arrived))
    }

    fn objection(&self, cost: u64) -> Option<Reason> {
        let total = self.cost.checked_add(cost);
        if !self.is_open {
            Some(Reason::Closed)
        } else if self.len() >= self.capacity.items {
            Some(Reason::Items)
        } else if !self.is_empty() && total.is_none_or(|total| total > self.capacity.cost) {
            Some(Reason::Cost)
        } else {
            None
        }
    }

    /// Moves time on and takes from the policy what has become overdue.
    fn advance(&mut self, now: Duration) {
        self.now = self.now.max(now);
        while let Some(&(deadline, id)) = self.deadlines.first()
            && deadline <= self.now
        {
            self.deadlines.pop_first();
            if let Some(waiting) = self.waiting.get(&id) {
                self.policy.leave(id, &waiting.ticket);
            }
            self.overdue.insert(id);
        }
    }

    fn admit(&mut self, taken: Taken<T>) {
        let Taken { item, id, ticket, arrived } = taken;
        self.cost = self.cost.saturating_add(ticket.cost);
        self.policy.join(id, &ticket, arrived);
        if let Some(deadline) = ticket.deadline {
            self.deadlines.insert((deadline, id));
        }
        self.waiting.insert(id, Waiting { item, ticket, arrived });
    }

    fn withdraw(&mut self, id: TicketId) -> Option<Taken<T>> {
        let Waiting { item, ticket, arrived } = self.waiting.remove(&id)?;
        self.cost = self.cost.saturating_sub(ticket.cost);
        if !self.overdue.remove(&id) {
            self.policy.leave(id, &ticket);
            if let Some(deadline) = ticket.deadline {
                self.deadlines.remove(&(deadline, id));
            }
        }
        Some(Taken { item, id, ticket, arrived })
    }
}

impl<T> fmt::Debug for Line<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line")
            .field("policy", &self.policy)
            .field("len", &self.len())
            .field("cost", &self.cost)
            .field("capacity", &self.capacity)
            .field("is_open", &self.is_open)
            .finish_non_exhaustive()
    }
}
