//! Earliest deadline first; of equal ones, who came first. As long as work for less than all of the time arrives, this
//! order misses no deadline that any order could keep (Liu and Layland, "Scheduling Algorithms for Multiprogramming in
//! a Hard-Real-Time Environment", 1973).
//!
//! Items without a deadline come last, by arrival: they wait as long as any item with a deadline does. Give every item
//! a deadline where that would be too long.

use std::time::Duration;

use super::{Discipline, Policy};
use crate::queue::tickets::{Place, Run, Tickets};

#[derive(Debug, Default)]
struct EarliestDeadline {
    /// Those without a deadline. The others stand in order in [`Tickets::by_deadline`] already, because they expire.
    undated: Run,
}

impl Policy for EarliestDeadline {
    fn join(&mut self, place: Place, tickets: &mut Tickets) {
        if tickets.deadline(place).is_none() {
            self.undated.join(place, tickets);
        }
    }

    fn leave(&mut self, place: Place, tickets: &mut Tickets) {
        if tickets.deadline(place).is_none() {
            self.undated.leave(place, tickets);
        }
    }

    fn next(&self, tickets: &Tickets, _now: Duration) -> Option<Place> {
        tickets.by_deadline().next().or_else(|| self.undated.first(tickets))
    }

    fn order(&self, tickets: &Tickets, _now: Duration) -> Vec<Place> {
        tickets.by_deadline().chain(self.undated.iter(tickets)).collect()
    }
}

pub(super) const POLICY: Discipline = Discipline {
    name: "deadline",
    about: "the earliest deadline first; without one, last",
    build: |_| Box::new(EarliestDeadline::default()),
};
