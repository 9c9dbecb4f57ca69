//! All that a queue knows, without tasks, locks or a clock: the line, what is out on lease or put off, the dead, and
//! the rules by which items come and go.
//!
//! How items come in stands in `admission.rs`, how they come back in `returns.rs`; here is how they are handed out.

mod admission;
mod handing_out;
mod offer;
mod returns;
mod want;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::dead_letters::Graveyard;
use super::gone::{Adopt, Aftermath, Gone};
use super::journal::Journal;
use super::keys::Keys;
use super::leases::Leases;
use super::moment::Moment;
use super::overload::{Overload, Service};
use super::past::Past;
use super::settings::Settings;
use super::stats::Tally;
use super::stock::{Progress, Stock};
use super::throttle::Throttle;
use super::ticket::Load;
use super::{Capacity, Line, Stats, Taken, TicketId};
use crate::metrics::Recorder;
use crate::rate::DrainRate;

pub(super) use offer::{Answer, Answers, Noted, Offer, Parcel, Patience};
pub(super) use returns::Acknowledged;
pub(super) use want::{Goods, Want, Way};

/// The window over which the speed of the queue is measured, and how often it is brought up to date.
const FLOW_WINDOW: Duration = Duration::from_secs(60);
const FLOW_STEP: Duration = Duration::from_millis(50);

pub(super) struct Books<T> {
    pub(super) settings: Settings<T>,
    pub(super) line: Line<T>,
    /// What happened to items that came back, as long as they are here; most never do.
    pub(super) pasts: HashMap<TicketId, Past>,
    pub(super) now: Moment,
    pub(super) next_id: u64,
    /// Room that is taken by items which are not in the line: put off, or not yet on disk.
    outside: Load,
    /// Items that their takers gave back, by the time at which they may be taken again.
    pub(super) put_off: BTreeMap<(Duration, TicketId), Taken<T>>,
    pub(super) leases: Leases<T>,
    /// Items that are out, on a lease that runs out or not.
    pub(super) in_flight: usize,
    pub(super) dead: Graveyard<T>,
    pub(super) keys: Option<Keys>,
    pub(super) throttle: Throttle,
    overload: Option<Overload>,
    /// Whether there is overload control, a window for keys or an end of leases.
    is_timed: bool,
    pub(super) service: Service,
    pub(super) tally: Tally,
    pub(super) flow: Flow,
    /// How long items waited that were handed out for the first time.
    waits: Recorder,
    pub(super) journal: Option<Journal>,
    gone: Vec<Gone<T>>,
    /// Items on their way to the disk whose putters went away, and who sees to them.
    orphans: Vec<Noted<T>>,
    pub(super) adopt: Option<Adopt<T>>,
    /// Woken when the queue is closed and nothing is left in it.
    pub(super) rest: Arc<Notify>,
    /// Something falls due then, or later; never before.
    due: Moment,
}

/// How fast items leave, measured in steps so that taking one costs a count.
pub(super) struct Flow {
    rate: DrainRate,
    left: u64,
    next: Moment,
}

impl Flow {
    fn settle(&mut self, now: Moment) {
        if self.left > 0 {
            self.rate.record(self.left, now.time());
            self.left = 0;
        } else {
            self.rate.idle(now.time());
        }
        self.next = now.after(FLOW_STEP);
    }

    pub(super) fn per_second(&mut self, now: Moment) -> Option<f64> {
        self.settle(now);
        self.rate.per_second(now.time())
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
            pasts: HashMap::new(),
            now: Moment::START,
            next_id: 0,
            outside: Load::default(),
            put_off: BTreeMap::new(),
            leases: Leases::new(),
            in_flight: 0,
            dead: Graveyard::new(settings.dead_letters),
            keys: settings.window.map(Keys::new),
            throttle,
            overload: settings.overload.map(Overload::new),
            is_timed: settings.overload.is_some()
                || settings.window.is_some()
                || settings.visibility.is_some(),
            service: Service::default(),
            tally: Tally::default(),
            flow: Flow { rate, left: 0, next: Moment::START },
            waits: Recorder::new(),
            journal: None,
            gone: Vec::new(),
            orphans: Vec::new(),
            adopt: None,
            rest: Arc::new(Notify::new()),
            due: Moment::NEVER,
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

    /// Something may fall due at that time.
    pub(super) fn expect(&mut self, due: Duration) {
        self.due = self.due.min(Moment::of(due));
    }

    pub(super) fn stats(&mut self) -> Stats {
        let put_off =
            self.put_off.values().map(|taken| self.now.time().saturating_sub(taken.arrived())).max();
        Stats {
            depth: self.depth(),
            cost: self.cost(),
            bytes: self.bytes(),
            oldest: self.line.oldest_age(self.now.time()).max(put_off),
            in_flight: self.in_flight,
            dead_letters: self.dead.letters.len(),
            per_second: self.flow.per_second(self.now),
            service: self.service.median(),
            waits: self.waits.snapshot(),
            totals: self.tally,
        }
    }
}

impl<T> Stock for Books<T> {
    type Offer = Offer<T>;
    type Want = Want<T>;
    type Aftermath = Aftermath<T>;

    #[inline]
    fn advance(&mut self, now: Moment) {
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
        self.hand_out(want)
    }

    fn appetite(want: &Want<T>) -> u32 {
        u32::try_from(want.most).unwrap_or(u32::MAX).max(1)
    }

    fn on_hand(&self) -> u64 {
        if self.line.is_closed() && self.is_at_rest() { u64::MAX } else { self.line.len() as u64 }
    }

    fn due(&self) -> Moment {
        self.due
    }

    #[inline]
    fn is_exact(&self) -> bool {
        self.due < Moment::NEVER || self.is_timed || !self.throttle.is_open()
    }

    #[inline]
    fn has_aftermath(&self) -> bool {
        !self.gone.is_empty() || !self.orphans.is_empty() || (self.line.is_closed() && self.is_at_rest())
    }

    fn aftermath(&mut self) -> Option<Aftermath<T>> {
        if !self.has_aftermath() {
            return None;
        }
        let rests = self.line.is_closed() && self.is_at_rest();
        Some(Aftermath {
            gone: std::mem::take(&mut self.gone),
            on_gone: self.settings.on_gone.clone(),
            orphans: std::mem::take(&mut self.orphans),
            adopt: self.adopt.clone(),
            rest: rests.then(|| Arc::clone(&self.rest)),
        })
    }
}
