//! Every owner gets its share of what is served, counted by cost and in proportion to weights, however much any of them
//! asks for. That holds inside of a level. Between levels the more urgent goes first, and one that waits counts as one
//! level more urgent after every age step, until something of it is served.
//!
//! This is start-time fair queueing (Goyal, Vin and Cheng, 1996) with counters that are corrected afterwards, as in the
//! Virtual Token Counter (Sheng et al., "Fairness in Serving Large Language Models", 2024), because what an item costs
//! is often known only once it has been served. `fair_share/band.rs` says how.

mod band;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use band::{Band, Weights};

use super::{Discipline, Policy, PolicySettings, aged};
use crate::queue::Ticket;
use crate::queue::tickets::{Place, Tickets, nanos};

#[derive(Debug)]
struct FairShare {
    /// By level. One that was used once stays; there are 256 at most.
    bands: Vec<(u8, Band)>,
    weights: Arc<Weights>,
    /// In nanoseconds.
    age_step: u64,
}

/// What decides between levels; the smallest goes first. Of two that count alike, the one that has waited longer.
type Urgency = (u8, u64, u8);

impl FairShare {
    fn new(settings: &PolicySettings) -> Self {
        let (weights, age_step) = (Arc::new(settings.weights.clone()), nanos(settings.age_step));
        Self { bands: Vec::new(), weights, age_step }
    }

    fn band(&mut self, level: u8) -> &mut Band {
        let at = self.bands.binary_search_by_key(&level, |(level, _)| *level).unwrap_or_else(|at| {
            self.bands.insert(at, (level, Band::new(self.weights.clone())));
            at
        });
        &mut self.bands[at].1
    }

    fn urgency(&self, level: u8, since: u64, now: u64) -> Urgency {
        (aged(level, now.saturating_sub(since), self.age_step), since, level)
    }

    /// The level that is served next.
    fn level(&self, now: Duration) -> Option<&Band> {
        let now = nanos(now);
        let waiting = self.bands.iter().filter(|(_, band)| !band.is_empty());
        waiting.min_by_key(|(level, band)| self.urgency(*level, band.since(), now)).map(|(_, band)| band)
    }
}

impl Policy for FairShare {
    fn join(&mut self, place: Place, tickets: &mut Tickets) {
        self.band(tickets.level(place)).join(place, tickets);
    }

    fn leave(&mut self, place: Place, tickets: &mut Tickets) {
        self.band(tickets.level(place)).leave(place, tickets);
    }

    fn serve(&mut self, place: Place, tickets: &mut Tickets, now: Duration) {
        self.band(tickets.level(place)).serve(place, tickets, nanos(now));
    }

    fn next(&self, _tickets: &Tickets, now: Duration) -> Option<Place> {
        self.level(now)?.next()
    }

    fn order(&self, tickets: &Tickets, now: Duration) -> Vec<Place> {
        let now = nanos(now);
        let mut waiting: BTreeMap<Urgency, _> = BTreeMap::new();
        for (level, band) in &self.bands {
            let order = band.order(tickets);
            waiting.insert(self.urgency(*level, band.since(), now), order.into_iter());
        }
        let mut order = Vec::new();
        while let Some(((_, _, level), mut band)) = waiting.pop_first() {
            if let Some(place) = band.next() {
                order.push(place);
                waiting.insert(self.urgency(level, now, now), band);
            }
        }
        order
    }

    fn charge(&mut self, ticket: &Ticket, actual: u64, tickets: &mut Tickets) {
        self.band(ticket.level).charge(ticket, actual, tickets);
    }

    fn configure(&mut self, settings: &PolicySettings, tickets: &mut Tickets) {
        self.age_step = nanos(settings.age_step);
        self.weights = Arc::new(settings.weights.clone());
        self.bands.iter_mut().for_each(|(_, band)| band.reweigh(&self.weights, tickets));
    }

    fn retire(&mut self, tickets: &mut Tickets) {
        self.bands.iter_mut().for_each(|(_, band)| band.retire(tickets));
    }
}

pub(super) const POLICY: Discipline = Discipline {
    name: "fair_share",
    about: "owners share by cost and weight; inside of a level",
    build: |settings| Box::new(FairShare::new(settings)),
};
