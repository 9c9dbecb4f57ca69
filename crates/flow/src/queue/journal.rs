//! What a durable queue tells its store.
//!
//! Who puts, acknowledges or condemns waits until the store has settled that, and undoes it if it is refused. Nobody
//! waits for what the queue decides by itself. Of that, who is dead and who was revived must not be forgotten because
//! the disk was full for a while: such a word that is refused is said again before the next one, until it is kept or
//! a later word about the same item makes it void.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::FutureExt;

use super::store::{Entry, Facts, Position, Store, StoreError};
use super::{Ticket, TicketId};

/// The store of a queue, and the two clocks: that of the queue and that of the world.
pub(super) struct Journal {
    store: Arc<dyn Store>,
    /// The time of the world when the queue's clock stood at zero.
    epoch: SystemTime,
    /// Where the last note stands.
    pub(super) last: Option<Position>,
    /// Words about the dead that are not known to be kept, in the order in which they were said.
    words: VecDeque<Word>,
}

/// What the queue said of an item by itself.
struct Word {
    id: TicketId,
    /// Why it is dead, or none if it was revived.
    cause: Option<Box<str>>,
    /// Where it stands; none if the store did not take it.
    position: Option<Position>,
}

impl Word {
    fn entry(&self) -> Entry<'_> {
        match &self.cause {
            Some(cause) => Entry::Dead { id: self.id, cause },
            None => Entry::Revived { id: self.id },
        }
    }
}

/// So many words at most are said again at a time.
const AGAIN: usize = 16;

impl Journal {
    pub(super) fn new(store: Arc<dyn Store>, epoch: SystemTime) -> Self {
        Self { store, epoch, last: None, words: VecDeque::new() }
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
            owner: (&ticket.owner).into(),
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
        if !self.words.is_empty() {
            self.say_again();
            if let Entry::Done { id } = entry {
                self.take_back(id);
            }
        }
        let position = self.store.note(entry)?;
        self.last = Some(position);
        Ok(position)
    }

    /// Notes something that nobody waits for. If it is lost, the item is handed out once more after a restart.
    pub(super) fn mention(&mut self, entry: Entry<'_>) {
        let position = self.note(entry).ok();
        let (id, cause) = match entry {
            Entry::Dead { id, cause } => (id, Some(Box::from(cause))),
            Entry::Revived { id } => (id, None),
            Entry::Accepted { .. } | Entry::Taken { .. } | Entry::Done { .. } => return,
        };
        self.take_back(id);
        self.words.push_back(Word { id, cause, position });
    }

    /// What was said of an item by itself counts no more.
    pub(super) fn take_back(&mut self, id: TicketId) {
        self.words.retain(|word| word.id != id);
    }

    /// Forgets the words that are kept, and repeats those that were refused.
    fn say_again(&mut self) {
        for _ in 0..self.words.len().min(AGAIN) {
            let verdict = match self.words.front().map(|word| word.position) {
                None => return,
                Some(Some(position)) => self.store.settled(position).now_or_never(),
                Some(None) => Some(Err(StoreError::Full { place: String::new() })),
            };
            let Some(verdict) = verdict else { return };
            let Some(mut word) = self.words.pop_front() else { return };
            // A store that has failed says so from now on to everything, and what it held is found when it is opened.
            if let Err(StoreError::Full { .. }) = verdict {
                word.position = self.store.note(word.entry()).ok();
                self.words.push_back(word);
            }
        }
    }
}
