//! Memory-mapped GGUF files: metadata by key, a view per tensor, no copies of either's bulk.
//!
//! A file is the letters `GGUF`, a version, two counts, as many keys with typed values, as many tensors (name, extents,
//! element type, offset), padding up to the alignment, and the elements; numbers are little-endian. Versions 2 and 3
//! are read. Files come from strangers, so the header is believed about nothing: `header.rs` checks every count and
//! length against the length of the file before anything is allocated for it.
//! Source: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod defect;
mod elements;
mod header;
mod metadata;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use crate::TensorError;
use crate::stored::{FileBytes, Tensors};

pub use defect::Defect;
pub use elements::names_of_read_types;
pub use metadata::{List, Metadata, Value};

/// The first bytes of every file.
pub const MAGIC: [u8; 4] = *b"GGUF";

/// A parsed GGUF file.
pub struct Gguf {
    path: PathBuf,
    metadata: Metadata,
    tensors: Tensors,
}

impl Gguf {
    /// Maps and checks a file. What [`FileBytes::map`] says about mapped files holds.
    ///
    /// # Errors
    /// Says the file, what was expected and what was found.
    pub fn open(path: &Path) -> Result<Self, TensorError> {
        Self::parse(path, FileBytes::map(path)?)
    }

    /// Parses bytes that are in memory; `path` stands for them in messages.
    ///
    /// # Errors
    /// As `open`.
    pub fn parse(path: &Path, file: FileBytes) -> Result<Self, TensorError> {
        let header = header::read(&file)
            .map_err(|defect| TensorError::MalformedGguf { path: path.to_owned(), defect })?;
        let header::Header { metadata, entries } = header;
        Ok(Self { path: path.to_owned(), metadata, tensors: Tensors::new(file, entries) })
    }

    /// What stands for the file in messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keys and values.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensors. Extents are outermost first, as everywhere in this crate; the file writes them innermost first.
    pub fn tensors(&self) -> &Tensors {
        &self.tensors
    }
}
