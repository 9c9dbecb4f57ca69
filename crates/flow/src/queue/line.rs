//! A bounded line of items whose order is a policy's: the queue without waiting, time or threads.
//!
//! The line keeps the items and knows their tickets; the policy orders the tickets and never sees an item. Nothing is
//! lost: an item that was accepted leaves by exactly one of [`Line::take`], [`Line::remove`], [`Line::expire`] and
//! [`Line::drain`], and an item that is not accepted is given back.

mod index;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use index::Index;

use super::policy::{Policy, PolicySettings};
use super::tickets::{Place, Slab, Tickets};
use super::{Capacity, Reason, Refused, Taken, Ticket, TicketId};

/// A line that becomes empty gives its memory back if it has more slots than these.
const KEPT_SLOTS: usize = 1024;

/// A bounded queue of items with tickets.
///
/// Every `now` is the time since a moment that the owner chose; a `now` before an earlier one counts as that one.
///
/// ```
/// use std::time::Duration;
/// use flow::{Capacity, Line, Ticket};
///
/// let mut line = Line::new(Capacity::items(100), flow::queue::policy::Discipline::default());
/// line.try_put("later", Ticket::of("alice").level(1), Duration::ZERO)?;
/// line.try_put("now", Ticket::of("bob"), Duration::ZERO)?;
/// assert_eq!(line.take(Duration::from_millis(5)).map(|taken| taken.item), Some("now"));
/// # Ok::<(), flow::Refused<&str>>(())
/// ```
pub struct Line<T> {
    capacity: Capacity,
    settings: PolicySettings,
    policy: Box<dyn Policy>,
    tickets: Tickets,
    items: Slab<Option<T>>,
    index: Index,
    /// Tickets whose deadline has passed: gone from the policy, not yet handed out by `expire`.
    overdue: BTreeSet<TicketId>,
    cost: u64,
    bytes: u64,
    next_id: u64,
    now: Duration,
    is_open: bool,
}

impl<T> Line<T> {
    /// An empty, open queue.
    pub fn new(capacity: Capacity, policy: impl Into<PolicySettings>) -> Self {
        let settings = policy.into();
        Self {
            capacity,
            policy: settings.build(),
            settings,
            tickets: Tickets::default(),
            items: Slab::default(),
            index: Index::default(),
            overdue: BTreeSet::new(),
            cost: 0,
            bytes: 0,
            next_id: 0,
            now: Duration::ZERO,
            is_open: true,
        }
    }

    /// Adds an item behind those that are already there, as far as the policy goes by arrival.
    ///
    /// The bounds on cost and bytes do not apply to an empty queue, so that an item larger than them waits alone instead
    /// of never.
    ///
    /// # Errors
    /// Gives the item back when the queue is full or closed.
    pub fn try_put(&mut self, item: T, ticket: Ticket, now: Duration) -> Result<TicketId, Refused<T>> {
        self.advance(now);
        if let Some(reason) = self.objection(&ticket) {
            return Err(Refused { item, reason });
        }
        let id = TicketId(self.next_id);
        self.admit(Taken { item, id, ticket, arrived: self.now });
        Ok(id)
    }

    /// Whether an item with that ticket would be accepted now.
    ///
    /// # Errors
    /// Says why not.
    pub fn has_room(&self, ticket: &Ticket) -> Result<(), Reason> {
        self.objection(ticket).map_or(Ok(()), Err)
    }

    /// The ticket that `take` would take now, for an owner that must see whether it fits before taking it.
    pub fn next_ticket(&mut self, now: Duration) -> Option<(TicketId, Ticket)> {
        let place = self.next(now)?;
        Some((self.tickets.id(place), self.tickets.ticket(place)))
    }

    /// The item that `take` would take now.
    pub fn peek(&mut self, now: Duration) -> Option<&T> {
        let place = self.next(now)?;
        self.items.at(place).as_ref()
    }

