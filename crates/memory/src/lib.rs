//! Bytes, pages, and the ladder of places they may live in.
//!
//! Read [`Ladder`] first: objects in memory and, below, on a [`rung`]; [`eviction`] says what goes first, [`BufferPool`]
//! keeps the budget, [`files`] is the disk and [`devices`] the memory of a GPU as far as anybody here knows them. A [`Sweep`] goes over a file that is larger
//! than memory. [`Arena`] and [`PagePool`] are what an engine keeps its own pages in.
//!
//! This crate sees bytes, keys and page numbers, never shapes, tokens or models.

#![warn(missing_docs)]

mod arena;
mod bell;
mod buffers;
pub mod devices;
pub mod eviction;
pub mod files;
mod key;
pub mod ladder;
mod offloader;
mod pages;
mod places;
pub mod replay;
pub mod rung;
mod signal;
mod slot;
mod sweep;
mod sync;
#[cfg(test)]
mod tests;

pub use arena::Arena;
pub use buffers::{Buffer, BufferPool, Residency};
pub use eviction::PolicyChoice;
pub use key::Key;
pub use ladder::{Ladder, LadderError, LadderSettings, LadderStatistics};
pub use offloader::{Loaded, OffloadError, Offloader, OffloaderSettings};
pub use pages::{PageId, PagePool};
pub use places::Places;
pub use sweep::{Sweep, SweepError, SweepStatistics};

/// What can go wrong with memory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The operating system refused an allocation.
    #[error("cannot reserve {bytes} bytes of memory: {source}")]
    Refused {
        /// Size asked for.
        bytes: usize,
        /// What the operating system said.
        source: std::io::Error,
    },
}
