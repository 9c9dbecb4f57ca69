//! The seam between a queue and where it remembers what it accepted.

pub mod disk;
mod disk_store;
mod ledger;
mod log;
mod memory;
mod record;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

pub use disk_store::{DiskOptions, DiskStore};
pub use ledger::KeyWindow;
pub use memory::MemoryStore;

use super::TicketId;

/// Remembers what happened to the items of one queue, in the order in which it happened.
///
/// For the implementer:
/// - `note` copies what it is given and returns at once; it neither blocks on a disk nor waits for another caller.
/// - Notes become durable in the order in which they were noted: if one survives a power loss, so do all before it.
/// - After the first failure to write or to sync nothing more becomes durable: `note` and `settled` answer with that
///   failure from then on, because after a failed sync nobody knows what the disk holds. A full disk is the exception:
///   what did not fit is refused, nothing that was settled is touched, and notes are taken again once there is room.
/// - Opening yields exactly what was settled, plus possibly some of what was noted after that and in its order.
pub trait Store: Send + Sync + 'static {
    /// Notes that something happened. It will be durable once [`Store::settled`] completes for the answer.
    ///
    /// # Errors
    /// If the store has failed earlier, or cannot hold the entry at all.
    fn note(&self, entry: Entry<'_>) -> Result<Position, StoreError>;

    /// Completes when everything up to `position` survives a power loss. Dropping the future changes nothing.
    fn settled(&self, position: Position) -> Settled<'_>;

    /// What the store takes up.
    fn usage(&self) -> Usage;
}

/// Completes when a position is durable; fails when it never will be.
pub type Settled<'a> = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send + 'a>>;

/// A place in the order of notes; later notes have larger ones. The default comes before all notes: it is the place of
/// what a store held when it was opened, and settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// Something that happened to an item.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// It was accepted.
    Accepted {
        /// Its name. Ids grow, and one that was used is never used again, also after a restart.
        id: TicketId,
        /// What the queue needs to know of it after a restart.
        facts: &'a Facts,
        /// The item itself, encoded by its owner.
        item: &'a [u8],
    },
    /// It was handed out for the `attempt`-th time, counted from 1. Nobody waits until this is durable, so that taking
    /// costs no sync; a crash in between makes the count one lower than the truth, never the item lost.
    Taken {
        /// Its name.
        id: TicketId,
        /// The how-manieth time.
        attempt: u32,
    },
    /// It was acknowledged: it is gone, and its idempotency key counts as used until the window has passed.
    Done {
        /// Its name.
        id: TicketId,
    },
    /// It was given up and now lies among the dead letters.
    Dead {
        /// Its name.
        id: TicketId,
        /// Why, for people.
        cause: &'a str,
    },
    /// It was put back from the dead letters into the line, with no attempts counted.
    Revived {
        /// Its name.
        id: TicketId,
    },
}

/// What a queue needs to know of an item after a restart. Times are wall-clock times, since no other kind survives one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whose item it is.
    pub owner: Arc<str>,
    /// Urgency: 0 goes first.
    pub level: u8,
    /// What serving it costs.
    pub cost: u64,
    /// When it was accepted.
    pub accepted: SystemTime,
    /// From when on serving it is of no use.
    pub deadline: Option<SystemTime>,
    /// The idempotency key under which it was put.
    pub key: Option<Arc<str>>,
}

/// What a store held when it was opened.
#[derive(Debug, Default)]
pub struct Recovered {
    /// All items that were accepted and are not done, in order of id.
    pub items: Vec<RecoveredItem>,
    /// Idempotency keys of items that are done, with the time of their acceptance, as far back as the store keeps them.
    pub used_keys: Vec<(Arc<str>, TicketId, SystemTime)>,
    /// One more than the largest id that was ever used.
    pub next_id: u64,
    /// What was damaged and left out, one line for people each; empty after an orderly life and after a power loss.
    pub damage: Vec<String>,
}

/// One item that a store held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredItem {
    /// Its name.
    pub id: TicketId,
    /// What the queue needs to know of it.
    pub facts: Facts,
    /// The item, as it was encoded.
    pub item: Vec<u8>,
    /// How often it was handed out.
    pub attempts: u32,
    /// Why it lies among the dead letters, if it does.
    pub dead: Option<String>,
}

/// What a store takes up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on the disk.
    pub bytes: u64,
    /// Bytes of them that items need which are not done.
    pub live_bytes: u64,
    /// Files.
    pub files: usize,
}

/// Why a store does not remember something.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreError {
    /// No room. What was settled before is safe; try again once there is room.
    Full {
        /// Where.
        place: String,
    },
    /// More was noted than could be written meanwhile. Nothing is lost; try again when some of it is settled.
    Behind {
        /// Where.
        place: String,
        /// How many bytes may wait.
        limit: u64,
    },
    /// A write or a sync failed, and nothing more is taken until the store is opened anew.
    Failed {
        /// Where.
        place: String,
        /// What the system said.
        cause: String,
    },
    /// One entry alone is larger than the store can hold.
    TooLarge {
        /// Its size in bytes.
        bytes: u64,
        /// The largest that can be held.
        limit: u64,
    },
    /// Another process has the store open.
    Locked {
        /// Where.
        place: String,
    },
    /// Something is there that is not a store, or one of a later version.
    Foreign {
        /// Where.
        place: String,
        /// What was found.
        found: String,
    },
}

impl std::error::Error for StoreError {}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { place } => {
                write!(
                    f,
                    "the disk under {place} is full; nothing accepted is lost; free some room and try again"
                )
            }
            Self::Behind { place, limit } => {
                write!(
                    f,
                    "{limit} bytes wait to be written to {place}, as many as may; try again in a moment"
                )
            }
            Self::Failed { place, cause } => {
                write!(
                    f,
                    "writing to {place} failed ({cause}); what was acknowledged is safe; open the store again"
                )
            }
            Self::TooLarge { bytes, limit } => {
                write!(f, "an item of {bytes} bytes is larger than the {limit} that fit")
            }
            Self::Locked { place } => {
                write!(f, "another process has {place} open; stop it or choose another folder")
            }
            Self::Foreign { place, found } => {
                write!(f, "{place} is not a queue's store that this version can read: found {found}")
            }
        }
    }
}
