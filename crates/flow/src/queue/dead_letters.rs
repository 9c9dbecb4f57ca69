//! Items that were given up: kept with the cause, to be looked at, tried again or thrown away.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::past::{Attempt, Past};
use super::store::StoreError;
use super::taken::Parts;
use super::{Shared, Taken, Ticket, TicketId};

/// Why an item was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// It was handed out as often as may be, and never acknowledged.
    Attempts,
    /// Its deadline passed while it waited.
    Expired,
    /// The queue was full when it came.
    Overflow,
    /// A taker said so.
    Verdict(String),
}

const ATTEMPTS: &str = "handed out as often as allowed and never acknowledged";
const EXPIRED: &str = "its deadline passed while it waited";
const OVERFLOW: &str = "the queue was full when it came";

impl Cause {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Attempts => ATTEMPTS,
            Self::Expired => EXPIRED,
            Self::Overflow => OVERFLOW,
            Self::Verdict(verdict) => verdict,
        }
    }

    /// The cause that a store kept in words.
    pub(super) fn from_words(words: String) -> Self {
        match words.as_str() {
            ATTEMPTS => Self::Attempts,
            EXPIRED => Self::Expired,
            OVERFLOW => Self::Overflow,
            _ => Self::Verdict(words),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An item that was given up.
#[derive(Debug)]
pub struct DeadLetter<T> {
    /// The item.
    pub item: T,
    pub(super) id: TicketId,
    pub(super) ticket: Ticket,
    pub(super) arrived: Duration,
    pub(super) cause: Cause,
    pub(super) died: Duration,
    pub(super) attempts: u32,
    pub(super) history: Vec<Attempt>,
}

impl<T> DeadLetter<T> {
    pub(super) fn new(taken: Taken<T>, past: Past, cause: Cause, died: Duration) -> Self {
        let Parts { item, id, ticket, arrived } = taken.into_parts();
        Self { item, id, ticket, arrived, cause, died, attempts: past.attempts, history: past.history }
    }

    /// As it comes back into the line: with no attempts counted.
    pub(super) fn revive(self) -> Taken<T> {
        let Self { item, id, ticket, arrived, .. } = self;
        Taken::new(item, id, ticket, arrived)
    }

    /// The name of its stay, which it keeps when it is tried again.
    pub fn id(&self) -> TicketId {
        self.id
    }

    /// The ticket with which it came.
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// When it came, on the clock of the queue.
    pub fn arrived(&self) -> Duration {
        self.arrived
    }

    /// Why it was given up.
    pub fn cause(&self) -> &Cause {
        &self.cause
    }

    /// When it was given up, on the clock of the queue.
    pub fn died(&self) -> Duration {
        self.died
    }

    /// How often it was handed out.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The last times that it was handed out.
    pub fn history(&self) -> &[Attempt] {
        &self.history
    }
}

/// All dead letters of a queue, in order of acceptance.
pub(super) struct Graveyard<T> {
    pub(super) letters: BTreeMap<TicketId, DeadLetter<T>>,
    limit: usize,
}

impl<T> Graveyard<T> {
    pub(super) fn new(limit: usize) -> Self {
        Self { letters: BTreeMap::new(), limit }
    }

    /// Adds a letter, and gives out the oldest if there are too many.
    pub(super) fn bury(&mut self, letter: DeadLetter<T>) -> Option<DeadLetter<T>> {
        self.letters.insert(letter.id, letter);
        if self.letters.len() > self.limit {
            self.letters.pop_first().map(|(_, oldest)| oldest)
        } else {
            None
        }
    }

    /// Takes out those that are picked, in order of acceptance.
    fn remove_where(&mut self, mut pick: impl FnMut(&DeadLetter<T>) -> bool) -> Vec<DeadLetter<T>> {
        self.letters.extract_if(.., |_, letter| pick(letter)).map(|(_, letter)| letter).collect()
    }
}

/// The items of a queue that were given up, to be looked at, tried again or thrown away.
///
/// Filters are called while the queue is locked: they must not use the queue.
pub struct DeadLetters<T> {
    shared: Arc<Shared<T>>,
}

impl<T> DeadLetters<T> {
    pub(super) fn new(shared: Arc<Shared<T>>) -> Self {
        Self { shared }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.shared.with(|books| books.dead.letters.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Something of each, in order of acceptance.
    pub fn list<R>(&self, look: impl FnMut(&DeadLetter<T>) -> R) -> Vec<R> {
        self.shared.with(|books| books.dead.letters.values().map(look).collect())
    }

    /// Puts one back into the line, with no attempts counted, whatever the queue's bounds. It keeps its name and its
    /// place; a deadline that has passed is lifted. Answers whether it was there.
    ///
    /// # Errors
    /// When the store does not keep that. The item then waits all the same, and the store is told again when it is next
    /// told of anything; until it has room for that, the item is a dead letter again after a restart.
    pub async fn retry(&self, id: TicketId) -> Result<bool, StoreError> {
        Ok(self.retry_where(|letter| letter.id == id).await? > 0)
    }

    /// Puts those back into the line that the filter picks; answers how many.
    ///
    /// # Errors
    /// As [`DeadLetters::retry`].
    pub async fn retry_where(&self, pick: impl FnMut(&DeadLetter<T>) -> bool) -> Result<usize, StoreError> {
        let count = self.shared.with(|books| {
            let picked = books.dead.remove_where(pick);
            let count = picked.len();
            picked.into_iter().for_each(|letter| books.revive(letter));
            count
        });
        self.settle().await?;
        Ok(count)
    }

    /// Puts all of them back into the line; answers how many.
    ///
    /// # Errors
    /// As [`DeadLetters::retry`].
    pub async fn retry_all(&self) -> Result<usize, StoreError> {
        self.retry_where(|_| true).await
    }

    /// Takes those out for good that the filter picks.
    ///
    /// # Errors
    /// When the store does not keep that; they are dead letters again after a restart then.
    pub async fn purge_where(
        &self,
        pick: impl FnMut(&DeadLetter<T>) -> bool,
    ) -> Result<Vec<DeadLetter<T>>, StoreError> {
        let purged = self.shared.with(|books| {
            let picked = books.dead.remove_where(pick);
            picked.iter().for_each(|letter| books.purge(letter));
            picked
        });
        self.settle().await?;
        Ok(purged)
    }

    /// Takes all of them out for good.
    ///
    /// # Errors
    /// As [`DeadLetters::purge_where`].
    pub async fn purge_all(&self) -> Result<Vec<DeadLetter<T>>, StoreError> {
        self.purge_where(|_| true).await
    }

    /// Waits until the store has what it was told.
    async fn settle(&self) -> Result<(), StoreError> {
        let last = self.shared.with(|books| books.journal.as_ref().and_then(|journal| journal.last));
        match last.zip(self.shared.store()) {
            Some((last, store)) => store.settled(last).await,
            None => Ok(()),
        }
    }
}

impl<T> fmt::Debug for DeadLetters<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetters").field("len", &self.len()).finish_non_exhaustive()
    }
}