    /// Takes the item that is next under the policy; never one whose deadline has passed. A closed queue gives out
    /// what it has.
    pub fn take(&mut self, now: Duration) -> Option<Taken<T>> {
        let place = self.next(now)?;
        self.policy.serve(place, &mut self.tickets, self.now);
        self.extract(place)
    }

    /// Puts back an item that was taken from this queue. It keeps its arrival and with it its place among those that
    /// the policy ranks alike. What it was charged stays charged, because its taker was busy with it; see
    /// [`Line::charge`]. Since it was accepted once, neither the bounds nor `close` keep it out.
    ///
    /// # Panics
    /// If the ticket is one that waits here already, which means that the item was taken from another queue.
    pub fn put_back(&mut self, taken: Taken<T>) {
        assert!(self.index.get(taken.id).is_none(), "{:?} waits here already", taken.id);
        self.admit(taken);
    }

    /// Says what serving an item has cost in truth, when that is not what its ticket said: shares are counted by what
    /// was spent, and that is often known only afterwards. To be called once for every time that an item was taken; an
    /// `actual` of 0 counts as 1, like a ticket's cost.
    pub fn charge(&mut self, ticket: &Ticket, actual: u64) {
        self.policy.charge(ticket, actual, &mut self.tickets);
    }

    /// Takes out an item wherever it stands, overdue or not.
    pub fn remove(&mut self, id: TicketId) -> Option<T> {
        self.pull(id).map(|taken| taken.item)
    }

    /// Takes out an item with its ticket, wherever it stands, without counting it as served.
    pub(super) fn pull(&mut self, id: TicketId) -> Option<Taken<T>> {
        self.withdraw(self.index.get(id)?)
    }

    /// Takes out all items whose deadline is `now` or before, in order of arrival.
    pub fn expire(&mut self, now: Duration) -> Vec<Taken<T>> {
        self.advance(now);
        let overdue = std::mem::take(&mut self.overdue);
        overdue.into_iter().filter_map(|id| self.withdraw(self.index.get(id)?)).collect()
    }

    /// The earliest deadline of the items that wait: the next moment at which `expire` has something to do.
    pub fn next_deadline(&self) -> Option<Duration> {
        if self.overdue.is_empty() {
            self.tickets.deadlines().next().map(|(deadline, _)| deadline)
        } else {
            Some(self.now)
        }
    }

    /// Takes out everything, in order of arrival.
    pub fn drain(&mut self) -> Vec<Taken<T>> {
        let places: Vec<Place> = self.index.iter().collect();
        places.into_iter().filter_map(|place| self.withdraw(place)).collect()
    }

    /// Goes on under another policy or other settings of the same one. Everything that waits keeps its arrival. What
    /// owners were charged is forgotten with the discipline that counted it, and kept if only settings change.
    pub fn set_policy(&mut self, policy: impl Into<PolicySettings>) {
        let settings = policy.into();
        if settings.discipline == self.settings.discipline {
            self.policy.configure(&settings, &mut self.tickets);
        } else {
            let mut next = settings.build();
            let waiting: Vec<Place> =
                self.index.iter().filter(|place| !self.tickets.is_overdue(*place)).collect();
            waiting.iter().for_each(|place| self.policy.leave(*place, &mut self.tickets));
            waiting.iter().for_each(|place| next.join(*place, &mut self.tickets));
            self.policy.retire(&mut self.tickets);
            self.policy = next;
        }
        self.settings = settings;
    }

    /// The policy and its settings.
    pub fn policy(&self) -> &PolicySettings {
        &self.settings
    }

    /// Goes on with other bounds. What waits beyond them stays; nothing more comes in until there is room.
    pub fn set_capacity(&mut self, capacity: Capacity) {
        self.capacity = capacity;
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
        let places = self.policy.order(&self.tickets, self.now);
        places.into_iter().map(|place| self.tickets.id(place)).collect()
    }

