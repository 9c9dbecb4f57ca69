//! First come, first served; levels and owners make no difference.

use std::time::Duration;

use super::{Discipline, Policy};
use crate::queue::tickets::{Place, Run, Tickets};

#[derive(Debug, Default)]
struct Fifo {
    run: Run,
}

impl Policy for Fifo {
    fn join(&mut self, place: Place, tickets: &mut Tickets) {
        self.run.join(place, tickets);
    }

    fn leave(&mut self, place: Place, tickets: &mut Tickets) {
        self.run.leave(place, tickets);
    }

    fn next(&self, tickets: &Tickets, _now: Duration) -> Option<Place> {
        self.run.first(tickets)
    }

    fn order(&self, tickets: &Tickets, _now: Duration) -> Vec<Place> {
        self.run.iter(tickets).collect()
    }
}

pub(super) const POLICY: Discipline =
    Discipline { name: "fifo", about: "first come, first served", build: |_| Box::new(Fifo::default()) };
