//! Earliest deadline first; of equal ones, who came first. As long as work for less than all of the time arrives, this
//! order misses no deadline that any order could keep (Liu and Layland, "Scheduling Algorithms for Multiprogramming in
//! a Hard-Real-Time Environment", 1973).
//!
//! Items without a deadline come last, by arrival: they wait as long as any item with a deadline does. Give every item
//! a deadline where that would be too long.

use super::{Chosen, Discipline, Next, Policy};
use crate::queue::lanes::{LaneCount, LaneId, Lanes};
use crate::queue::packing::Details;
use crate::queue::{Owner, TicketId};

/// Those with a deadline have a lane of their own, and stand in order in [`Lanes::by_deadline`] already, because they
/// expire.
#[derive(Debug)]
pub(in crate::queue) struct EarliestDeadline;

impl Policy for EarliestDeadline {
    const LANES: LaneCount = LaneCount::Few;

    fn lane(&mut self, _owner: &Owner, details: Details) -> LaneId {
        LaneId::at(details.is_dated().into())
    }

    fn next<T>(&mut self, lanes: &Lanes<T>, _now: u64) -> Option<Next> {
        let dated = lanes.by_deadline().next().map(|(id, lane)| Next::Within(lane, id));
        Some(dated.unwrap_or(Next::First(LaneId::FIRST)))
    }

    fn order<T>(&self, lanes: &Lanes<T>, _now: u64) -> Vec<TicketId> {
        let dated = lanes.by_deadline().map(|(id, _)| id);
        dated.chain(lanes.of(LaneId::FIRST).map(|slot| slot.id)).collect()
    }
}

pub(super) const POLICY: Discipline = Discipline {
    name: "deadline",
    about: "the earliest deadline first; without one, last",
    build: |_| Chosen::Deadline(EarliestDeadline),
};
