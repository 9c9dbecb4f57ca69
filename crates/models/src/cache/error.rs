//! What can go wrong with the cache of packed weights. It costs time and no start, unless weights are to be read from there
//! whenever they are needed.

use std::path::PathBuf;

/// Why packed weights were not found, or not kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The folder cannot be listed, or a file in it not removed.
    #[error("cannot look after the packed weights in {}: {error}", path.display())]
    Folder {
        /// Which folder or file.
        path: PathBuf,
        /// What the operating system said.
        error: std::io::Error,
    },
    /// A file of the cache cannot be read.
    #[error("cannot read the packed weights in {}: {error}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What went wrong.
        error: tensor::TensorError,
    },
    /// A file of the cache is not what was to be found there.
    #[error("{} cannot be used, because {defect}", path.display())]
    Stale {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        defect: tensor::packed::archive::Defect,
    },
    /// There is no room, or no permission.
    #[error("cannot keep packed weights in {}: {error}", path.display())]
    Unwritable {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        error: std::io::Error,
    },
    /// The model alone is larger than all of the cache may be.
    #[error("the packed weights are larger than the {budget} bytes that {} may take", path.display())]
    OverBudget {
        /// The folder.
        path: PathBuf,
        /// The bytes that it may take.
        budget: u64,
    },
}

impl CacheError {
    /// What is done all the same, and how that could be changed.
    pub fn consequence(&self) -> &'static str {
        match self {
            Self::Folder { .. } => "going on",
            Self::Unreadable { .. } | Self::Stale { .. } => "packing the weights again",
            Self::Unwritable { .. } => {
                "going on without (--cache-dir chooses another folder, --no-cache silences this)"
            }
            Self::OverBudget { .. } => {
                "going on without keeping them (--cache-size allows more, --no-cache silences this)"
            }
        }
    }
}
