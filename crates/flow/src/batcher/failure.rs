//! What an item may end in instead of being served.

use std::sync::Arc;

use crate::retry::{Class, Classify};

/// Why an item was not served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BatchFailure<E> {
    /// It failed, or its whole batch did.
    #[error("{error}")]
    Failed {
        /// The error, shared by all whom it concerns.
        error: Arc<E>,
    },
    /// Serving it panicked, or serving its whole batch did.
    #[error("serving the batch panicked: {message}")]
    Panicked {
        /// What the panic said.
        message: Arc<str>,
    },
    /// The function that serves gave another number of outcomes than there were items.
    #[error("a batch of {items} items came back with {outcomes} outcomes; give one for each, in their order")]
    Miscounted {
        /// The items.
        items: usize,
        /// The outcomes.
        outcomes: usize,
    },
    /// Its deadline passed before it was served.
    #[error("the deadline passed before the batch was served")]
    Expired,
    /// The batcher was drained and its time ran out.
    #[error("the batcher was shut down before the item was served")]
    Cut,
    /// The batcher takes nothing any more, so the item was not accepted.
    #[error("the batcher is closed and takes no more items")]
    Closed,
    /// The runtime that served it ended.
    #[error("the runtime ended before the batch was served")]
    Aborted,
}

impl<E: Classify> Classify for BatchFailure<E> {
    fn class(&self) -> Class {
        match self {
            Self::Failed { error } => error.class(),
            Self::Panicked { .. } | Self::Miscounted { .. } | Self::Expired => Class::Permanent,
            Self::Cut | Self::Closed | Self::Aborted => Class::Transient,
        }
    }
}

/// Errors may be shared by a whole batch, so a copy is the same error.
impl<E> Clone for BatchFailure<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Failed { error } => Self::Failed { error: error.clone() },
            Self::Panicked { message } => Self::Panicked { message: message.clone() },
            Self::Miscounted { items, outcomes } => Self::Miscounted { items: *items, outcomes: *outcomes },
            Self::Expired => Self::Expired,
            Self::Cut => Self::Cut,
            Self::Closed => Self::Closed,
            Self::Aborted => Self::Aborted,
        }
    }
}
