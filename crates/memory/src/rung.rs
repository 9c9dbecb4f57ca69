//! The seam between the ladder and a place where objects may live.

mod cascade;
mod device;
mod disk;
mod host;
mod parts;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::ladder::Rates;
use crate::{Buffer, Key};

pub use cascade::{Cascade, CascadeSettings, Step};
pub use device::DeviceRung;
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
#[derive(Clone, Copy, Debug)]
pub struct Parcel<'a> {
    /// Its name.
    pub key: Key,
    /// What the owner noted; at most [`MAX_NOTE_BYTES`].
    pub note: &'a [u8],
    /// The content.
    pub bytes: &'a Buffer,
}

impl<'a> Parcel<'a> {
    /// An object as it is in memory.
    pub fn new(key: Key, blob: &'a Blob) -> Self {
        Self { key, note: &blob.note, bytes: &blob.bytes }
    }
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

    /// What it is made of.
    fn medium(&self) -> Medium;

    /// What an object of so many bytes takes there.
    fn footprint(&self, bytes: usize) -> usize;

    /// Keeps objects, several at once because that may be cheaper; answers for each of them, in order.
    fn keep(&self, parcels: &[Parcel<'_>]) -> Vec<Result<(), RungError>>;

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

    /// Does a piece of what the rung has to do in its own time, and says whether it did any. Called by one of the ladder's
    /// threads when it has nothing else to do.
    fn tend(&self) -> bool {
        false
    }

    /// The levels that it is made of, from the top, if it is made of several.
    fn levels(&self) -> Vec<Level> {
        Vec::new()
    }
}

/// What a rung is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Medium {
    /// Memory of the process.
    Host,
    /// Memory of a device.
    Device,
    /// Files.
    Disk,
}

/// One place below the host's memory: what it holds and has done.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Level {
    /// Where it is, for people.
    pub place: String,
    /// What it is made of.
    pub medium: Medium,
    /// Bytes in use there.
    pub used: usize,
    /// Bytes that may be used there.
    pub budget: usize,
    /// Objects there.
    pub objects: usize,
    /// Bytes of objects written there.
    pub written: u64,
    /// Bytes of objects read from there.
    pub read: u64,
    /// How fast bytes have moved lately.
    pub rates: Rates,
    /// Transfers that failed, damage included.
    pub faults: u64,
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
