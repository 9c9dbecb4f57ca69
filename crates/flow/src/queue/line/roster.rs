//! The tickets of a line under its policy: all of a line but its items and its bounds. It does not depend on the type
//! of the items, so it is compiled once.

use std::collections::BTreeSet;
use std::time::Duration;

use super::index::Index;
use crate::queue::policy::{Policy, PolicySettings};
use crate::queue::tickets::{Place, Tickets};
use crate::queue::{Ticket, TicketId};

pub(super) struct Roster {
    policy: Box<dyn Policy>,
    settings: PolicySettings,
    tickets: Tickets,
    index: Index,
    /// Tickets whose deadline has passed: gone from the policy, not yet handed out.
    overdue: BTreeSet<TicketId>,
    cost: u64,
    bytes: u64,
    next_id: u64,
    now: Duration,
}

/// A ticket that has gone, and where its item still lies.
pub(super) struct Gone {
    pub(super) place: Place,
    pub(super) id: TicketId,
    pub(super) ticket: Ticket,
    pub(super) arrived: Duration,
}

impl Roster {
    pub(super) fn new(settings: PolicySettings) -> Self {
        Self {
            policy: settings.build(),
            settings,
            tickets: Tickets::default(),
            index: Index::default(),
            overdue: BTreeSet::new(),
            cost: 0,
            bytes: 0,
            next_id: 0,
            now: Duration::ZERO,
        }
    }

    /// Moves time on and takes from the policy what has become overdue.
    pub(super) fn advance(&mut self, now: Duration) {
        self.now = self.now.max(now);
        while let Some(place) = self.tickets.next_overdue(self.now) {
            self.policy.leave(place, &mut self.tickets);
            self.tickets.give_up(place);
            self.overdue.insert(self.tickets.id(place));
        }
    }

    /// Takes in a new ticket.
    pub(super) fn enter(&mut self, ticket: Ticket) -> (TicketId, Place) {
        let id = TicketId(self.next_id);
        (id, self.admit(id, ticket, self.now))
    }

    /// Takes in a ticket that has an id and an arrival.
    pub(super) fn admit(&mut self, id: TicketId, ticket: Ticket, arrived: Duration) -> Place {
        self.next_id = self.next_id.max(id.0 + 1);
        self.cost = self.cost.saturating_add(ticket.cost);
        self.bytes = self.bytes.saturating_add(ticket.bytes);
        let place = self.tickets.enter(id, ticket, arrived);
        self.index.insert(id, place);
        self.policy.join(place, &mut self.tickets);
        place
    }

    /// The ticket that is served next.
    pub(super) fn next(&mut self, now: Duration) -> Option<Place> {
        self.advance(now);
        self.policy.next(&self.tickets, self.now)
    }

    /// Takes out the ticket that is served next.
    pub(super) fn serve(&mut self, now: Duration) -> Option<Gone> {
        let place = self.next(now)?;
        self.policy.serve(place, &mut self.tickets, self.now);
        Some(self.let_go(place))
    }

    /// Takes out a ticket that is not served.
    pub(super) fn withdraw(&mut self, place: Place) -> Gone {
        if self.tickets.is_overdue(place) {
            self.overdue.remove(&self.tickets.id(place));
        } else {
            self.policy.leave(place, &mut self.tickets);
        }
        self.let_go(place)
    }

    /// Takes out a ticket that the policy has let go.
    fn let_go(&mut self, place: Place) -> Gone {
        let (id, ticket, arrived) = self.tickets.exit(place);
        self.index.remove(id);
        self.cost = self.cost.saturating_sub(ticket.cost);
        self.bytes = self.bytes.saturating_sub(ticket.bytes);
        Gone { place, id, ticket, arrived }
    }

    /// The ticket that came first of those whose deadline has passed.
    pub(super) fn first_overdue(&self) -> Option<Place> {
        self.find(*self.overdue.first()?)
    }

    /// The next moment at which a deadline passes, or the present one if that has happened.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        if self.overdue.is_empty() { self.tickets.next_deadline() } else { Some(self.now) }
    }

    pub(super) fn set_policy(&mut self, settings: PolicySettings) {
        if settings.discipline == self.settings.discipline {
            self.policy.configure(&settings, &mut self.tickets);
        } else {
            let mut next = settings.build();
            let waiting: Vec<Place> =
                self.places().filter(|place| !self.tickets.is_overdue(*place)).collect();
            waiting.iter().for_each(|place| self.policy.leave(*place, &mut self.tickets));
            waiting.iter().for_each(|place| next.join(*place, &mut self.tickets));
            self.policy.retire(&mut self.tickets);
            self.policy = next;
        }
        self.settings = settings;
    }

    pub(super) fn policy(&self) -> &dyn Policy {
        &*self.policy
    }

    pub(super) fn settings(&self) -> &PolicySettings {
        &self.settings
    }

    pub(super) fn charge(&mut self, ticket: &Ticket, actual: u64) {
        self.policy.charge(ticket, actual, &mut self.tickets);
    }

    pub(super) fn order(&mut self, now: Duration) -> Vec<TicketId> {
        self.advance(now);
        let places = self.policy.order(&self.tickets, self.now);
        places.into_iter().map(|place| self.tickets.id(place)).collect()
    }

    /// Where a ticket stands.
    pub(super) fn find(&self, id: TicketId) -> Option<Place> {
        self.index.get(id)
    }

    pub(super) fn id(&self, place: Place) -> TicketId {
        self.tickets.id(place)
    }

    pub(super) fn ticket(&self, place: Place) -> Ticket {
        self.tickets.ticket(place)
    }

    /// All tickets, in order of arrival.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        self.index.iter()
    }

    pub(super) fn oldest_arrival(&self) -> Option<Duration> {
        self.index.first().map(|oldest| Duration::from_nanos(self.tickets.arrived(oldest)))
    }

    /// The ticket that came last of those that are not overdue.
    pub(super) fn newest(&self) -> Option<TicketId> {
        let newest = self.index.iter_back().find(|place| !self.tickets.is_overdue(*place));
        newest.map(|place| self.tickets.id(place))
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn cost(&self) -> u64 {
        self.cost
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives up the memory of tickets that have gone; there must be no other.
    pub(super) fn clear(&mut self) {
        self.tickets.clear();
    }
}
