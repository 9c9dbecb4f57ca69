//! The most urgent level first, and inside of a level first come, first served. Waiting raises urgency: after every
//! age step a ticket counts as one level more urgent, until it is level with the most urgent ones. From then on only
//! tickets that came before it go first, so nothing waits longer than `level × age step` plus the service of those.

use std::time::Duration;

use super::{Discipline, Policy, PolicySettings};
use crate::queue::TicketId;
use crate::queue::tickets::{Place, Run, Tickets, nanos};

#[derive(Debug)]
struct Priority {
    /// The most urgent first. In a level the first arrival has waited longest, so it is at least as urgent as the rest.
    /// A level that was used once stays; there are 256 at most.
    levels: Vec<(u8, Run)>,
    /// In nanoseconds.
    age_step: u64,
}

impl Priority {
    /// Whether a ticket of that level that came then has become as urgent as `rank`, at least.
    #[inline]
    fn reaches(&self, rank: u8, level: u8, arrived: u64, now: u64) -> bool {
        let steps = u64::from(level.saturating_sub(rank));
        now.saturating_sub(arrived) >= steps.saturating_mul(self.age_step.max(1))
    }

    fn rank(&self, level: u8, place: Place, tickets: &Tickets, now: u64) -> (u8, TicketId) {
        let waited = now.saturating_sub(tickets.arrived(place));
        (super::aged(level, waited, self.age_step), tickets.id(place))
    }
}

impl Policy for Priority {
    fn join(&mut self, place: Place, tickets: &mut Tickets) {
        let level = tickets.level(place);
        let at = self.levels.binary_search_by_key(&level, |(level, _)| *level).unwrap_or_else(|at| {
            self.levels.insert(at, (level, Run::default()));
            at
        });
        self.levels[at].1.join(place, tickets);
    }

    fn leave(&mut self, place: Place, tickets: &mut Tickets) {
        if let Ok(at) = self.levels.binary_search_by_key(&tickets.level(place), |(level, _)| *level) {
            self.levels[at].1.leave(place, tickets);
        }
    }

    fn next(&self, tickets: &Tickets, now: Duration) -> Option<Place> {
        let now = nanos(now);
        let mut heads = self.levels.iter().filter_map(|(level, run)| Some((*level, run.first(tickets)?)));
        let (level, mut best) = heads.next()?;
        let mut rank = self.rank(level, best, tickets, now);
        for (level, place) in heads {
            // Hardly any has waited so long, and asking that is cheaper than how urgent it has become.
            if self.reaches(rank.0, level, tickets.arrived(place), now) {
                let other = self.rank(level, place, tickets, now);
                if other < rank {
                    (rank, best) = (other, place);
                }
            }
        }
        Some(best)
    }

    fn order(&self, tickets: &Tickets, now: Duration) -> Vec<Place> {
        let now = nanos(now);
        let all = self.levels.iter().flat_map(|(level, run)| run.iter(tickets).map(|place| (*level, place)));
        let mut ranked: Vec<_> =
            all.map(|(level, place)| (self.rank(level, place, tickets, now), place)).collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, place)| place).collect()
    }

    fn configure(&mut self, settings: &PolicySettings, _tickets: &mut Tickets) {
        self.age_step = nanos(settings.age_step);
    }
}

pub(super) const POLICY: Discipline = Discipline {
    name: "priority",
    about: "the most urgent first; waiting raises urgency, so nothing starves",
    build: |settings| Box::new(Priority { levels: Vec::new(), age_step: nanos(settings.age_step) }),
};
