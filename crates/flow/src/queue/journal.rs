//! What a durable queue tells its store.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::store::{Entry, Facts, Position, Store, StoreError};
use super::{Ticket, TicketId};

/// The store of a queue, and the two clocks: that of the queue and that of the world.
pub(super) struct Journal {
    store: Arc<dyn Store>,
    /// The time of the world when the queue's clock stood at zero.
    epoch: SystemTime,
    /// Where the last note stands.
    pub(super) last: Option<Position>,
    /// Notes that nobody waits for and that the store did not take.
    pub(super) missed: u64,
}

impl Journal {
    pub(super) fn new(store: Arc<dyn Store>, epoch: SystemTime) -> Self {
        Self { store, epoch, last: None, missed: 0 }
    }

    /// Notes an item that the queue accepts.
    pub(super) fn accept(
        &mut self,
        id: TicketId,
        item: &[u8],
        ticket: &Ticket,
        now: Duration,
    ) -> Result<Position, StoreError> {
        let facts = Facts {
            owner: Arc::clone(&ticket.owner),
            level: ticket.level,
            cost: ticket.cost,
            accepted: self.epoch + now,
            deadline: ticket.deadline.and_then(|deadline| self.epoch.checked_add(deadline)),
            key: ticket.key.clone(),
        };
        self.note(Entry::Accepted { id, facts: &facts, item })
    }

    /// Notes something whose maker will wait until it is durable.
    pub(super) fn note(&mut self, entry: Entry<'_>) -> Result<Position, StoreError> {
        let position = self.store.note(entry)?;
        self.last = Some(position);
        Ok(position)
    }

    /// Notes something that nobody waits for. If it is lost, the item is handed out once more after a restart.
    pub(super) fn mention(&mut self, entry: Entry<'_>) {
        if self.note(entry).is_err() {
            self.missed += 1;
        }
    }
}
