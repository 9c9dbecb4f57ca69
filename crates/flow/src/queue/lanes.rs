//! Where items wait: in lanes, each in order of arrival. Which lane an item joins and which one is served next is the
//! policy's business; everything that waits lies here once.
//!
//! A slot takes 40 bytes besides its item. What few tickets have (a deadline, a key, a cost beyond 16 bits or a size
//! beyond 32) stands apart; so a million waiting items of 1 KiB take less than 5 % more than the items.

mod block;
mod index;
mod lane;

use std::collections::BTreeSet;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

pub(super) use block::Block;
use index::Index;
use lane::Lane;

use super::{Owner, Taken, Ticket, TicketId};

/// What was rare leaves no memory behind when all of it has gone, if it was more than that.
const KEPT: usize = 1024;

/// Names a lane. Policies give the names, and begin with small numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LaneId(u32);

impl LaneId {
    /// The first lane, for policies that need no other.
    pub(super) const FIRST: Self = Self(0);

    pub(super) fn at(index: usize) -> Self {
        Self(
            u32::try_from(index).expect("four thousand million lanes do not fit into any memory that exists"),
        )
    }

    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Whether a policy's lanes are few, so that an item is found by looking into each, or one for every owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LaneCount {
    Few,
    Many,
}

/// An item that waits, with what nearly every ticket has and nearly nothing else.
pub(super) struct Slot<T> {
    pub(super) id: TicketId,
    /// In nanoseconds of the owner's time; later than 584 years counts as then.
    pub(super) arrived: u64,
    pub(super) owner: Owner,
    details: Details,
    pub(super) item: T,
}

/// Size, cost and urgency in one word, because that is moved at once, and four small fields are not.
#[derive(Clone, Copy)]
struct Details(u64);

impl Details {
    const RARE: u64 = 1 << 63;
    const DATED: u64 = 1 << 62;

    fn plain(bytes: u32, cost: u16, level: u8) -> Self {
        Self(u64::from(bytes) | u64::from(cost) << 32 | u64::from(level) << 48)
    }

    /// Of a ticket whose details stand there, besides its urgency.
    fn rare(at: u32, level: u8, deadline: Option<Duration>) -> Self {
        let dated = deadline.map_or(0, |_| Self::DATED);
        Self(Self::plain(at, 0, level).0 | Self::RARE | dated)
    }

    /// Those of a ticket that has nothing rare.
    #[inline]
    fn of(ticket: &Ticket) -> Option<Self> {
        let (cost, bytes) = (u16::try_from(ticket.cost).ok()?, u32::try_from(ticket.bytes).ok()?);
        let is_plain = ticket.deadline.is_none() && ticket.key.is_none();
        is_plain.then(|| Self::plain(bytes, cost, ticket.level))
    }

    fn level(self) -> u8 {
        (self.0 >> 48) as u8
    }

    fn cost(self) -> u64 {
        u64::from((self.0 >> 32) as u16)
    }

    fn bytes(self) -> u64 {
        u64::from(self.0 as u32)
    }

    /// Where the details stand, if not here.
    #[inline]
    fn elsewhere(self) -> Option<usize> {
        (self.0 & Self::RARE != 0).then_some(self.0 as u32 as usize)
    }
}

impl<T> Slot<T> {
    /// An item that has no name yet.
    #[inline(always)]
    fn unnamed(item: T, owner: Owner, details: Details) -> Self {
        Self { id: TicketId(0), arrived: 0, owner, details, item }
    }

    /// An item whose ticket has nothing rare, as it came.
    #[inline(always)]
    fn into_plain(self) -> Taken<T> {
        let Self { id, arrived, owner, details, item } = self;
        let (level, cost, bytes) = (details.level(), details.cost(), details.bytes());
        let ticket = Ticket { owner, level, cost, bytes, deadline: None, key: None };
        Taken { item, id, ticket, arrived: Duration::from_nanos(arrived) }
    }

    /// Its urgency.
    #[inline]
    pub(super) fn level(&self) -> u8 {
        self.details.level()
    }

    /// Whether it has a deadline.
    pub(super) fn is_dated(&self) -> bool {
        self.details.0 & Details::DATED != 0
    }
}

/// What few tickets have.
#[derive(Default)]
struct Rare {
    cost: u64,
    bytes: u64,
    deadline: Option<Duration>,
    key: Option<Arc<str>>,
}

/// The parts of tickets that do not fit into slots.
#[derive(Default)]
pub(super) struct Rares {
    known: Vec<Rare>,
    unused: Vec<u32>,
}

