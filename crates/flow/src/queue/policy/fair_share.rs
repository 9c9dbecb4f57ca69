//! Every owner gets its share of what is served, counted by cost and in proportion to weights, however much any of them
//! asks for. That holds inside of a level. Between levels the more urgent goes first, and one that waits counts as one
//! level more urgent after every age step, until something of it is served.
//!
//! This is start-time fair queueing (Goyal, Vin and Cheng, 1996) with counters that are corrected afterwards, as in the
//! Virtual Token Counter (Sheng et al., "Fairness in Serving Large Language Models", 2024), because what an item costs
//! is often known only once it has been served. `fair_share/band.rs` says how.

mod accounts;
mod band;
mod turns;

use std::collections::BTreeMap;
use std::sync::Arc;

use accounts::Accounts;
use band::Band;

use super::{Chosen, Discipline, Next, Policy, PolicySettings, Served, aged};
use crate::queue::lanes::{LaneCount, LaneId, Lanes, nanos};
use crate::queue::packing::Details;
use crate::queue::{Owner, Ticket, TicketId};

/// A lane for each owner and level in which something of it waits.
#[derive(Debug)]
pub(in crate::queue) struct FairShare {
    accounts: Accounts,
    /// In the order in which levels came up. One that was used once stays; there are 256 at most, and mostly one.
    bands: Vec<Band>,
    /// In nanoseconds.
    age_step: u64,
}

/// What decides between levels; the smallest goes first. Of two that count alike, the one that has waited longer.
type Urgency = (u8, u64, u8);

impl FairShare {
    fn new(settings: &PolicySettings) -> Self {
        let (weights, age_step) = (Arc::new(settings.weights.clone()), nanos(settings.age_step));
        Self { accounts: Accounts::new(weights), bands: Vec::new(), age_step }
    }

    #[inline]
    fn band(bands: &mut Vec<Band>, level: u8) -> &mut Band {
        let at = bands.iter().position(|band| band.level() == level).unwrap_or_else(|| {
            bands.push(Band::new(level));
            bands.len() - 1
        });
        &mut bands[at]
    }

    /// The band of a lane, and all accounts.
    #[inline]
    fn band_of(&mut self, lane: LaneId) -> (&mut Band, &mut Accounts) {
        let level = self.accounts.of(lane).level;
        (Self::band(&mut self.bands, level), &mut self.accounts)
    }

    #[inline]
    fn urgency(&self, level: u8, since: u64, now: u64) -> Urgency {
        (aged(level, now.saturating_sub(since), self.age_step), since, level)
    }
}

impl Policy for FairShare {
    const LANES: LaneCount = LaneCount::Many;

    fn lane(&mut self, owner: &Owner, details: Details) -> LaneId {
        let band = Self::band(&mut self.bands, details.level());
        self.accounts.open(details.level(), owner, band)
    }

    #[inline]
    fn joined(&mut self, lane: LaneId, id: TicketId, arrived: u64) {
        let (band, accounts) = self.band_of(lane);
        band.joined(lane, id, arrived, accounts);
    }

    fn left<T>(&mut self, lane: LaneId, lanes: &Lanes<T>) {
        let first = lanes.first(lane).map(|slot| slot.id);
        let (band, accounts) = self.band_of(lane);
        band.left(lane, first, accounts);
    }

    fn served<T>(&mut self, served: &Served, lanes: &Lanes<T>) {
        let first = lanes.first(served.lane).map(|slot| slot.id);
        let (band, accounts) = self.band_of(served.lane);
        band.served(served, first, accounts);
    }

    fn next<T>(&mut self, _lanes: &Lanes<T>, now: u64) -> Option<Next> {
        if let [band] = &*self.bands {
            return band.next().map(Next::First);
        }
        let waiting = self.bands.iter().filter(|band| !band.is_empty());
        let band = waiting.min_by_key(|band| self.urgency(band.level(), band.since(), now))?;
        band.next().map(Next::First)
    }

    fn order<T>(&self, lanes: &Lanes<T>, now: u64) -> Vec<TicketId> {
        let mut waiting: BTreeMap<Urgency, _> = BTreeMap::new();
        for band in &self.bands {
            let order = self.accounts.order(band.level(), lanes);
            waiting.insert(self.urgency(band.level(), band.since(), now), order.into_iter());
        }
        let mut order = Vec::new();
        while let Some(((_, _, level), mut band)) = waiting.pop_first() {
            if let Some(id) = band.next() {
                order.push(id);
                waiting.insert(self.urgency(level, now, now), band);
            }
        }
        order
    }

    fn charge(&mut self, ticket: &Ticket, actual: u64) {
        let band = Self::band(&mut self.bands, ticket.level);
        band.charge(ticket, actual, &mut self.accounts);
    }

    fn configure<T>(&mut self, settings: &PolicySettings, _lanes: &Lanes<T>) {
        self.age_step = nanos(settings.age_step);
        self.accounts.reweigh(Arc::new(settings.weights.clone()));
        self.bands.iter_mut().for_each(|band| band.reweigh(&self.accounts));
    }
}

pub(super) const POLICY: Discipline = Discipline {
    name: "fair_share",
    about: "owners share by cost and weight; inside of a level",
    build: |settings| Chosen::FairShare(FairShare::new(settings)),
};
