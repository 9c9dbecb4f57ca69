//! Making a queue, in memory or on what a store held.

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::books::Books;
use super::dead_letters::Cause;
use super::exchange::Exchange;
use super::journal::Journal;
use super::keys::First;
use super::lanes::Supply;
use super::moment::Moment;
use super::past::Past;
use super::put::adoption;
use super::settings::Settings;
use super::store::{Recovered, RecoveredItem, Store};
use super::{Clock, Memory, Queue, Record, RecordError, Shared, Taken, Ticket, TicketId};

/// Why a queue cannot be opened on what a store held.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// An item cannot be read: it was written by another program, or by a later version of this one.
    Unreadable {
        /// The item.
        id: TicketId,
        /// What is wrong with it.
        error: RecordError,
    },
}

impl std::error::Error for OpenError {}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Unreadable { id, error } = self;
        write!(
            f,
            "the store holds an item {} that is not of this queue's kind: {error}; open it as what it is",
            id.0
        )
    }
}

impl<T: Send + 'static> Queue<T> {
    pub(super) fn in_memory(settings: Settings<T>) -> Self {
        Self::share(Books::new(settings), None, Duration::ZERO)
    }

    pub(super) fn on_store(
        settings: Settings<T>,
        store: Arc<dyn Store>,
        recovered: Recovered,
    ) -> Result<Self, OpenError>
    where
        T: Record,
    {
        let world = SystemTime::now();
        let accepted = recovered.items.iter().map(|item| item.facts.accepted);
        let oldest = accepted.chain(recovered.used_keys.iter().map(|(_, _, accepted)| *accepted)).min();
        let head_start = oldest.and_then(|oldest| world.duration_since(oldest).ok()).unwrap_or_default();
        let items = recovered.items.into_iter().map(|item| read(item, world, head_start));
        let items = items.collect::<Result<Vec<_>, _>>()?;

        let mut books = Books::new(settings);
        books.now = Moment::of(head_start);
        books.next_id = recovered.next_id;
        books.journal =
            Some(Journal::new(Arc::clone(&store), world.checked_sub(head_start).unwrap_or(world)));
        let mut keys: Vec<_> = recovered.used_keys;
        keys.retain(|(key, _, _)| !key.is_empty());
        let mut used: Vec<_> = keys
            .into_iter()
            .map(|(key, id, accepted)| (on_clock(accepted, world, head_start), key, id))
            .collect();
        used.extend(
            items.iter().filter_map(|(taken, ..)| Some((taken.arrived(), taken.ticket().key?, taken.id))),
        );
        used.sort_unstable();
        for (time, key, id) in used {
            books.remember_key(key, id, time);
        }
        for (taken, attempts, cause) in items {
            books.take_up(taken, attempts, cause);
        }
        Ok(Self::share(books, Some(Memory { store, encode: T::encode }), head_start))
    }

    fn share(mut books: Books<T>, memory: Option<Memory<T>>, head_start: Duration) -> Self {
        books.line.supply = Supply::spares();
        let rest = Arc::clone(&books.rest);
        let shared = Arc::new_cyclic(|weak: &Weak<Shared<T>>| {
            books.adopt = memory.is_some().then(|| adoption(Weak::clone(weak)));
            Shared {
                exchange: Exchange::new(books),
                clock: Clock { start: Instant::now(), head_start },
                memory,
                rest,
                has_keeper: AtomicBool::new(false),
            }
        });
        Self { shared }
    }
}

/// A time of the world, on the clock of the queue.
fn on_clock(time: SystemTime, world: SystemTime, head_start: Duration) -> Duration {
    match time.duration_since(world) {
        Ok(ahead) => head_start.saturating_add(ahead),
        Err(behind) => head_start.saturating_sub(behind.duration()),
    }
}

/// An item as the queue has it, and why it was given up if it was.
fn read<T: Record>(
    recovered: RecoveredItem,
    world: SystemTime,
    head_start: Duration,
) -> Result<(Taken<T>, u32, Option<Cause>), OpenError> {
    let RecoveredItem { id, facts, item: bytes, attempts, dead } = recovered;
    let item = T::decode(&bytes).map_err(|error| OpenError::Unreadable { id, error })?;
    let ticket = Ticket {
        owner: facts.owner.into(),
        level: facts.level,
        cost: facts.cost,
        bytes: bytes.len() as u64,
        deadline: facts.deadline.map(|deadline| on_clock(deadline, world, head_start)),
        key: facts.key,
    };
    let arrived = on_clock(facts.accepted, world, head_start);
    Ok((Taken::new(item, id, ticket, arrived), attempts, dead.map(Cause::from_words)))
}

impl<T> Books<T> {
    /// Takes up an item that the store held. One that was out as often as may be brought its taker down the last time.
    fn take_up(&mut self, taken: Taken<T>, attempts: u32, cause: Option<Cause>) {
        if attempts > 0 {
            self.pasts.insert(taken.id, Past { attempts, history: Vec::new() });
        }
        match cause {
            Some(cause) => self.bury(taken, cause),
            None if self.settings.max_attempts.is_some_and(|most| attempts >= most.get()) => {
                self.give_up(taken, Cause::Attempts);
            }
            None => self.admit(taken),
        }
    }

    /// A key that was used before the queue was opened. What a store holds is settled.
    fn remember_key(&mut self, key: Arc<str>, id: TicketId, time: Duration) {
        if let Some(keys) = &mut self.keys {
            keys.remember(key, First { id, position: None }, time);
        }
    }
}