impl Rares {
    /// Makes an item ready to wait. What the ticket holds is taken from where it stands, since moving tickets about is
    /// what passing an item would cost most.
    #[inline(always)]
    pub(super) fn pack<T>(&mut self, id: TicketId, arrived: u64, ticket: &mut Ticket, item: T) -> Slot<T> {
        let details = Details::of(ticket)
            .unwrap_or_else(|| Details::rare(self.enter(ticket), ticket.level, ticket.deadline));
        Slot { id, arrived, owner: mem::take(&mut ticket.owner), details, item }
    }

    /// The item and its ticket, as they came.
    #[inline(always)]
    pub(super) fn unpack<T>(&mut self, slot: Slot<T>) -> Taken<T> {
        let Slot { id, arrived, owner, details, item } = slot;
        let (arrived, level) = (Duration::from_nanos(arrived), details.level());
        let Rare { cost, bytes, deadline, key } = match details.elsewhere() {
            None => Rare { cost: details.cost(), bytes: details.bytes(), deadline: None, key: None },
            Some(at) => self.leave(at),
        };
        Taken { item, id, ticket: Ticket { owner, level, cost, bytes, deadline, key }, arrived }
    }

    /// The ticket of an item that goes on waiting.
    pub(super) fn ticket<T>(&self, slot: &Slot<T>) -> Ticket {
        let (owner, level) = (slot.owner.clone(), slot.details.level());
        match self.of(slot) {
            None => Ticket { cost: slot.details.cost(), bytes: slot.details.bytes(), ..Ticket::of(owner) },
            Some(Rare { cost, bytes, deadline, key }) => {
                let (deadline, key) = (*deadline, key.clone());
                Ticket { cost: *cost, bytes: *bytes, deadline, key, ..Ticket::of(owner) }
            }
        }
        .level(level)
    }

    #[inline]
    fn of<T>(&self, slot: &Slot<T>) -> Option<&Rare> {
        self.known.get(slot.details.elsewhere()?)
    }

    #[cold]
    fn enter(&mut self, ticket: &mut Ticket) -> u32 {
        let Ticket { cost, bytes, deadline, .. } = *ticket;
        let rare = Rare { cost, bytes, deadline, key: ticket.key.take() };
        if let Some(at) = self.unused.pop() {
            self.known[at as usize] = rare;
            return at;
        }
        self.known.push(rare);
        u32::try_from(self.known.len() - 1)
            .expect("four thousand million tickets fit into no memory that exists")
    }

    #[cold]
    fn leave(&mut self, at: usize) -> Rare {
        let rare = mem::take(&mut self.known[at]);
        self.unused.push(at as u32);
        if self.unused.len() == self.known.len() && self.known.len() > KEPT {
            *self = Self::default();
        }
        rare
    }
}

/// All that waits.
pub(super) struct Lanes<T> {
    lanes: Vec<Lane<T>>,
    pub(super) rares: Rares,
    /// Deadlines, in nanoseconds.
    deadlines: BTreeSet<(u64, TicketId, LaneId)>,
    /// The lanes of all items, where lanes are many.
    index: Option<Index>,
}

impl<T> Lanes<T> {
    pub(super) fn new(count: LaneCount) -> Self {
        let index = (count == LaneCount::Many).then(Index::default);
        Self { lanes: Vec::new(), rares: Rares::default(), deadlines: BTreeSet::new(), index }
    }

    /// Goes on with other lanes. Nothing waits in any, though tickets may be on their way from one to another.
    pub(super) fn recount(&mut self, count: LaneCount) {
        self.index = (count == LaneCount::Many).then(Index::default);
        self.lanes = Vec::new();
    }

    /// Gives the memory up of what waited; nothing does.
    pub(super) fn shrink(&mut self) {
        self.lanes = Vec::new();
    }

    /// Lets an item wait in that lane.
    #[inline(always)]
    pub(super) fn insert(&mut self, lane: LaneId, slot: Slot<T>) {
        let deadline = self.rares.of(&slot).and_then(|rare| rare.deadline);
        self.deadlines.extend(deadline.map(|deadline| (nanos(deadline), slot.id, lane)));
        if let Some(index) = &mut self.index {
            index.insert(slot.id, lane);
        }
        if self.lanes.len() <= lane.index() {
            self.lanes.resize_with(lane.index() + 1, Lane::default);
        }
        self.lanes[lane.index()].insert(slot);
    }