    /// The item of a ticket that waits.
    pub fn item(&self, id: TicketId) -> Option<&T> {
        self.items.at(self.index.get(id)?).as_ref()
    }

    /// The item of a ticket that waits, to be changed in its place.
    pub fn item_mut(&mut self, id: TicketId) -> Option<&mut T> {
        self.items.at_mut(self.index.get(id)?).as_mut()
    }

    /// All items in order of arrival, those included whose deadline has passed and which `expire` has not handed out.
    pub fn iter(&self) -> impl Iterator<Item = (TicketId, &T)> {
        self.index.iter().filter_map(|place| Some((self.tickets.id(place), self.items.at(place).as_ref()?)))
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sum of the costs of all items.
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// Sum of the bytes of all items, as their tickets say.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The bounds.
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// How long the item that arrived first has been waiting; time spent outside between `take` and `put_back` counts.
    pub fn oldest_age(&self, now: Duration) -> Option<Duration> {
        let oldest = self.index.first()?;
        Some(now.saturating_sub(Duration::from_nanos(self.tickets.arrived(oldest))))
    }

    fn objection(&self, ticket: &Ticket) -> Option<Reason> {
        let exceeds = |sum: u64, more: u64, bound| sum.checked_add(more).is_none_or(|total| total > bound);
        if !self.is_open {
            Some(Reason::Closed)
        } else if self.len() >= self.capacity.items {
            Some(Reason::Items)
        } else if self.is_empty() {
            None
        } else if exceeds(self.cost, ticket.cost, self.capacity.cost) {
            Some(Reason::Cost)
        } else if exceeds(self.bytes, ticket.bytes, self.capacity.bytes) {
            Some(Reason::Bytes)
        } else {
            None
        }
    }

    fn next(&mut self, now: Duration) -> Option<Place> {
        self.advance(now);
        self.policy.next(&self.tickets, self.now)
    }

    /// Moves time on and takes from the policy what has become overdue.
    fn advance(&mut self, now: Duration) {
        self.now = self.now.max(now);
        while let Some(place) = self.tickets.next_overdue(self.now) {
            self.policy.leave(place, &mut self.tickets);
            self.tickets.give_up(place);
            self.overdue.insert(self.tickets.id(place));
        }
    }

    /// Takes in an item under its own name and arrival, whatever the bounds.
    pub(super) fn admit(&mut self, taken: Taken<T>) {
        let Taken { item, id, ticket, arrived } = taken;
        self.next_id = self.next_id.max(id.0 + 1);
        self.cost = self.cost.saturating_add(ticket.cost);
        self.bytes = self.bytes.saturating_add(ticket.bytes);
        let place = self.tickets.enter(id, ticket, arrived);
        self.items.reach(place);
        *self.items.at_mut(place) = Some(item);
        self.index.insert(id, place);
        self.policy.join(place, &mut self.tickets);
    }

    /// Takes out a ticket that is not served.
    fn withdraw(&mut self, place: Place) -> Option<Taken<T>> {
        if self.tickets.is_overdue(place) {
            self.overdue.remove(&self.tickets.id(place));
        } else {
            self.policy.leave(place, &mut self.tickets);
        }
        self.extract(place)
    }

    /// Takes out a ticket that the policy has let go.
    fn extract(&mut self, place: Place) -> Option<Taken<T>> {
        let id = self.tickets.id(place);
        self.index.remove(id);
        let (ticket, arrived) = self.tickets.exit(place);
        let item = self.items.at_mut(place).take()?;
        self.cost = self.cost.saturating_sub(ticket.cost);
        self.bytes = self.bytes.saturating_sub(ticket.bytes);
        if self.is_empty() && self.items.len() > KEPT_SLOTS {
            self.items.clear();
            self.tickets.clear();
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
            .field("bytes", &self.bytes)
            .field("capacity", &self.capacity)
            .field("is_open", &self.is_open)
            .finish_non_exhaustive()
    }
}
