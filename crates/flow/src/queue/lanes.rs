//! Where items wait: in lanes, each in order of arrival. Which lane an item joins and which one is served next is the
//! policy's business; everything that waits lies here once.
//!
//! A slot takes 40 bytes besides its item, as `packing.rs` packs tickets; so a million waiting items of 1 KiB take less
//! than 5 % more than the items.

mod batch;
mod block;
mod index;
mod lane;
mod run;
mod spares;

use std::collections::BTreeSet;
use std::time::Duration;

pub(super) use batch::Batch;
use block::Block;
use index::Index;
use lane::Lane;
pub(super) use run::Run;
pub(super) use spares::Supply;

use super::moment::Moment;
use super::packing::{Details, Rares};
use super::{Owner, TicketId};

/// Names a lane. Policies give the names, and begin with small numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LaneId(u32);

impl LaneId {
    /// The first lane, for policies that need no other.
    pub(super) const FIRST: Self = Self(0);

    #[inline]
    pub(super) fn at(index: usize) -> Self {
        Self(
            u32::try_from(index).expect("four thousand million lanes do not fit into any memory that exists"),
        )
    }

    #[inline]
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Whether a policy's lanes are few, or one for every owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LaneCount {
    Few,
    Many,
}

/// In so many lanes an item is found by looking into each. That takes some microseconds at most and is rarely asked, while
/// an index costs every item that comes and goes. Tests, which have few lanes, are to meet both ways.
const SEARCHED: usize = if cfg!(test) { 2 } else { 256 };

/// An item that waits, with what nearly every ticket has and nearly nothing else.
pub(super) struct Slot<T> {
    pub(super) id: TicketId,
    /// In nanoseconds of the owner's time; later than 584 years counts as then.
    pub(super) arrived: u64,
    pub(super) owner: Owner,
    pub(super) details: Details,
    pub(super) item: T,
}

/// What is seen of an item where it waits.
pub(super) struct Seen<'a, T> {
    pub(super) id: TicketId,
    pub(super) arrived: u64,
    pub(super) owner: &'a Owner,
    pub(super) details: Details,
    pub(super) item: &'a T,
}

impl<T> Slot<T> {
    #[inline(always)]
    pub(super) fn seen(&self) -> Seen<'_, T> {
        let Self { id, arrived, owner, details, item } = self;
        Seen { id: *id, arrived: *arrived, owner, details: *details, item }
    }
}

/// All that waits.
pub(super) struct Lanes<T> {
    lanes: Vec<Lane<T>>,
    pub(super) rares: Rares,
    /// Deadlines, in nanoseconds.
    deadlines: BTreeSet<(u64, TicketId, LaneId)>,
    /// The lanes of all items, once there are too many lanes to look into each.
    index: Option<Index>,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self { lanes: Vec::new(), rares: Rares::default(), deadlines: BTreeSet::new(), index: None }
    }
}

impl<T> Lanes<T> {
    /// Gives the memory up of what waited; nothing does, though tickets may be on their way to other lanes.
    pub(super) fn shrink(&mut self) {
        (self.lanes, self.index) = (Vec::new(), None);
    }

    /// Lets an item wait in that lane.
    #[inline(always)]
    pub(super) fn insert(&mut self, lane: LaneId, slot: Slot<T>) {
        let id = slot.id;
        if slot.details.is_dated()
            && let Some(deadline) = self.rares.of(slot.details).and_then(|rare| rare.deadline)
        {
            self.deadlines.insert((nanos(deadline), id, lane));
        }
        self.lane_mut(lane).insert(slot);
        if let Some(index) = &mut self.index {
            index.insert(id, lane);
        }
    }

    #[inline(always)]
    fn lane_mut(&mut self, lane: LaneId) -> &mut Lane<T> {
        if self.lanes.len() <= lane.index() {
            self.open(lane);
        }
        &mut self.lanes[lane.index()]
    }

    /// Makes a lane, and the index once there are too many of them.
    #[cold]
    fn open(&mut self, lane: LaneId) {
        if self.lanes.len() <= SEARCHED && lane.index() >= SEARCHED {
            let lanes = self.lanes.iter().zip((0..).map(LaneId::at));
            let mut all: Vec<_> =
                lanes.flat_map(|(lane, at)| lane.iter().map(move |slot| (slot.id, at))).collect();
            all.sort_unstable();
            let mut index = Index::default();
            all.into_iter().for_each(|(id, lane)| index.insert(id, lane));
            self.index = Some(index);
        }
        self.lanes.resize_with(lane.index() + 1, Lane::default);
    }

    /// Lets a batch of plain items, which came last, wait in that lane, which is the only one.
    pub(super) fn append(&mut self, lane: LaneId, batch: Batch<T>) {
        self.lane_mut(lane).append(batch);
    }

    /// Takes out the first of a lane, up to `most` and to the first that has something rare.
    #[inline(always)]
    pub(super) fn pop_run(&mut self, lane: LaneId, most: usize, run: &mut Run<'_, T>) {
        let Some(lane) = self.lanes.get_mut(lane.index()) else { return };
        let Some(index) = &mut self.index else { return lane.pop_run(most, run) };
        for _ in 0..most {
            let Some(slot) = lane.pop_if_plain() else { return };
            index.remove(slot.id);
            run.take(slot);
        }
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
        if slot.details.is_dated()
            && let Some(deadline) = self.rares.of(slot.details).and_then(|rare| rare.deadline)
        {
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

    pub(super) fn get(&self, id: TicketId) -> Option<Seen<'_, T>> {
        self.lanes[self.find(id)?.index()].get(id)
    }

    pub(super) fn get_mut(&mut self, id: TicketId) -> Option<&mut T> {
        let lane = self.find(id)?;
        self.lanes[lane.index()].get_mut(id)
    }

    /// Whether nothing waits in that lane.
    #[inline]
    pub(super) fn is_empty(&self, lane: LaneId) -> bool {
        self.lanes.get(lane.index()).is_none_or(Lane::is_empty)
    }

    /// The first of a lane.
    #[inline]
    pub(super) fn first(&self, lane: LaneId) -> Option<Seen<'_, T>> {
        self.lanes.get(lane.index())?.first()
    }

    /// The items of a lane, in order of arrival.
    pub(super) fn of(&self, lane: LaneId) -> impl Iterator<Item = Seen<'_, T>> {
        self.lanes.get(lane.index()).into_iter().flat_map(Lane::iter)
    }

    /// What serving an item costs.
    pub(super) fn cost(&self, details: Details) -> u64 {
        self.load(details).0
    }

    /// What serving an item costs, and its bytes.
    #[inline(always)]
    pub(super) fn load(&self, details: Details) -> (u64, u64) {
        let plain = (details.cost(), details.bytes());
        self.rares.of(details).map_or(plain, |rare| (rare.cost, rare.bytes))
    }

    /// The item that came first.
    pub(super) fn oldest(&self) -> Option<Seen<'_, T>> {
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
    pub(super) fn iter(&self) -> impl Iterator<Item = Seen<'_, T>> {
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
    Moment::of(time).nanos()
}
