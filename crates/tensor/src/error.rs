//! What can go wrong when tensors are read or packed.

use std::path::PathBuf;

use crate::safetensors::Defect;

/// An error about a file or a tensor, saying which, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file is not what its name says.
    #[error("{} is not a valid safetensors file: {defect}; fetch or convert the file again", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What was expected and what was found.
        defect: Defect,
    },
    /// The operating system refused memory.
    #[error(transparent)]
    Memory(#[from] memory::MemoryError),
}
