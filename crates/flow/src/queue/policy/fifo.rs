//! First come, first served; levels and owners make no difference.

use super::{Chosen, Discipline, Next, Policy};
use crate::queue::lanes::{LaneCount, LaneId, Lanes};
use crate::queue::packing::Details;
use crate::queue::{Owner, TicketId};

#[derive(Debug)]
pub(in crate::queue) struct Fifo;

impl Policy for Fifo {
    const LANES: LaneCount = LaneCount::Few;

    #[inline]
    fn lane(&mut self, _owner: &Owner, _details: Details) -> LaneId {
        LaneId::FIRST
    }

    #[inline]
    fn stays(&self, _now: u64) -> bool {
        true
    }

    #[inline]
    fn next<T>(&mut self, _lanes: &Lanes<T>, _now: u64) -> Option<Next> {
        Some(Next::First(LaneId::FIRST))
    }

    fn order<T>(&self, lanes: &Lanes<T>, _now: u64) -> Vec<TicketId> {
        lanes.of(LaneId::FIRST).map(|slot| slot.id).collect()
    }
}

pub(super) const POLICY: Discipline =
    Discipline { name: "fifo", about: "first come, first served", build: |_| Chosen::Fifo(Fifo) };
