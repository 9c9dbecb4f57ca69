//! First come, first served; levels and owners make no difference.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Discipline, Policy};
use crate::queue::{Ticket, TicketId};

#[derive(Debug, Default)]
struct Fifo {
    line: BTreeSet<TicketId>,
}

impl Policy for Fifo {
    fn join(&mut self, id: TicketId, _ticket: &Ticket, _arrived: Duration) {
        self.line.insert(id);
    }

    fn leave(&mut self, id: TicketId, _ticket: &Ticket) {
        self.line.remove(&id);
    }

    fn next(&self, _now: Duration) -> Option<TicketId> {
        self.line.first().copied()
    }

    fn order(&self, _now: Duration) -> Vec<TicketId> {
        self.line.iter().copied().collect()
    }
}

pub(super) const POLICY: Discipline =
    Discipline { name: "fifo", about: "first come, first served", build: || Box::new(Fifo::default()) };
