//! What a queue and its policies know of an item.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Names one stay in one queue. Later arrivals have larger ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketId(pub(super) u64);

/// All that a policy may know of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Whose item it is.
    pub owner: Arc<str>,
    /// Urgency: 0 goes first.
    pub level: u8,
    /// What serving it costs, in the unit of the queue's capacity (tokens, bytes).
    pub cost: u64,
    /// The time from which on serving it is of no use.
    pub deadline: Option<Duration>,
}

/// The bounds of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// The most items that wait.
    pub items: usize,
    /// The largest sum of costs that waits, unless one item alone exceeds it.
    pub cost: u64,
}

/// An item that left a queue and may be put back.
#[derive(Debug)]
pub struct Taken<T> {
    /// The item.
    pub item: T,
    pub(super) id: TicketId,
    pub(super) ticket: Ticket,
    pub(super) arrived: Duration,
}

impl<T> Taken<T> {
    /// The name of its stay.
    pub fn id(&self) -> TicketId {
        self.id
    }

    /// The ticket with which it came.
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// When it came.
    pub fn arrived(&self) -> Duration {
        self.arrived
    }
}

/// An item that a queue does not accept, given back.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused<T> {
    /// The item.
    pub item: T,
    /// Why.
    pub reason: Reason,
}

/// Why a queue does not accept an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// As many items wait as may.
    Items,
    /// Its cost and that of the waiting items are more than may wait.
    Cost,
    /// The queue is closed.
    Closed,
}

impl<T: fmt::Debug> std::error::Error for Refused<T> {}

impl<T> fmt::Display for Refused<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Items => "the queue holds as many items as it may",
            Self::Cost => "the waiting items cost as much as may wait",
            Self::Closed => "the queue is closed",
        })
    }
}
