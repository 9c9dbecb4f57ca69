//! All that a queue knows, without tasks, locks or a clock: the line, what is out on lease or put off, the dead, and
//! the rules by which items come and go.
//!
//! How items come in stands in `admission.rs`, how they come back in `returns.rs`; here is how they are handed out.

mod admission;
mod offer;
mod returns;
mod want;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::dead_letters::Graveyard;
use super::exchange::{Progress, Stock};
use super::gone::{Adopt, Aftermath, Gone, Why};
use super::journal::Journal;
use super::keys::Keys;
use super::leases::Leases;
use super::overload::{Overload, Service};
use super::past::Past;
use super::policy::Discipline;
use super::settings::Settings;
use super::stats::Tally;
use super::store::Entry;
use super::throttle::Throttle;
use super::ticket::Load;
use super::{Capacity, Line, Stats, Taken, TicketId};
use crate::metrics::Recorder;
use crate::rate::DrainRate;

pub(super) use offer::{Answer, Noted, Offer, Parcel, Patience};
pub(super) use want::{Goods, Want, Way};

/// The window over which the speed of the queue is measured, and how often it is brought up to date.
const FLOW_WINDOW: Duration = Duration::from_secs(60);
const FLOW_STEP: Duration = Duration::from_millis(50);

pub(super) struct Books<T> {
    pub(super) settings: Settings<T>,
    pub(super) line: Line<T>,
    /// What happened to items that came back, as long as they are here; most never do.
    pub(super) pasts: HashMap<TicketId, Past>,
    pub(super) now: Duration,
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
    due: Duration,
}