    /// Lets a block of plain items, which came last, wait in that lane.
    pub(super) fn append(&mut self, lane: LaneId, block: Block<T>) {
        if self.lanes.len() <= lane.index() {
            self.lanes.resize_with(lane.index() + 1, Lane::default);
        }
        self.lanes[lane.index()].append(block);
    }

    /// Takes the first block of a lane out as a whole, if it has no more than `most` items and all are plain.
    pub(super) fn pop_block(&mut self, lane: LaneId, most: usize) -> Option<Block<T>> {
        self.lanes.get_mut(lane.index())?.pop_block(most)
    }

    /// Takes out the first of a lane.
    #[inline(always)]
    pub(super) fn pop_first(&mut self, lane: LaneId) -> Option<Slot<T>> {
        let slot = self.lanes.get_mut(lane.index())?.pop_first()?;
        self.forget(&slot, lane);
        Some(slot)
    }

    /// Takes out an item that waits in that lane.
    pub(super) fn remove(&mut self, id: TicketId, lane: LaneId) -> Option<Slot<T>> {
        let slot = self.lanes.get_mut(lane.index())?.remove(id)?;
        self.forget(&slot, lane);
        Some(slot)
    }

    #[inline]
    fn forget(&mut self, slot: &Slot<T>, lane: LaneId) {
        if let Some(index) = &mut self.index {
            index.remove(slot.id);
        }
        if let Some(deadline) = self.rares.of(slot).and_then(|rare| rare.deadline) {
            self.deadlines.remove(&(nanos(deadline), slot.id, lane));
        }
    }

    /// The lane in which an item waits.
    pub(super) fn find(&self, id: TicketId) -> Option<LaneId> {
        match &self.index {
            Some(index) => index.get(id),
            None => self.lanes.iter().position(|lane| lane.get(id).is_some()).map(LaneId::at),
        }
    }

    pub(super) fn get(&self, id: TicketId) -> Option<&Slot<T>> {
        self.lanes[self.find(id)?.index()].get(id)
    }

    pub(super) fn get_mut(&mut self, id: TicketId) -> Option<&mut Slot<T>> {
        let lane = self.find(id)?;
        self.lanes[lane.index()].get_mut(id)
    }

    /// Whether nothing waits in that lane.
    pub(super) fn is_empty(&self, lane: LaneId) -> bool {
        self.lanes.get(lane.index()).is_none_or(Lane::is_empty)
    }

    /// The first of a lane.
    #[inline]
    pub(super) fn first(&self, lane: LaneId) -> Option<&Slot<T>> {
        self.lanes.get(lane.index())?.first()
    }

    /// The items of a lane, in order of arrival.
    pub(super) fn of(&self, lane: LaneId) -> impl Iterator<Item = &Slot<T>> {
        self.lanes.get(lane.index()).into_iter().flat_map(Lane::iter)
    }

    /// What serving an item costs.
    pub(super) fn cost(&self, slot: &Slot<T>) -> u64 {
        self.load(slot).0
    }

    /// What serving an item costs, and its bytes.
    #[inline(always)]
    pub(super) fn load(&self, slot: &Slot<T>) -> (u64, u64) {
        let plain = (slot.details.cost(), slot.details.bytes());
        self.rares.of(slot).map_or(plain, |rare| (rare.cost, rare.bytes))
    }

    /// The item that came first.
    pub(super) fn oldest(&self) -> Option<&Slot<T>> {
        match &self.index {
            Some(index) => self.first(index.first()?),
            None => self.lanes.iter().filter_map(Lane::first).min_by_key(|slot| slot.id),
        }
    }

    /// The item that came last.
    pub(super) fn newest(&self) -> Option<TicketId> {
        self.lanes.iter().filter_map(Lane::last).map(|slot| slot.id).max()
    }

    /// All items, lane by lane.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot<T>> {
        self.lanes.iter().flat_map(Lane::iter)
    }

    /// The items with deadlines, the earliest deadline first; of equal ones, the item that came first.
    pub(super) fn by_deadline(&self) -> impl Iterator<Item = (TicketId, LaneId)> {
        self.deadlines.iter().map(|(_, id, lane)| (*id, *lane))
    }

    /// The earliest deadline.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(deadline, ..)| Duration::from_nanos(*deadline))
    }

    /// An item whose deadline is `now` or before.
    #[inline]
    pub(super) fn next_overdue(&self, now: u64) -> Option<(TicketId, LaneId)> {
        let (deadline, id, lane) = self.deadlines.first()?;
        (*deadline <= now).then_some((*id, *lane))
    }
}

/// A time as slots have it.
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
