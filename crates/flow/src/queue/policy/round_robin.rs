//! Owners take turns, one item each; an owner's items leave in order of arrival. An owner of whom nothing waits loses
//! its turn and comes last when it returns, so nothing is gained by leaving, and an item waits for as many turns of
//! the others as items of its owner came before it.

use std::time::Duration;

use super::{Discipline, Policy};
use crate::queue::tickets::{OwnerId, Place, Run, Tickets};

#[derive(Debug, Default)]
struct RoundRobin {
    /// What waits of every owner, and who comes before and after it in the round. Where nothing waits, nothing of it
    /// counts. There are as many as there were owners at once.
    seats: Vec<Seat>,
    /// Whose turn it is. The one before it is the last of the round.
    turn: Option<OwnerId>,
}

#[derive(Debug, Default)]
struct Seat {
    run: Run,
    before: OwnerId,
    after: OwnerId,
}

impl RoundRobin {
    fn seat(&mut self, owner: OwnerId) -> &mut Seat {
        if self.seats.len() <= owner.index() {
            self.seats.resize_with(owner.index() + 1, Seat::default);
        }
        &mut self.seats[owner.index()]
    }

    /// Adds an owner at the end of the round.
    fn sit_down(&mut self, owner: OwnerId) {
        let turn = *self.turn.get_or_insert(owner);
        let last = if turn == owner { owner } else { self.seat(turn).before };
        let seat = self.seat(owner);
        (seat.before, seat.after) = (last, turn);
        self.seat(last).after = owner;
        self.seat(turn).before = owner;
    }

    fn stand_up(&mut self, owner: OwnerId) {
        let &mut Seat { before, after, .. } = self.seat(owner);
        self.seat(before).after = after;
        self.seat(after).before = before;
        if self.turn == Some(owner) {
            self.turn = (after != owner).then_some(after);
        }
    }

    /// Owners of whom something waits, from the one whose turn it is.
    fn round(&self) -> impl Iterator<Item = &Seat> {
        let mut next = self.turn;
        std::iter::from_fn(move || {
            let seat = &self.seats[next?.index()];
            next = Some(seat.after).filter(|after| Some(*after) != self.turn);
            Some(seat)
        })
    }
}

impl Policy for RoundRobin {
    fn join(&mut self, place: Place, tickets: &mut Tickets) {
        let owner = tickets.owner(place);
        if self.seat(owner).run.is_empty() {
            self.sit_down(owner);
        }
        self.seat(owner).run.join(place, tickets);
    }

    fn leave(&mut self, place: Place, tickets: &mut Tickets) {
        let owner = tickets.owner(place);
        self.seat(owner).run.leave(place, tickets);
        if self.seat(owner).run.is_empty() {
            self.stand_up(owner);
        }
    }

    fn serve(&mut self, place: Place, tickets: &mut Tickets, _now: Duration) {
        let owner = tickets.owner(place);
        self.turn = Some(self.seat(owner).after);
        self.leave(place, tickets);
    }

    fn next(&self, tickets: &Tickets, _now: Duration) -> Option<Place> {
        self.seats[self.turn?.index()].run.first(tickets)
    }

    fn order(&self, tickets: &Tickets, _now: Duration) -> Vec<Place> {
        let mut runs: Vec<_> = self.round().map(|seat| seat.run.iter(tickets)).collect();
        let mut order = Vec::new();
        while !runs.is_empty() {
            runs.retain_mut(|run| run.next().inspect(|place| order.push(*place)).is_some());
        }
        order
    }
}

pub(super) const POLICY: Discipline = Discipline {
    name: "round_robin",
    about: "owners take turns, one item each",
    build: |_| Box::new(RoundRobin::default()),
};