/// Items that arrived at one time.
struct Same {
    arrived: Duration,
    count: u64,
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

impl<T> Books<T> {
    pub(super) fn new(settings: Settings<T>) -> Self {
        let mut throttle = Throttle::default();
        throttle.limit_all(settings.rate);
        throttle.limit_each(settings.owner_rate);
        let rate = DrainRate::new(FLOW_WINDOW, Duration::ZERO);
        Self {
            line: Line::new(Capacity::UNBOUNDED, settings.policy.clone()),
            pasts: HashMap::new(),
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
            waits: Recorder::new(),
            journal: None,
            gone: Vec::new(),
            orphans: Vec::new(),
            adopt: None,
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
    #[inline]
    fn take_next(&mut self) -> Option<Taken<T>> {
        if self.overload.is_some() {
            return self.take_next_in_time();
        }
        let taken = self.line.take(self.now)?;
        self.flow.left += 1;
        Some(taken)
    }

    /// Takes the next item that has not waited too long either.
    fn take_next_in_time(&mut self) -> Option<Taken<T>> {
        loop {
            let taken = self.line.take(self.now)?;
            self.flow.left += 1;
            let Some(overload) = &mut self.overload else { return Some(taken) };
            let waited = self.now.saturating_sub(taken.arrived());
            let is_back = self.pasts.contains_key(&taken.id);
            if is_back || !overload.lets_go(waited, self.service.median(), self.now) {
                return Some(if overload.prefers_newest() { self.newest_instead_of(taken) } else { taken });
            }
            self.tally.shed += 1;
            self.let_go(taken, Why::Overload);
        }
    }

    /// Under the policy that goes by arrival alone, takes the item that came last, and puts the one back whose turn it
    /// was: it keeps its place, and is let go there if the overload outlasts it.
    fn newest_instead_of(&mut self, oldest: Taken<T>) -> Taken<T> {
        if self.line.policy().discipline != Discipline::FIFO {
            return oldest;
        }
        let newest = self.line.newest().and_then(|id| self.line.pull(id));
        match newest {
            Some(newest) => {
                self.line.put_back(oldest);
                newest
            }
            None => oldest,
        }
    }

    /// Takes the next item for good.
    #[inline]
    pub(super) fn pop_at_once(&mut self, place: &mut Option<Taken<T>>) {
        if self.overload.is_some() {
            *place = self.take_next_in_time();
            if let Some(taken) = place {
                self.note_waits(Same { arrived: taken.arrived(), count: 1 });
                self.give_away(taken.id);
            }
        } else if let Some(slot) = self.line.serve(self.now) {
            self.flow.left += 1;
            self.note_waits(Same { arrived: Duration::from_nanos(slot.arrived), count: 1 });
            self.give_away(slot.id);
            *place = Some(self.line.unpack(slot));
        }
    }

    /// Takes items for good, as many as are wanted and there are.
    fn pop_many_at_once(&mut self, want: &mut Want<T>) {
        // What was put together mostly leaves together.
        self.pop_blocks_at_once(want);
        let (mut popped, mut same) = (0, Same { arrived: Duration::ZERO, count: 0 });
        let most = want.most - want.len();
        while popped < most
            && let Some(slot) = self.line.serve(self.now)
        {
            let arrived = Duration::from_nanos(slot.arrived);
            if arrived != same.arrived {
                self.note_waits(std::mem::replace(&mut same, Same { arrived, count: 0 }));
            }
            same.count += 1;
            self.give_away(slot.id);
            popped += 1;
            want.several().push(self.line.unpack(slot));
        }
        self.note_waits(same);
        self.flow.left += popped as u64;
    }

    /// Takes blocks of items for good that are next as a whole, to be taken apart outside of the lock.
    fn pop_blocks_at_once(&mut self, want: &mut Want<T>) {
        while self.pasts.is_empty()
            && self.journal.is_none()
            && let Some(block) = self.line.take_block(self.now, want.most - want.len())
        {
            let count = block.len() as u64;
            block.each_arrival(|arrived, count| self.note_waits(Same { arrived, count }));
            self.tally.taken += count;
            self.tally.done += count;
            self.flow.left += count;
            want.blocks.push(block);
        }
    }

    fn note_waits(&mut self, same: Same) {
        self.waits.record_many(self.now.saturating_sub(same.arrived), same.count);
    }

    /// Takes the next item on lease.
    #[inline]
    pub(super) fn lend_at_once(&mut self) -> Option<Goods<T>> {
        let taken = self.take_next()?;
        Some(self.lend(taken))
    }

    /// The end of an item's stay.
    fn forget_past(&mut self, id: TicketId) {
        if !self.pasts.is_empty() {
            self.pasts.remove(&id);
        }
    }

    /// The cost of the item that is next.
    fn next_cost(&mut self) -> Option<u64> {
        self.line.next_cost(self.now)
    }

    /// An item is gone because its taker took it for good.
    fn give_away(&mut self, id: TicketId) {
        self.tally.taken += 1;
        self.tally.done += 1;
        self.forget_past(id);
        self.mention(Entry::Done { id });
    }

    /// Lets an item go out on lease.
    fn lend(&mut self, taken: Taken<T>) -> Goods<T> {
        self.tally.taken += 1;
        self.in_flight += 1;
        let past = if self.pasts.is_empty() { None } else { self.pasts.get(&taken.id) };
        let (attempts, history) = past.map_or((0, Vec::new()), |past| (past.attempts, past.history.clone()));
        let attempt = attempts + 1;
        if attempt == 1 {
            self.waits.record_many(self.now.saturating_sub(taken.arrived()), 1);
        }
        self.mention(Entry::Taken { id: taken.id, attempt });
        let lease = self.settings.visibility.as_ref().map(|visibility| {
            let copy = taken.copied(visibility.copy);
            self.leases.grant(copy, attempt, self.now, self.now.saturating_add(visibility.time))
        });
        self.due = self.due.min(self.leases.due());
        Goods { taken, since: self.now, attempt, history, lease, charged: None }
    }

    /// Lets an item go that nobody took.
    fn let_go(&mut self, taken: Taken<T>, why: Why) {
        self.forget_past(taken.id);
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

    pub(super) fn stats(&mut self) -> Stats {
        let put_off = self.put_off.values().map(|taken| self.now.saturating_sub(taken.arrived())).max();
        Stats {
            depth: self.depth(),
            cost: self.cost(),
            bytes: self.bytes(),
            oldest: self.line.oldest_age(self.now).max(put_off),
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
        let is_bounded = want.cost < u64::MAX;
        if want.way == Way::ForGood && want.most > 1 && !is_bounded && self.overload.is_none() {
            self.pop_many_at_once(want);
        } else {
            want.reserve(self.line.len());
        }
        while want.len() < want.most {
            if is_bounded && want.len() > 0 && self.next_cost().is_none_or(|cost| cost > want.cost) {
                break;
            }
            let Some(taken) = self.take_next() else { break };
            if is_bounded {
                want.cost = want.cost.saturating_sub(taken.load().cost);
            }
            match want.way {
                Way::Lease => {
                    let goods = self.lend(taken);
                    want.leases.push(goods);
                }
                Way::ForGood => {
                    self.note_waits(Same { arrived: taken.arrived(), count: 1 });
                    self.give_away(taken.id);
                    want.items.push(taken);
                }
            }
        }
        want.len() > 0 || (self.line.is_closed() && self.is_at_rest())
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

    #[inline]
    fn is_exact(&self) -> bool {
        self.due < Duration::MAX
            || self.overload.is_some()
            || self.keys.is_some()
            || self.settings.visibility.is_some()
            || !self.throttle.is_open()
    }

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
