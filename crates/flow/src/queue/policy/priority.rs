//! The most urgent level first, and inside of a level first come, first served. Waiting raises urgency: after every
//! [`AGE_STEP`] a ticket counts as one level more urgent, until it is level with the most urgent ones. From then on
//! only tickets that came before it go first, so nothing waits longer than `level × AGE_STEP` plus the service of
//! those.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Discipline, Policy};
use crate::queue::{Ticket, TicketId};

/// The length of a few requests: shorter, and levels would mean nothing under load; longer, and the lowest level would
/// wait for minutes although nobody decided that it should.
pub(in crate::queue) const AGE_STEP: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct Priority {
    /// Arrivals by level. In a level the first arrival has waited longest, so it is at least as urgent as the rest.
    levels: BTreeMap<u8, BTreeMap<TicketId, Duration>>,
}

/// What a level counts as after waiting since `arrived`.
fn effective(level: u8, arrived: Duration, now: Duration) -> u8 {
    let steps = now.saturating_sub(arrived).as_nanos() / AGE_STEP.as_nanos();
    level.saturating_sub(u8::try_from(steps).unwrap_or(u8::MAX))
}

impl Policy for Priority {
    fn join(&mut self, id: TicketId, ticket: &Ticket, arrived: Duration) {
        self.levels.entry(ticket.level).or_default().insert(id, arrived);
    }

    fn leave(&mut self, id: TicketId, ticket: &Ticket) {
        if let Some(line) = self.levels.get_mut(&ticket.level) {
            line.remove(&id);
            if line.is_empty() {
                self.levels.remove(&ticket.level);
            }
        }
    }

    fn next(&self, now: Duration) -> Option<TicketId> {
        let heads = self.levels.iter().filter_map(|(level, line)| {
            let (id, arrived) = line.first_key_value()?;
            Some((effective(*level, *arrived, now), *id))
        });
        heads.min().map(|(_, id)| id)
    }

    fn order(&self, now: Duration) -> Vec<TicketId> {
        let tickets = self.levels.iter().flat_map(|(level, line)| {
            line.iter().map(|(id, arrived)| (effective(*level, *arrived, now), *id))
        });
        let mut ranked: Vec<_> = tickets.collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, id)| id).collect()
    }
}

pub(super) const POLICY: Discipline = Discipline {
    name: "priority",
    about: "the most urgent first; waiting raises urgency, so nothing starves",
    build: || Box::new(Priority::default()),
};
