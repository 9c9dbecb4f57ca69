//! Why a queue does not take an item, and after how long it may.

use std::fmt;
use std::time::Duration;

use super::store::StoreError;
use super::{Reason, Ticket, TicketId};

/// An item that a queue does not take, given back.
#[derive(Debug)]
pub struct Rejected<T> {
    /// The item.
    pub item: T,
    /// The ticket with which it came.
    pub ticket: Ticket,
    /// Why.
    pub reason: Rejection,
    /// After how long it may be taken, where a rate or the speed at which the queue empties tells.
    pub retry_after: Option<Duration>,
}

/// Why a queue does not take an item.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// As many items wait as may.
    Items,
    /// Its cost and that of the waiting items are more than may wait.
    Cost,
    /// Its bytes and those of the waiting items are more than may wait.
    Bytes,
    /// Others wait for room already, and it did not want to wait behind them.
    Turn,
    /// More would pass than the rate allows.
    Rate,
    /// There was no room in the time that it was given.
    TimedOut,
    /// Its deadline has passed.
    Expired,
    /// Its deadline would pass before it is served, going by how long serving has taken.
    Doomed {
        /// Half of the items take at least that long.
        service: Duration,
    },
    /// The queue is closed.
    Closed,
    /// The queue is durable, and its answer takes the time of a write: `put` it.
    Durable,
    /// The queue could not remember it.
    Store(Box<StoreError>),
}

impl From<Reason> for Rejection {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Items => Self::Items,
            Reason::Cost => Self::Cost,
            Reason::Bytes => Self::Bytes,
            Reason::Closed => Self::Closed,
        }
    }
}

impl From<StoreError> for Rejection {
    fn from(error: StoreError) -> Self {
        Self::Store(Box::new(error))
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Items => "the queue holds as many items as it may",
            Self::Cost => "the waiting items cost as much as may wait",
            Self::Bytes => "the waiting items hold as many bytes as may wait",
            Self::Turn => "others wait for room already",
            Self::Rate => "more would pass than the rate allows",
            Self::TimedOut => "there was no room in the time given",
            Self::Expired => "its deadline has passed",
            Self::Doomed { service } => {
                return write!(f, "its deadline is nearer than the {service:?} that half of the items take");
            }
            Self::Closed => "the queue is closed",
            Self::Durable => "a durable queue answers after a write: use put",
            Self::Store(error) => return error.fmt(f),
        })
    }
}

impl<T> fmt::Display for Rejected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the item was not taken: {}", self.reason)?;
        match self.retry_after {
            Some(after) => write!(f, "; try again in {after:?}"),
            None => Ok(()),
        }
    }
}

impl<T: fmt::Debug> std::error::Error for Rejected<T> {}

/// What came of putting many when not all were taken.
#[derive(Debug)]
pub struct PutManyError<T> {
    /// The names of those that were taken, in order.
    pub taken: Vec<TicketId>,
    /// The first that was not.
    pub rejected: Rejected<T>,
    /// Those behind it, which were not looked at.
    pub rest: Vec<(T, Ticket)>,
}

impl<T> fmt::Display for PutManyError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (taken, left) = (self.taken.len(), self.rest.len() + 1);
        write!(f, "{taken} items were taken and {left} were not: {}", self.rejected.reason)
    }
}

impl<T: fmt::Debug> std::error::Error for PutManyError<T> {}
