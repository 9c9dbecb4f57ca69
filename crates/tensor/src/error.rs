//! What can go wrong when tensors are read or packed, or instruction sets are chosen.

use std::path::PathBuf;

use crate::Isa;
use crate::isa::list;
use crate::{gguf, safetensors};

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
        defect: safetensors::Defect,
    },
    /// A file is not what its name says.
    #[error("{} is not a GGUF file that can be read: {defect}; fetch or convert the file again", path.display())]
    MalformedGguf {
        /// Which file.
        path: PathBuf,
        /// What was expected and what was found.
        defect: gguf::Defect,
    },
    /// No instruction set is called so.
    #[error("there is no instruction set '{found}'; choose one of {}", list(&Isa::ALL))]
    UnknownIsa {
        /// The name that was given.
        found: String,
    },
    /// The processor or the operating system does not offer an instruction set.
    #[error("this machine does not run {asked}; choose one of {}", list(available))]
    IsaUnavailable {
        /// What was asked for.
        asked: Isa,
        /// What there is, lowest first.
        available: Vec<Isa>,
    },
    /// The memory for weights does not do, or they cannot be read.
    #[error("cannot read weights from {} whenever they are needed: {source}", path.display())]
    Streaming {
        /// The file of packed weights.
        path: PathBuf,
        /// What is wrong.
        source: Box<memory::SweepError>,
    },
    /// The operating system refused memory.
    #[error(transparent)]
    Memory(#[from] memory::MemoryError),
}
