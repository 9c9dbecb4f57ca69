//! The seam between the ladder and a place where objects may live.

mod disk;
mod host;
mod parts;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Buffer, Key};

pub use disk::{DiskRung, HEADER_BYTES, MAX_NOTE_BYTES};
pub use host::HostRung;
pub use parts::{Part, PartsRung};

/// Bytes that are read before it is looked whether the transfer should stop.
const STRIDE: usize = 2 << 20;

/// An object in the memory of the host: its bytes, and what its owner noted about them.
#[derive(Debug)]
pub struct Blob {
    /// What the owner noted; at most [`MAX_NOTE_BYTES`].
    pub note: Box<[u8]>,
    /// The content.
    pub bytes: Buffer,
}

/// An object on its way down.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// Its name.
    pub key: Key,
    /// What it is.
    pub blob: Arc<Blob>,
}

/// A place below the host's memory where objects may live.
///
/// For the implementer:
/// - Calls come from several threads at once, but never two for the same key.
/// - Once `keep` has said that an object is there, `fetch` gives exactly its bytes and its note, or an error; never other
///   bytes, whatever happened to the place meanwhile. An object that was not kept whole is not there.
/// - What is kept is still there after the process has been killed, if the place survives it at all, and then
///   `inventory` names it.
/// - `fetch` looks at `stop` at least every few milliseconds.
pub trait Rung: Send + Sync {
    /// Where it is, for people.
    fn place(&self) -> String;

    /// What an object of so many bytes takes there.
    fn footprint(&self, bytes: usize) -> usize;

    /// Keeps objects, several at once because that may be cheaper; answers for each of them, in order.
    fn keep(&self, parcels: &[Parcel]) -> Vec<Result<(), RungError>>;

    /// Reads an object into a buffer that is as long as it was or as the inventory says, makes the buffer as long as the
    /// object, and returns the note.
    ///
    /// # Errors
    /// When it is not there, damaged, cannot be read, or `stop` was asked for.
    fn fetch(&self, key: Key, into: &mut Buffer, stop: &Stop) -> Result<Box<[u8]>, RungError>;

    /// Removes an object. One that is not there is no error.
    ///
    /// # Errors
    /// When it could not be removed.
    fn remove(&self, key: Key) -> Result<(), RungError>;

    /// All objects that are there, with their lengths, rounded up as the rung stores them.
    ///
    /// # Errors
    /// When the place cannot be read.
    fn inventory(&self) -> Result<Vec<(Key, usize)>, RungError>;
}

/// Asks a transfer to stop. Clones ask the same one.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody has asked.
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What can go wrong on a rung.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RungError {
    /// There is no room for it.
    #[error("{place} is full ({cause}); free some room there, or allow the rung less than there is")]
    Full {
        /// Where.
        place: String,
        /// What the system said.
        cause: String,
    },
    /// The system could not do something.
    #[error("cannot {act} {place}: {cause}")]
    Failed {
        /// What was to be done.
        act: &'static str,
        /// Where.
        place: String,
        /// What the system said.
        cause: String,
    },
    /// What is there is not what was kept.
    #[error("{place} is damaged: {defect}; it is not used any more")]
    Damaged {
        /// Where.
        place: String,
        /// How that was seen.
        defect: Defect,
    },
    /// It is not there.
    #[error("{place} is not there any more")]
    Gone {
        /// Where.
        place: String,
    },
    /// Somebody else has the place open.
    #[error("{place} is used by another process; stop it or choose another folder")]
    Taken {
        /// Where.
        place: String,
    },
    /// The transfer was stopped before it was done.
    #[error("the transfer was stopped")]
    Stopped,
}

/// How damage was seen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Defect {
    /// It is shorter or longer than it says.
    #[error("{expected} bytes were expected and {found} found")]
    Length {
        /// Bytes that should be there.
        expected: u64,
        /// Bytes that are.
        found: u64,
    },
    /// Its beginning is not that of a kept object of this version.
    #[error("it does not begin like a kept object")]
    Header,
    /// It is another object.
    #[error("it holds the object {found}")]
    Key {
        /// Which one.
        found: Key,
    },
    /// The bytes do not add up.
    #[error("its checksum is {found:08x} and should be {expected:08x}")]
    Checksum {
        /// What was noted.
        expected: u32,
        /// What the bytes give.
        found: u32,
    },
}
