//! A bounded line of items whose order is a policy's: the queue without waiting, time or threads.
//!
//! The line keeps the items and knows their tickets; the policy orders the tickets and never sees an item. Nothing is
//! lost: an item that was accepted leaves by exactly one of [`Line::take`], [`Line::remove`], [`Line::expire`] and
//! [`Line::drain`], and an item that is not accepted is given back.

mod index;
mod roster;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use roster::{Gone, Roster};

use super::policy::PolicySettings;
use super::ticket::Load;
use super::tickets::{Place, Slab};
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
    roster: Roster,
    items: Slab<Option<T>>,
    is_open: bool,
}

impl<T> Line<T> {
    /// An empty, open queue.
    pub fn new(capacity: Capacity, policy: impl Into<PolicySettings>) -> Self {
        Self { capacity, roster: Roster::new(policy.into()), items: Slab::default(), is_open: true }
    }

    /// Adds an item behind those that are already there, as far as the policy goes by arrival.
    ///
    /// The bounds on cost and bytes do not apply to an empty queue, so that an item larger than them waits alone instead
    /// of never.
    ///
    /// # Errors
    /// Gives the item back when the queue is full or closed.
    pub fn try_put(&mut self, item: T, ticket: Ticket, now: Duration) -> Result<TicketId, Refused<T>> {
        self.roster.advance(now);
        if let Some(reason) = self.objection(&ticket) {
            return Err(Refused { item, reason });
        }
        let (id, place) = self.roster.enter(ticket);
        self.items.put(place, Some(item));
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
        let place = self.roster.next(now)?;
        Some((self.roster.id(place), self.roster.ticket(place)))
    }

    /// The item that `take` would take now.
    pub fn peek(&mut self, now: Duration) -> Option<&T> {
        let place = self.roster.next(now)?;
        self.items.at(place).as_ref()
    }

    /// Takes the item that is next under the policy; never one whose deadline has passed. A closed queue gives out
    /// what it has.
    pub fn take(&mut self, now: Duration) -> Option<Taken<T>> {
        self.take_to(now, |taken| taken)
    }

    /// The same, with the item moved no more often than its receiver moves it.
    #[inline(always)]
    pub(super) fn take_to<R>(&mut self, now: Duration, to: impl FnOnce(Taken<T>) -> R) -> Option<R> {
        let Gone { place, id, ticket, arrived } = self.roster.serve(now)?;
        let item = self.items.at_mut(place).take()?;
        let result = to(Taken { item, id, ticket, arrived });
        self.tidy();
        Some(result)
    }

    /// Puts back an item that was taken from this queue. It keeps its arrival and with it its place among those that
    /// the policy ranks alike. What it was charged stays charged, because its taker was busy with it; see
    /// [`Line::charge`]. Since it was accepted once, neither the bounds nor `close` keep it out.
    ///
    /// # Panics
    /// If the ticket is one that waits here already, which means that the item was taken from another queue.
    pub fn put_back(&mut self, taken: Taken<T>) {
        assert!(self.roster.find(taken.id).is_none(), "{:?} waits here already", taken.id);
        let Taken { item, id, ticket, arrived } = taken;
        self.admit(id, arrived, ticket, item);
    }

    /// Says what serving an item has cost in truth, when that is not what its ticket said: shares are counted by what
    /// was spent, and that is often known only afterwards. To be called once for every time that an item was taken; an
    /// `actual` of 0 counts as 1, like a ticket's cost.
    pub fn charge(&mut self, ticket: &Ticket, actual: u64) {
        self.roster.charge(ticket, actual);
    }

    /// Takes out an item wherever it stands, overdue or not.
    pub fn remove(&mut self, id: TicketId) -> Option<T> {
        self.pull(id).map(|taken| taken.item)
    }

    /// Takes out an item with its ticket, wherever it stands, without counting it as served.
    pub(super) fn pull(&mut self, id: TicketId) -> Option<Taken<T>> {
        self.withdraw(self.roster.find(id)?)
    }

