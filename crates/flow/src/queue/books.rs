//! All that a queue knows, without tasks, locks or a clock: the line, what is out on lease or put off, the dead, and
//! the rules by which items come and go.
//!
//! How items come in stands in `admission.rs`, how they come back in `returns.rs`; here is how they are handed out.

mod admission;
mod returns;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::dead_letters::Graveyard;
use super::exchange::{Progress, Stock};
use super::gone::{Aftermath, Gone, Why};
use super::journal::Journal;
use super::keys::Keys;
use super::leases::{LeaseId, Leases};
use super::overload::{Overload, Service};
use super::settings::Settings;
use super::stats::Tally;
use super::store::Entry;
use super::stored::Stored;
use super::throttle::Throttle;
use super::{Capacity, Line, Stats, Taken, Ticket, TicketId, UpTo};
use crate::metrics::HistogramSnapshot;
use crate::rate::DrainRate;

pub(super) use admission::{Answer, Offer, Parcel, Patience};

/// The window over which the speed of the queue is measured, and how often it is brought up to date.
const FLOW_WINDOW: Duration = Duration::from_secs(60);
const FLOW_STEP: Duration = Duration::from_millis(50);

pub(super) struct Books<T> {
    pub(super) settings: Settings<T>,
    pub(super) line: Line<Stored<T>>,
    pub(super) now: Duration,
    pub(super) next_id: u64,
    /// Room that is taken by items which are not in the line: put off, or not yet on disk.
    outside: Load,
    /// Items that their takers gave back, by the time at which they may be taken again.
    pub(super) put_off: BTreeMap<(Duration, TicketId), Taken<Stored<T>>>,
    pub(super) leases: Leases<T>,
    /// Items that are out, on a lease that runs out or not.
    pub(super) in_flight: usize,
    pub(super) dead: Graveyard<T>,
    pub(super) keys: Option<Keys>,
    pub(super) throttle: Throttle,
    overload: Option<Overload>,
    pub(super) service: Service,
    pub(super) tally: Tally,
    pub(super) flow: Flow,
    pub(super) journal: Option<Journal>,
    gone: Vec<Gone<T>>,
    /// Woken when the queue is closed and nothing is left in it.
    pub(super) rest: Arc<Notify>,
    /// Something falls due then, or later; never before.
    due: Duration,
}

/// Room that items take up.
#[derive(Clone, Copy, Default)]
struct Load {
    items: usize,
    cost: u64,
    bytes: u64,
}

impl Load {
    fn add(&mut self, ticket: &Ticket) {
        self.items += 1;
        self.cost = self.cost.saturating_add(ticket.cost);
        self.bytes = self.bytes.saturating_add(ticket.bytes);
    }

    fn subtract(&mut self, ticket: &Ticket) {
        self.items = self.items.saturating_sub(1);
        self.cost = self.cost.saturating_sub(ticket.cost);
        self.bytes = self.bytes.saturating_sub(ticket.bytes);
    }
}

/// How fast items leave, measured in steps so that taking one costs a count.
pub(super) struct Flow {
    rate: DrainRate,
    left: u64,
    next: Duration,
}

impl Flow {
    fn settle(&mut self, now: Duration) {
        if self.left > 0 {
            self.rate.record(self.left, now);
            self.left = 0;
        } else {
            self.rate.idle(now);
        }
        self.next = now.saturating_add(FLOW_STEP);
    }

    pub(super) fn per_second(&mut self, now: Duration) -> Option<f64> {
        self.settle(now);
        self.rate.per_second(now)
    }
}

/// What a taker asks for.
pub(super) struct Want<T> {
    pub(super) way: Way,
    /// At most so many.
    pub(super) most: usize,
    /// At most so much cost, unless the first item alone is dearer.
    pub(super) cost: u64,
    pub(super) got: Vec<Goods<T>>,
    /// The first one, which most takers are content with.
    pub(super) first: Option<Goods<T>>,
}

/// What taking an item means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It is out until it is acknowledged.
    Lease,
    /// It is gone.
    ForGood,
}

/// An item that was handed out.
pub(super) struct Goods<T> {
    pub(super) taken: Taken<Stored<T>>,
    pub(super) since: Duration,
    pub(super) attempt: u32,
    /// For a lease that runs out.
    pub(super) lease: Option<LeaseId>,
    /// What serving it has cost, if its taker said so.
    pub(super) charged: Option<u64>,
}

impl<T> Want<T> {
    pub(super) fn new(way: Way, up_to: UpTo) -> Self {
        Self { way, most: up_to.items, cost: up_to.cost, got: Vec::new(), first: None }
    }
}

impl<T> Books<T> {
    pub(super) fn new(settings: Settings<T>) -> Self {
        let mut throttle = Throttle::default();
        throttle.limit_all(settings.rate);
        throttle.limit_each(settings.owner_rate);
        let rate = DrainRate::new(FLOW_WINDOW, Duration::ZERO);
        Self {
            line: Line::new(Capacity::UNBOUNDED, settings.policy.clone()),
            now: Duration::ZERO,
            next_id: 0,
            outside: Load::default(),
            put_off: BTreeMap::new(),
            leases: Leases::new(),
            in_flight: 0,
            dead: Graveyard::new(settings.dead_letters),
            keys: settings.window.map(Keys::new),
            throttle,
            overload: settings.overload.map(Overload::new),
            service: Service::default(),
            tally: Tally::default(),
            flow: Flow { rate, left: 0, next: Duration::ZERO },
            journal: None,
            gone: Vec::new(),
            rest: Arc::new(Notify::new()),
            due: Duration::MAX,
            settings,
        }
    }

