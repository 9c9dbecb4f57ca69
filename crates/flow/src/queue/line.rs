//! A bounded line of items whose order is a policy's: the queue without waiting, time or threads.
//!
//! Items lie in lanes; the policy says which lane an item joins and which is served next, and never sees an item.
//! Nothing is lost: an item that was accepted leaves by exactly one of [`Line::take`], [`Line::remove`],
//! [`Line::expire`] and [`Line::drain`], and an item that is not accepted is given back.

#[cfg(test)]
mod tests;
mod unsorted;
mod view;

use std::collections::BTreeMap;
use std::mem;
use std::time::Duration;

use super::lanes::{Batch, LaneCount, Lanes, Run, Seen, Slot, Supply};
use super::moment::Moment;
use super::policy::{Chosen, Next, PolicySettings, Served};
use super::ticket::Load;
use super::{Capacity, Reason, Refused, Taken, Ticket, TicketId};
use unsorted::Unsorted;

/// A line that becomes empty gives its memory back if so many have waited at once.
const KEPT: usize = 1024;

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
    policy: Chosen,
    lanes: Lanes<T>,
    /// Items that came last, and together: not in lanes yet, and unknown to the policy.
    unsorted: Unsorted<T>,
    pub(super) supply: Supply<T>,
    /// Items whose deadline has passed: gone from their lanes, not yet handed out.
    overdue: BTreeMap<TicketId, Slot<T>>,
    len: usize,
    cost: u64,
    bytes: u64,
    /// The most that have waited since the line was empty.
    most: usize,
    next_id: u64,
    now: Moment,
    is_open: bool,
}

