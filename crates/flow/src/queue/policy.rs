//! The seam between a queue and the order in which it is served.
//!
//! To add a policy, write `policy/x.rs` ending in `pub(super) const POLICY`, and add its two lines below.

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

use super::Ticket;
use super::tickets::{Place, Tickets};
use crate::FlowError;

/// All policies, in the order in which they are listed to people.
pub const POLICIES: [Discipline; 5] =
    [fifo::POLICY, priority::POLICY, round_robin::POLICY, fair_share::POLICY, deadline::POLICY];

/// Orders tickets. It never sees an item, has no clock, and keeps nothing but the order.
///
/// For the implementer:
/// - A ticket joins once and leaves or is served once before it may join again; the line keeps the count. One that
///   joins again (put back by its taker) has the id and the arrival that it had, so among equals it has its old place.
/// - Ids grow with arrivals, so they break every tie: `a < b` means that `a` came first.
/// - `next` is the first of `order`, found without walking all tickets.
/// - Nothing starves: a ticket becomes `next` after a bounded time in which others are served, however many arrive;
///   where a policy cannot promise that, it says to whom.
/// - State of an owner of whom nothing waits is bounded, whatever owners come.
pub(super) trait Policy: Send + fmt::Debug {
    /// A ticket has come.
    fn join(&mut self, place: Place, tickets: &mut Tickets);

    /// A ticket has gone without being served: removed or overdue.
    fn leave(&mut self, place: Place, tickets: &mut Tickets);

    /// A ticket, which was `next`, is taken to be served.
    fn serve(&mut self, place: Place, tickets: &mut Tickets, _now: Duration) {
        self.leave(place, tickets);
    }

    /// The ticket to serve next.
    fn next(&self, tickets: &Tickets, now: Duration) -> Option<Place>;

    /// All tickets, in the order in which they would be served if time stood still.
    fn order(&self, tickets: &Tickets, now: Duration) -> Vec<Place>;

    /// Serving a ticket, which has gone, turned out to cost `actual`.
    fn charge(&mut self, _ticket: &Ticket, _actual: u64, _tickets: &mut Tickets) {}

    /// Goes on under other settings of the same discipline.
    fn configure(&mut self, _settings: &PolicySettings, _tickets: &mut Tickets) {}

    /// All tickets have left and another policy takes over.
    fn retire(&mut self, _tickets: &mut Tickets) {}
}

/// A policy that can be chosen by name.
#[derive(Clone, Copy)]
pub struct Discipline {
    /// The name, as settings write it.
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    build: fn(&PolicySettings) -> Box<dyn Policy>,
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

    pub(super) fn build(&self) -> Box<dyn Policy> {
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