    /// The item that came last of those whose deadline has not passed.
    pub(super) fn newest(&self) -> Option<TicketId> {
        self.roster.newest()
    }

    /// Takes out all items whose deadline is `now` or before, in order of arrival.
    pub fn expire(&mut self, now: Duration) -> Vec<Taken<T>> {
        self.roster.advance(now);
        std::iter::from_fn(|| self.withdraw(self.roster.first_overdue()?)).collect()
    }

    /// The earliest deadline of the items that wait: the next moment at which `expire` has something to do.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.roster.next_deadline()
    }

    /// Takes out everything, in order of arrival.
    pub fn drain(&mut self) -> Vec<Taken<T>> {
        let places: Vec<Place> = self.roster.places().collect();
        places.into_iter().filter_map(|place| self.withdraw(place)).collect()
    }

    /// Goes on under another policy or other settings of the same one. Everything that waits keeps its arrival. What
    /// owners were charged is forgotten with the discipline that counted it, and kept if only settings change.
    pub fn set_policy(&mut self, policy: impl Into<PolicySettings>) {
        self.roster.set_policy(policy.into());
    }

    /// The policy and its settings.
    pub fn policy(&self) -> &PolicySettings {
        self.roster.settings()
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
        self.roster.order(now)
    }

    /// The item of a ticket that waits.
    pub fn item(&self, id: TicketId) -> Option<&T> {
        self.items.at(self.roster.find(id)?).as_ref()
    }

    /// The item of a ticket that waits, to be changed in its place.
    pub fn item_mut(&mut self, id: TicketId) -> Option<&mut T> {
        self.items.at_mut(self.roster.find(id)?).as_mut()
    }

    /// All items in order of arrival, those included whose deadline has passed and which `expire` has not handed out.
    pub fn iter(&self) -> impl Iterator<Item = (TicketId, &T)> {
        self.roster.places().filter_map(|place| Some((self.roster.id(place), self.items.at(place).as_ref()?)))
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.roster.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sum of the costs of all items.
    pub fn cost(&self) -> u64 {
        self.roster.cost()
    }

    /// Sum of the bytes of all items, as their tickets say.
    pub fn bytes(&self) -> u64 {
        self.roster.bytes()
    }

    /// The bounds.
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// How long the item that arrived first has been waiting; time spent outside between `take` and `put_back` counts.
    pub fn oldest_age(&self, now: Duration) -> Option<Duration> {
        Some(now.saturating_sub(self.roster.oldest_arrival()?))
    }

    fn objection(&self, ticket: &Ticket) -> Option<Reason> {
        if !self.is_open {
            return Some(Reason::Closed);
        }
        let held = Load { items: self.len(), cost: self.cost(), bytes: self.bytes() };
        self.capacity.objection(held, ticket.cost, ticket.bytes)
    }

    /// Takes in an item under its own name and arrival, whatever the bounds.
    #[inline]
    pub(super) fn admit(&mut self, id: TicketId, arrived: Duration, ticket: Ticket, item: T) {
        let place = self.roster.admit(id, ticket, arrived);
        self.items.put(place, Some(item));
    }

    fn withdraw(&mut self, place: Place) -> Option<Taken<T>> {
        let gone = self.roster.withdraw(place);
        self.hand_out(gone)
    }

    #[inline]
    fn hand_out(&mut self, gone: Gone) -> Option<Taken<T>> {
        let Gone { place, id, ticket, arrived } = gone;
        let item = self.items.at_mut(place).take()?;
        self.tidy();
        Some(Taken { item, id, ticket, arrived })
    }

    #[inline]
    fn tidy(&mut self) {
        if self.is_empty() && self.items.len() > KEPT_SLOTS {
            self.items.clear();
            self.roster.clear();
        }
    }
}

impl<T> fmt::Debug for Line<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line")
            .field("policy", &self.roster.policy())
            .field("len", &self.len())
            .field("cost", &self.cost())
            .field("bytes", &self.bytes())
            .field("capacity", &self.capacity)
            .field("is_open", &self.is_open)
            .finish_non_exhaustive()
    }
}
