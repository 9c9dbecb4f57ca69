//! The seam between a queue and the order in which it is served.
//!
//! To add a policy, write `policy/x.rs` ending in `pub(super) const POLICY`, and add its four lines below: `mod x;`, its
//! line in `POLICIES`, its variant of `Chosen` and its arm of `chosen!`.

mod deadline;
mod fair_share;
mod fifo;
mod priority;
mod round_robin;

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::lanes::{LaneCount, LaneId, Lanes};
use super::packing::Details;
use super::{Owner, Ticket, TicketId};
use crate::FlowError;

/// All policies, in the order in which they are listed to people.
pub const POLICIES: [Discipline; 5] =
    [fifo::POLICY, priority::POLICY, round_robin::POLICY, fair_share::POLICY, deadline::POLICY];

/// Orders items. It never sees one, only where it waits; it has no clock, and keeps nothing but the order.
///
/// For the implementer:
/// - A policy says which lane an item joins and which lane is served next. In a lane items stand in order of arrival.
/// - An item joins once and leaves or is served once before it may join again; the line keeps the count. One that
///   joins again (put back by its taker) has the id and the arrival that it had, so among equals it has its old place.
/// - Ids grow with arrivals, so they break every tie: `a < b` means that `a` came first.
/// - `next` is the first of `order`, found without walking all items.
/// - Nothing starves: an item becomes `next` after a bounded time in which others are served, however many arrive;
///   where a policy cannot promise that, it says to whom.
/// - State of an owner of whom nothing waits is bounded, whatever owners come.
///
/// Every time is in nanoseconds on the clock of the line.
trait Policy {
    /// How many lanes it may need.
    const LANES: LaneCount;

    /// The lane that an item is about to join.
    fn lane(&mut self, owner: &Owner, details: Details) -> LaneId;

    /// An item, which arrived then, has come into a lane.
    fn joined(&mut self, _lane: LaneId, _id: TicketId, _arrived: u64) {}

    /// An item has gone from a lane without being served: removed or overdue.
    fn left<T>(&mut self, _lane: LaneId, _lanes: &Lanes<T>) {}

    /// The item that was next has been served.
    fn served<T>(&mut self, served: &Served, lanes: &Lanes<T>) {
        self.left(served.lane, lanes);
    }

    /// Whether the lane that is next stays next until it is empty, if time stands still and nothing comes. Then it may
    /// be told of several that were served as of one.
    fn stays(&self, _now: u64) -> bool {
        false
    }

    /// What to serve next. Where nothing waits, the first of an empty lane will do.
    fn next<T>(&mut self, lanes: &Lanes<T>, now: u64) -> Option<Next>;

    /// All items, in the order in which they would be served if time stood still.
    fn order<T>(&self, lanes: &Lanes<T>, now: u64) -> Vec<TicketId>;

    /// Serving an item, which has gone, turned out to cost `actual`.
    fn charge(&mut self, _ticket: &Ticket, _actual: u64) {}

    /// Goes on under other settings of the same discipline.
    fn configure<T>(&mut self, _settings: &PolicySettings, _lanes: &Lanes<T>) {}
}

/// What is served next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The first of a lane.
    First(LaneId),
    /// That item of a lane.
    Within(LaneId, TicketId),
}

/// An item that was served.
pub(super) struct Served {
    pub(super) lane: LaneId,
    /// What its ticket said that it would cost.
    pub(super) cost: u64,
    pub(super) now: u64,
}

/// Passes a call on to the policy that was chosen.
macro_rules! chosen {
    ($self:expr, $policy:ident => $call:expr) => {
        match $self {
            Chosen::Fifo($policy) => $call,
            Chosen::Priority($policy) => $call,
            Chosen::RoundRobin($policy) => $call,
            Chosen::FairShare($policy) => $call,
            Chosen::Deadline($policy) => $call,
        }
    };
}

/// The policy of a line. An enum and no object, so that the little that most policies do is compiled into the line.
#[derive(Debug)]
pub(super) enum Chosen {
    Fifo(fifo::Fifo),
    Priority(priority::Priority),
    RoundRobin(round_robin::RoundRobin),
    FairShare(fair_share::FairShare),
    Deadline(deadline::EarliestDeadline),
}

fn lanes_of<P: Policy>(_policy: &P) -> LaneCount {
    P::LANES
}

impl Chosen {
    pub(super) fn lanes(&self) -> LaneCount {
        chosen!(self, policy => lanes_of(policy))
    }

    /// The only lane, if all items wait in one.
    pub(super) fn only_lane(&self) -> Option<LaneId> {
        matches!(self, Self::Fifo(_)).then_some(LaneId::FIRST)
    }

