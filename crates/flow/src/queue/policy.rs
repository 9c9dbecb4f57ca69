//! The seam between a queue and the order in which it is served.
//!
//! To add a policy, write `policy/x.rs` ending in `pub(super) const POLICY`, and add its two lines below.

mod fifo;
mod priority;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{Ticket, TicketId};
use crate::FlowError;

#[cfg(test)]
pub(super) use priority::AGE_STEP;

/// All policies, in the order in which they are listed to people.
pub const POLICIES: [Discipline; 2] = [fifo::POLICY, priority::POLICY];

/// Orders tickets. It never sees an item, has no clock, and keeps nothing but the order.
///
/// For the implementer:
/// - A ticket joins once and leaves once before it may join again; the queue keeps the count. One that joins again
///   (put back by its taker) has the id and the arrival that it had, so its place is the one it had.
/// - Ids grow with arrivals, so they break every tie: `a < b` means that `a` came first.
/// - `next` is the first of `order`, found without walking all tickets.
/// - Nothing starves: a ticket becomes `next` after a bounded time in which others are served, however many arrive.
pub trait Policy: Send + fmt::Debug {
    /// A ticket has come.
    fn join(&mut self, id: TicketId, ticket: &Ticket, arrived: Duration);

    /// A ticket has gone: taken, removed or expired.
    fn leave(&mut self, id: TicketId, ticket: &Ticket);

    /// The ticket to serve next.
    fn next(&self, now: Duration) -> Option<TicketId>;

    /// All tickets, in the order in which they would be served if time stood still.
    fn order(&self, now: Duration) -> Vec<TicketId>;
}

/// A policy that can be chosen by name.
#[derive(Clone, Copy)]
pub struct Discipline {
    /// The name, as settings write it.
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    build: fn() -> Box<dyn Policy>,
}

impl Discipline {
    /// A policy without tickets.
    pub fn build(&self) -> Box<dyn Policy> {
        (self.build)()
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