    /// Items that wait, the ones that are put off or on their way to the disk among them.
    pub(super) fn depth(&self) -> usize {
        self.line.len() + self.outside.items
    }

    pub(super) fn cost(&self) -> u64 {
        self.line.cost().saturating_add(self.outside.cost)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.line.bytes().saturating_add(self.outside.bytes)
    }

    /// Whether nothing is left that a taker could ever get, unless something is put.
    pub(super) fn is_at_rest(&self) -> bool {
        self.in_flight == 0 && self.depth() == 0
    }

    /// Takes the next item that is not too late.
    fn take_next(&mut self) -> Option<Taken<Stored<T>>> {
        loop {
            let taken = self.line.take(self.now)?;
            self.flow.left += 1;
            let waited = self.now.saturating_sub(taken.arrived);
            let service = self.service.median();
            let is_fresh = taken.item.past.is_none();
            if let Some(overload) = &mut self.overload
                && is_fresh
                && overload.lets_go(waited, service, self.now)
            {
                self.tally.shed += 1;
                self.let_go(taken, Why::Overload);
                continue;
            }
            return Some(taken);
        }
    }

    /// The cost of the item that is next.
    fn next_cost(&mut self) -> Option<u64> {
        self.line.next_ticket(self.now).map(|(_, ticket)| ticket.cost)
    }

    fn hand_out(&mut self, taken: Taken<Stored<T>>, way: Way) -> Goods<T> {
        self.tally.taken += 1;
        let attempt = taken.item.attempts() + 1;
        if let Way::ForGood = way {
            self.tally.done += 1;
            self.mention(Entry::Done { id: taken.id });
            return Goods { taken, since: self.now, attempt, lease: None, charged: None };
        }
        self.mention(Entry::Taken { id: taken.id, attempt });
        self.in_flight += 1;
        let lease = self.settings.visibility.as_ref().map(|visibility| {
            let Taken { item: Stored { item, past }, id, ticket, arrived } = &taken;
            let copy = Stored { item: (visibility.copy)(item), past: past.clone() };
            let copy = Taken { item: copy, id: *id, ticket: ticket.clone(), arrived: *arrived };
            self.leases.grant(copy, self.now, self.now.saturating_add(visibility.time))
        });
        self.due = self.due.min(self.leases.due());
        Goods { taken, since: self.now, attempt, lease, charged: None }
    }

    /// Lets an item go that nobody took.
    fn let_go(&mut self, taken: Taken<Stored<T>>, why: Why) {
        self.mention(Entry::Done { id: taken.id });
        self.gone.push(Gone::new(taken, why));
    }

    fn mention(&mut self, entry: Entry<'_>) {
        if let Some(journal) = &mut self.journal {
            journal.mention(entry);
        }
    }

    /// Something may fall due at that time.
    pub(super) fn expect(&mut self, due: Duration) {
        self.due = self.due.min(due);
    }

    pub(super) fn stats(&mut self, waits: HistogramSnapshot) -> Stats {
        let put_off = self.put_off.values().map(|taken| self.now.saturating_sub(taken.arrived)).max();
        Stats {
            depth: self.depth(),
            cost: self.cost(),
            bytes: self.bytes(),
            oldest: self.line.oldest_age(self.now).max(put_off),
            in_flight: self.in_flight,
            dead_letters: self.dead.letters.len(),
            per_second: self.flow.per_second(self.now),
            service: self.service.median(),
            waits,
            totals: self.tally,
        }
    }
}

impl<T> Stock for Books<T> {
    type Offer = Offer<T>;
    type Want = Want<T>;
    type Aftermath = Aftermath<T>;

    fn advance(&mut self, now: Duration) {
        self.now = self.now.max(now);
        if self.due <= self.now {
            self.let_happen_what_is_due();
        }
        if self.flow.next <= self.now {
            self.flow.settle(self.now);
        }
    }

    fn accept(&mut self, offer: &mut Offer<T>) -> Progress {
        self.consider(offer)
    }

    fn turn_away(&mut self, offer: &mut Offer<T>) {
        self.decline(offer);
    }

    fn abandon(&mut self, offer: Offer<T>) -> Option<Offer<T>> {
        self.finish_abandoned(offer)
    }

    fn fill(&mut self, want: &mut Want<T>) -> bool {
        if want.first.is_none() {
            let Some(first) = self.take_next() else {
                return self.line.is_closed() && self.is_at_rest();
            };
            want.cost = want.cost.saturating_sub(first.ticket.cost);
            want.first = Some(self.hand_out(first, want.way));
        }
        while want.got.len() + 1 < want.most {
            let fits = want.cost == u64::MAX || self.next_cost().is_some_and(|cost| cost <= want.cost);
            let Some(next) = fits.then(|| self.take_next()).flatten() else { break };
            if want.cost != u64::MAX {
                want.cost = want.cost.saturating_sub(next.ticket.cost);
            }
            let goods = self.hand_out(next, want.way);
            want.got.push(goods);
        }
        true
    }

    fn appetite(want: &Want<T>) -> u32 {
        u32::try_from(want.most).unwrap_or(u32::MAX).max(1)
    }

    fn on_hand(&self) -> u64 {
        if self.line.is_closed() && self.is_at_rest() { u64::MAX } else { self.line.len() as u64 }
    }

    fn due(&self) -> Duration {
        self.due
    }

    fn aftermath(&mut self) -> Option<Aftermath<T>> {
        let rests = self.line.is_closed() && self.is_at_rest();
        if self.gone.is_empty() && !rests {
            return None;
        }
        let gone = std::mem::take(&mut self.gone);
        let rest = rests.then(|| Arc::clone(&self.rest));
        Some(Aftermath::new(gone, self.settings.on_gone.clone(), rest))
    }
}