impl<T> Line<T> {
    /// An empty, open queue.
    pub fn new(capacity: Capacity, policy: impl Into<PolicySettings>) -> Self {
        let settings = policy.into();
        let policy = settings.build();
        Self {
            capacity,
            lanes: Lanes::default(),
            settings,
            policy,
            unsorted: Unsorted::default(),
            supply: Supply::default(),
            overdue: BTreeMap::new(),
            len: 0,
            cost: 0,
            bytes: 0,
            most: 0,
            next_id: 0,
            now: Moment::START,
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
    pub fn try_put(&mut self, item: T, mut ticket: Ticket, now: Duration) -> Result<TicketId, Refused<T>> {
        self.advance(Moment::of(now));
        if let Some(reason) = self.objection(&ticket) {
            return Err(Refused { item, reason });
        }
        let id = TicketId(self.next_id);
        self.admit(id, self.now, &mut ticket, item);
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
        let next = self.next(Moment::of(now))?;
        self.waiting(next).map(|slot| (slot.id, self.lanes.rares.ticket(slot.owner, slot.details)))
    }

    /// What serving the item would cost that `take` would take now.
    pub(super) fn next_cost(&mut self, now: Moment) -> Option<u64> {
        let next = self.next(now)?;
        self.waiting(next).map(|slot| self.lanes.cost(slot.details))
    }

    /// The item that `take` would take now.
    pub fn peek(&mut self, now: Duration) -> Option<&T> {
        let next = self.next(Moment::of(now))?;
        self.waiting(next).map(|slot| slot.item)
    }

    /// Takes the item that is next under the policy; never one whose deadline has passed. A closed queue gives out
    /// what it has.
    pub fn take(&mut self, now: Duration) -> Option<Taken<T>> {
        self.take_at(Moment::of(now))
    }

    #[inline]
    pub(super) fn take_at(&mut self, now: Moment) -> Option<Taken<T>> {
        let slot = self.serve(now)?;
        Some(self.unpack(slot))
    }

    /// The same, with the item still packed as it waited: unpacking it is best the last thing that is done, since then
    /// it is moved no more often than need be.
    #[inline(always)]
    pub(super) fn serve(&mut self, now: Moment) -> Option<Slot<T>> {
        let (lane, slot) = match self.next(now)? {
            Next::First(lane) => (lane, self.lanes.pop_first(lane)?),
            Next::Within(lane, id) => (lane, self.lanes.remove(id, lane)?),
        };
        let cost = self.note_gone(&slot);
        self.policy.served(&Served { lane, cost, now: self.now.nanos() }, &self.lanes);
        Some(slot)
    }

    /// An item that has gone, and its ticket.
    #[inline(always)]
    pub(super) fn unpack(&mut self, slot: Slot<T>) -> Taken<T> {
        self.lanes.rares.unpack(slot)
    }

    /// Puts back an item that was taken from this queue. It keeps its arrival and with it its place among those that
    /// the policy ranks alike. What it was charged stays charged, because its taker was busy with it; see
    /// [`Line::charge`]. Since it was accepted once, neither the bounds nor `close` keep it out.
    ///
    /// # Panics
    /// If the ticket is one that waits here already, which means that the item was taken from another queue.
    pub fn put_back(&mut self, taken: Taken<T>) {
        assert!(!self.is_here(taken.id), "{:?} waits here already", taken.id);
        self.admit_again(taken);
    }

    /// Says what serving an item has cost in truth, when that is not what its ticket said: shares are counted by what
    /// was spent, and that is often known only afterwards. To be called once for every time that an item was taken; an
    /// `actual` of 0 counts as 1, like a ticket's cost.
    pub fn charge(&mut self, ticket: &Ticket, actual: u64) {
        self.sort();
        self.policy.charge(ticket, actual);
    }

    /// Takes out an item wherever it stands, overdue or not.
    pub fn remove(&mut self, id: TicketId) -> Option<T> {
        self.pull(id).map(|taken| taken.item)
    }

    /// Takes out an item with its ticket, wherever it stands, without counting it as served.
    pub(super) fn pull(&mut self, id: TicketId) -> Option<Taken<T>> {
        let slot = self.withdraw(id).or_else(|| self.overdue.remove(&id))?;
        Some(self.let_go(slot))
    }

    /// The item that came last of those whose deadline has not passed.
    pub(super) fn newest(&self) -> Option<TicketId> {
        self.unsorted.last().map(|slot| slot.id).or_else(|| self.lanes.newest())
    }

    /// Takes out all items whose deadline is `now` or before, in order of arrival.
    pub fn expire(&mut self, now: Duration) -> Vec<Taken<T>> {
        self.advance(Moment::of(now));
        let overdue = mem::take(&mut self.overdue);
        overdue.into_values().map(|slot| self.let_go(slot)).collect()
    }

    /// The earliest deadline of the items that wait: the next moment at which `expire` has something to do.
    pub fn next_deadline(&self) -> Option<Duration> {
        if self.overdue.is_empty() { self.lanes.next_deadline() } else { Some(self.now.time()) }
    }

    /// Takes out everything, in order of arrival.
    pub fn drain(&mut self) -> Vec<Taken<T>> {
        let ids: Vec<TicketId> = self.iter().map(|(id, _)| id).collect();
        ids.into_iter().filter_map(|id| self.pull(id)).collect()
    }

    /// Goes on under another policy or other settings of the same one. Everything that waits keeps its arrival. What
    /// owners were charged is forgotten with the discipline that counted it, and kept if only settings change.
    pub fn set_policy(&mut self, policy: impl Into<PolicySettings>) {
        let settings = policy.into();
        self.sort();
        if settings.discipline == self.settings.discipline {
            self.policy.configure(&settings, &self.lanes);
        } else {
            let mut ids: Vec<TicketId> = self.lanes.iter().map(|slot| slot.id).collect();
            ids.sort_unstable();
            let waiting: Vec<Slot<T>> = ids.into_iter().filter_map(|id| self.withdraw(id)).collect();
            self.policy = settings.build();
            self.lanes.shrink();
            waiting.into_iter().for_each(|slot| self.enter(slot));
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

    fn objection(&self, ticket: &Ticket) -> Option<Reason> {
        if !self.is_open {
            return Some(Reason::Closed);
        }
        let held = Load { items: self.len(), cost: self.cost(), bytes: self.bytes() };
        self.capacity.objection(held, ticket.cost, ticket.bytes)
    }

    /// Takes in an item under its own name and arrival, whatever the bounds. What is left of the ticket is of no use.
    #[inline(always)]
    pub(super) fn admit(&mut self, id: TicketId, arrived: Moment, ticket: &mut Ticket, item: T) {
        self.sort();
        self.count(id, ticket.cost, ticket.bytes);
        let (details, arrived) = (self.lanes.rares.note(ticket), arrived.nanos());
        let lane = self.policy.lane(&ticket.owner, details);
        // Built where it is handed over, so that it is moved no more often than need be.
        self.lanes.insert(lane, Slot { id, arrived, owner: mem::take(&mut ticket.owner), details, item });
        self.policy.joined(lane, id, arrived);
    }

    /// Takes in an item that has been accepted before, whatever the bounds.
    pub(super) fn admit_again(&mut self, taken: Taken<T>) {
        self.sort();
        let Load { cost, bytes, .. } = taken.load();
        self.count(taken.id, cost, bytes);
        let slot = self.lanes.rares.pack_again(taken);
        self.enter(slot);
    }

    /// Takes in a batch of new items, of which the first has that name, whatever the bounds.
    pub(super) fn admit_batch(&mut self, first: TicketId, arrived: Moment, mut batch: Batch<T>) {
        self.len += batch.len();
        self.most = self.most.max(self.len);
        self.cost = self.cost.saturating_add(batch.cost());
        self.bytes = self.bytes.saturating_add(batch.bytes());
        self.next_id = self.next_id.max(first.0 + batch.len() as u64);
        batch.name(first, arrived.nanos());
        match self.policy.only_lane() {
            Some(lane) => self.lanes.append(lane, batch),
            // What few lanes consist of is passed to and fro in any case: there it brings nothing to wait.
            None if self.policy.lanes() == LaneCount::Few => self.enter_each(batch),
            None if self.unsorted.push(batch).is_full() => self.sort_now(),
            None => {}
        }
    }

    /// Lets all that has come be known to the policy, and lie where it says. Whatever asks it or tells it anything does so
    /// first, so it learns of every item in time and in order.
    #[inline(always)]
    fn sort(&mut self) {
        if !self.unsorted.is_empty() {
            self.sort_now();
        }
    }

    fn sort_now(&mut self) {
        let mut unsorted = mem::take(&mut self.unsorted);
        unsorted.drain().for_each(|batch| self.enter_each(batch));
        self.unsorted = unsorted;
    }

    fn enter_each(&mut self, mut batch: Batch<T>) {
        batch.give_each(|slot| self.enter(slot));
        self.supply.take_back(batch);
    }

    /// Takes the items that are next, as many as the run may have, up to the first that has something rare.
    pub(super) fn take_run(&mut self, now: Moment, mut run: Run<'_, T>) -> Load {
        self.advance(now);
        let now = self.now.nanos();
        while run.left() > 0
            && let Some(Next::First(lane)) = self.policy.next(&self.lanes, now)
        {
            let before = run.load();
            let most = if self.policy.stays(now) { run.left() } else { 1 };
            self.lanes.pop_run(lane, most, &mut run);
            let cost = run.load().cost - before.cost;
            if run.load().items == before.items {
                break;
            }
            self.policy.served(&Served { lane, cost, now }, &self.lanes);
        }
        let Load { items, cost, bytes } = run.load();
        self.len -= items;
        self.cost = self.cost.saturating_sub(cost);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.tidy();
        run.load()
    }

    /// One item more.
    #[inline(always)]
    fn count(&mut self, id: TicketId, cost: u64, bytes: u64) {
        self.next_id = self.next_id.max(id.0 + 1);
        self.len += 1;
        self.most = self.most.max(self.len);
        self.cost = self.cost.saturating_add(cost);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    #[inline(always)]
    fn enter(&mut self, slot: Slot<T>) {
        let lane = self.policy.lane(&slot.owner, slot.details);
        self.policy.joined(lane, slot.id, slot.arrived);
        self.lanes.insert(lane, slot);
    }

    /// Moves time on and takes from the lanes what has become overdue.
    #[inline]
    fn advance(&mut self, now: Moment) {
        self.sort();
        self.now = self.now.max(now);
        while let Some((id, lane)) = self.lanes.next_overdue(self.now.nanos()) {
            if let Some(slot) = self.lanes.remove(id, lane) {
                self.policy.left(lane, &self.lanes);
                self.overdue.insert(id, slot);
            }
        }
    }

    #[inline(always)]
    fn next(&mut self, now: Moment) -> Option<Next> {
        self.advance(now);
        self.policy.next(&self.lanes, self.now.nanos())
    }

    /// What waits there.
    fn waiting(&self, next: Next) -> Option<Seen<'_, T>> {
        match next {
            Next::First(lane) => self.lanes.first(lane),
            Next::Within(_, id) => self.lanes.get(id),
        }
    }

    /// Takes an item out of its lane that is not served.
    fn withdraw(&mut self, id: TicketId) -> Option<Slot<T>> {
        self.sort();
        let lane = self.lanes.find(id)?;
        let slot = self.lanes.remove(id, lane)?;
        self.policy.left(lane, &self.lanes);
        Some(slot)
    }

    /// The end of an item's stay.
    fn let_go(&mut self, slot: Slot<T>) -> Taken<T> {
        self.note_gone(&slot);
        self.unpack(slot)
    }

    /// An item does not wait any more; the answer is its cost.
    #[inline(always)]
    fn note_gone(&mut self, slot: &Slot<T>) -> u64 {
        let (cost, bytes) = self.lanes.load(slot.details);
        self.len -= 1;
        self.cost = self.cost.saturating_sub(cost);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.tidy();
        cost
    }

    #[inline]
    fn tidy(&mut self) {
        if self.len == 0 && self.most > KEPT {
            self.lanes.shrink();
            self.most = 0;
        }
    }

    fn is_here(&self, id: TicketId) -> bool {
        self.item(id).is_some()
    }
}
