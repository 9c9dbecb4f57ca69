//! Items that a queue lets go by itself, which is never silent: each is counted, and told to who asked for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::books::Noted;
use super::settings::OnGone;
use super::taken::Parts;
use super::{Taken, Ticket, TicketId};

/// An item that a queue let go.
#[derive(Debug)]
pub struct Gone<T> {
    /// The item.
    pub item: T,
    /// The name of its stay.
    pub id: TicketId,
    /// The ticket with which it came.
    pub ticket: Ticket,
    /// When it came, on the clock of the queue.
    pub arrived: Duration,
    /// Why it had to go.
    pub why: Why,
}

/// Why a queue let an item go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// Its deadline passed while it waited.
    Expired,
    /// The queue was overloaded and it had waited too long.
    Overload,
    /// The queue was full, and it had waited longest.
    Oldest,
    /// There were too many dead letters, and it was accepted first of them.
    DeadLetters,
}

impl<T> Gone<T> {
    pub(super) fn new(taken: Taken<T>, why: Why) -> Self {
        let Parts { item, id, ticket, arrived } = taken.into_parts();
        Self { item, id, ticket, arrived, why }
    }
}

/// Sees to items on their way to the disk whose putters went away.
pub(super) type Adopt<T> = Arc<dyn Fn(Vec<Noted<T>>) + Send + Sync>;

/// What is done outside of the lock: items are dropped or told of, orphans adopted, and those are woken who wait for
/// the queue to rest.
pub(super) struct Aftermath<T> {
    pub(super) gone: Vec<Gone<T>>,
    pub(super) on_gone: Option<OnGone<T>>,
    pub(super) orphans: Vec<Noted<T>>,
    pub(super) adopt: Option<Adopt<T>>,
    pub(super) rest: Option<Arc<Notify>>,
}

impl<T> Drop for Aftermath<T> {
    fn drop(&mut self) {
        if let Some(on_gone) = &self.on_gone {
            self.gone.drain(..).for_each(|gone| on_gone(gone));
        }
        if let Some(adopt) = &self.adopt
            && !self.orphans.is_empty()
        {
            adopt(std::mem::take(&mut self.orphans));
        }
        if let Some(rest) = &self.rest {
            rest.notify_waiters();
        }
    }
}
