//! Items that have left a queue.

use std::time::Duration;

use super::lanes::nanos;
use super::packing::Packed;
use super::ticket::Load;
use super::{Ticket, TicketId};

/// An item that left a queue and may be put back.
#[derive(Debug)]
pub struct Taken<T> {
    /// The item.
    pub item: T,
    pub(super) id: TicketId,
    /// In nanoseconds, as slots have it.
    pub(super) arrived: u64,
    pub(super) packed: Packed,
}

/// The parts of an item that left a queue.
pub(super) struct Parts<T> {
    pub(super) item: T,
    pub(super) id: TicketId,
    pub(super) ticket: Ticket,
    pub(super) arrived: Duration,
}

impl<T> Taken<T> {
    #[inline]
    pub(super) fn new(item: T, id: TicketId, mut ticket: Ticket, arrived: Duration) -> Self {
        Self { item, id, arrived: nanos(arrived), packed: Packed::take(&mut ticket) }
    }

    /// The name of its stay.
    pub fn id(&self) -> TicketId {
        self.id
    }

    /// The ticket with which it came.
    pub fn ticket(&self) -> Ticket {
        self.packed.ticket()
    }

    /// When it came. From a [`crate::Queue`] in a rush, where acts share readings of the clock, up to 15 acts or about a
    /// millisecond before that.
    pub fn arrived(&self) -> Duration {
        Duration::from_nanos(self.arrived)
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.packed.deadline()
    }

    /// The room that it takes up.
    pub(super) fn load(&self) -> Load {
        self.packed.load()
    }

    /// The same stay with another copy of the item.
    pub(super) fn copied(&self, copy: fn(&T) -> T) -> Self {
        Self { item: copy(&self.item), id: self.id, arrived: self.arrived, packed: self.packed.clone() }
    }

    pub(super) fn into_item(self) -> (T, Ticket) {
        (self.item, self.packed.into_ticket())
    }

    pub(super) fn into_parts(self) -> Parts<T> {
        let arrived = self.arrived();
        Parts { item: self.item, id: self.id, ticket: self.packed.into_ticket(), arrived }
    }
}