    #[inline]
    pub(super) fn lane(&mut self, owner: &Owner, details: Details) -> LaneId {
        chosen!(self, policy => policy.lane(owner, details))
    }

    #[inline]
    pub(super) fn joined(&mut self, lane: LaneId, id: TicketId, arrived: u64) {
        chosen!(self, policy => policy.joined(lane, id, arrived));
    }

    pub(super) fn left<T>(&mut self, lane: LaneId, lanes: &Lanes<T>) {
        chosen!(self, policy => policy.left(lane, lanes));
    }

    #[inline]
    pub(super) fn served<T>(&mut self, served: &Served, lanes: &Lanes<T>) {
        chosen!(self, policy => policy.served(served, lanes));
    }

    #[inline]
    pub(super) fn stays(&self, now: u64) -> bool {
        chosen!(self, policy => policy.stays(now))
    }

    #[inline]
    pub(super) fn next<T>(&mut self, lanes: &Lanes<T>, now: u64) -> Option<Next> {
        chosen!(self, policy => policy.next(lanes, now))
    }

    pub(super) fn order<T>(&self, lanes: &Lanes<T>, now: u64) -> Vec<TicketId> {
        chosen!(self, policy => policy.order(lanes, now))
    }

    pub(super) fn charge(&mut self, ticket: &Ticket, actual: u64) {
        chosen!(self, policy => policy.charge(ticket, actual));
    }

    pub(super) fn configure<T>(&mut self, settings: &PolicySettings, lanes: &Lanes<T>) {
        chosen!(self, policy => policy.configure(settings, lanes));
    }
}

/// A policy that can be chosen by name.
#[derive(Clone, Copy)]
pub struct Discipline {
    /// The name, as settings write it.
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    build: fn(&PolicySettings) -> Chosen,
}

impl Discipline {
    /// First come, first served.
    pub const FIFO: Self = fifo::POLICY;
}

/// A discipline and what can be set about it. Each looks at what concerns it and at nothing else.
///
/// ```
/// use std::num::NonZeroU32;
/// use flow::queue::policy::{Discipline, PolicySettings};
///
/// let fair: Discipline = "fair_share".parse()?;
/// let settings = PolicySettings::from(fair).weight("alice", NonZeroU32::new(4).unwrap());
/// # Ok::<(), flow::FlowError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySettings {
    /// The order of service.
    pub discipline: Discipline,
    /// After this time of waiting, urgency rises by one level (priority, fair_share).
    pub age_step: Duration,
    /// Shares of owners in relation to each other (fair_share). Who is not named has 1.
    pub weights: BTreeMap<Arc<str>, NonZeroU32>,
}

/// What a level counts as after so many nanoseconds of waiting.
fn aged(level: u8, waited: u64, age_step: u64) -> u8 {
    if level == 0 {
        return 0;
    }
    let steps = waited / age_step.max(1);
    level.saturating_sub(u8::try_from(steps).unwrap_or(u8::MAX))
}

/// The length of a few requests: shorter, and levels would mean nothing under load; longer, and the lowest level would
/// wait for minutes although nobody decided that it should.
const AGE_STEP: Duration = Duration::from_secs(5);

impl PolicySettings {
    /// The same with another time after which urgency rises by one level. Zero counts as one nanosecond.
    #[must_use]
    pub fn age_step(mut self, age_step: Duration) -> Self {
        self.age_step = age_step;
        self
    }

    /// The same with that share for an owner.
    #[must_use]
    pub fn weight(mut self, owner: impl Into<Arc<str>>, weight: NonZeroU32) -> Self {
        self.weights.insert(owner.into(), weight);
        self
    }

    pub(super) fn build(&self) -> Chosen {
        (self.discipline.build)(self)
    }
}

impl Default for PolicySettings {
    fn default() -> Self {
        Discipline::default().into()
    }
}

impl From<Discipline> for PolicySettings {
    fn from(discipline: Discipline) -> Self {
        Self { discipline, age_step: AGE_STEP, weights: BTreeMap::new() }
    }
}

impl Default for Discipline {
    fn default() -> Self {
        priority::POLICY
    }
}

impl PartialEq for Discipline {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Discipline {}

impl fmt::Debug for Discipline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Discipline").field(&self.name).finish()
    }
}

impl fmt::Display for Discipline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl FromStr for Discipline {
    type Err = FlowError;

    fn from_str(name: &str) -> Result<Self, FlowError> {
        let named = POLICIES.into_iter().find(|policy| policy.name == name);
        named.ok_or_else(|| FlowError::UnknownPolicy { found: name.to_owned() })
    }
}
