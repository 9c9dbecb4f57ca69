//! What can go wrong when a model is loaded or its text is processed.

use std::path::PathBuf;

/// Says the file, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A tensor file is missing or broken.
    #[error(transparent)]
    Tensor(#[from] tensor::TensorError),
    /// Some other file of the folder is missing or unreadable.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}
