//! Owners take turns, one item each; an owner's items leave in order of arrival. An owner of whom nothing waits loses
//! its turn and comes last when it returns, so nothing is gained by leaving, and an item waits for as many turns of
//! the others as items of its owner came before it.

use super::{Chosen, Discipline, Next, Policy, Served};
use crate::queue::lanes::{LaneCount, LaneId, Lanes};
use crate::queue::owners::{OwnerId, Owners};
use crate::queue::packing::Details;
use crate::queue::{Owner, TicketId};

/// A lane for each owner, with the owner's number.
#[derive(Debug, Default)]
pub(in crate::queue) struct RoundRobin {
    owners: Owners,
    /// Who comes before and after each in the round. There are as many as there were owners at once.
    seats: Vec<Seat>,
    /// Whose turn it is. The one before it is the last of the round.
    turn: Option<OwnerId>,
}

#[derive(Clone, Copy, Debug)]
struct Seat {
    before: OwnerId,
    after: OwnerId,
    is_taken: bool,
}

fn lane_of(owner: OwnerId) -> LaneId {
    LaneId::at(owner.index())
}

impl RoundRobin {
    fn seat(&mut self, owner: OwnerId) -> &mut Seat {
        &mut self.seats[owner.index()]
    }

    /// Adds an owner at the end of the round.
    fn sit_down(&mut self, owner: OwnerId) {
        let turn = *self.turn.get_or_insert(owner);
        let last = if turn == owner { owner } else { self.seat(turn).before };
        *self.seat(owner) = Seat { before: last, after: turn, is_taken: true };
        self.seat(last).after = owner;
        self.seat(turn).before = owner;
        self.owners.hold(owner);
    }

    fn stand_up(&mut self, owner: OwnerId) {
        let seat = self.seat(owner);
        seat.is_taken = false;
        let Seat { before, after, .. } = *seat;
        self.seat(before).after = after;
        self.seat(after).before = before;
        if self.turn == Some(owner) {
            self.turn = (after != owner).then_some(after);
        }
        self.owners.release(owner);
    }

    /// Owners of whom something waits, from the one whose turn it is.
    fn round(&self) -> impl Iterator<Item = OwnerId> {
        let mut next = self.turn;
        std::iter::from_fn(move || {
            let owner = next?;
            next = Some(self.seats[owner.index()].after).filter(|after| Some(*after) != self.turn);
            Some(owner)
        })
    }
}

impl Policy for RoundRobin {
    const LANES: LaneCount = LaneCount::Many;

    #[inline]
    fn lane(&mut self, owner: &Owner, _details: Details) -> LaneId {
        let owner = self.owners.id(owner);
        if self.seats.len() <= owner.index() {
            self.seats.resize(owner.index() + 1, Seat { before: owner, after: owner, is_taken: false });
        }
        lane_of(owner)
    }

    #[inline]
    fn joined(&mut self, lane: LaneId, _id: TicketId, _arrived: u64) {
        let owner = OwnerId::at(lane.index());
        if !self.seat(owner).is_taken {
            self.sit_down(owner);
        }
    }

    #[inline]
    fn left<T>(&mut self, lane: LaneId, lanes: &Lanes<T>) {
        if lanes.is_empty(lane) {
            self.stand_up(OwnerId::at(lane.index()));
        }
    }

    #[inline]
    fn served<T>(&mut self, served: &Served, lanes: &Lanes<T>) {
        self.turn = Some(self.seat(OwnerId::at(served.lane.index())).after);
        self.left(served.lane, lanes);
    }

    #[inline]
    fn next<T>(&mut self, _lanes: &Lanes<T>, _now: u64) -> Option<Next> {
        self.turn.map(|owner| Next::First(lane_of(owner)))
    }

    fn order<T>(&self, lanes: &Lanes<T>, _now: u64) -> Vec<TicketId> {
        let mut waiting: Vec<_> = self.round().map(|owner| lanes.of(lane_of(owner))).collect();
        let mut order = Vec::new();
        while !waiting.is_empty() {
            waiting.retain_mut(|lane| lane.next().inspect(|slot| order.push(slot.id)).is_some());
        }
        order
    }
}

pub(super) const POLICY: Discipline = Discipline {
    name: "round_robin",
    about: "owners take turns, one item each",
    build: |_| Chosen::RoundRobin(RoundRobin::default()),
};
