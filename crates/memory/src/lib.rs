//! Bytes, pages, and (later) the ladder of places they may live in.
//!
//! This crate sees bytes and page numbers, never shapes, tokens or models.

#![warn(missing_docs)]

mod arena;
mod pages;

pub use arena::Arena;
pub use pages::{PageId, PagePool};

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
