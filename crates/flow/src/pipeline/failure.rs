//! What an item of a pipeline may end in instead of an output.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use crate::retry::{Class, Classify};

/// Why an item did not come out of a pipeline. It concerns that item alone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// A stage gave it up.
    #[error("stage '{stage}' failed at attempt {attempts}: {cause}")]
    Failed {
        /// The stage.
        stage: Arc<str>,
        /// Attempts that were made.
        attempts: u32,
        /// What the last error says about trying again.
        class: Class,
        /// The last error.
        #[source]
        cause: Box<dyn Error + Send + Sync>,
    },
    /// A stage panicked. There is no second attempt.
    #[error("stage '{stage}' panicked: {message}")]
    Panicked {
        /// The stage.
        stage: Arc<str>,
        /// What the panic said.
        message: String,
    },
    /// The last attempt took longer than the stage allows.
    #[error("stage '{stage}' was not done after {after:?}, at attempt {attempts}")]
    TimedOut {
        /// The stage.
        stage: Arc<str>,
        /// The time the stage allows.
        after: Duration,
        /// Attempts that were made.
        attempts: u32,
    },
    /// The stage's breaker let nothing through.
    #[error("stage '{stage}' is not called: its circuit is open; try again in {retry_after:?}")]
    Open {
        /// The stage.
        stage: Arc<str>,
        /// When to try again.
        retry_after: Duration,
    },
    /// Its deadline passed.
    #[error("the deadline passed {}", place(.stage))]
    Expired {
        /// Where it was; `None` before the first stage.
        stage: Option<Arc<str>>,
    },
    /// The pipeline was drained and its time ran out.
    #[error("the pipeline was shut down {}", place(.stage))]
    Cut {
        /// Where the item was; `None` before the first stage.
        stage: Option<Arc<str>>,
    },
    /// The pipeline takes nothing any more, so the item was not accepted.
    #[error("the pipeline is closed and takes no more items")]
    Closed,
}

fn place(stage: &Option<Arc<str>>) -> String {
    match stage {
        Some(stage) => format!("in stage '{stage}'"),
        None => "before the first stage".to_owned(),
    }
}

impl Failure {
    /// The stage in which the item was, if it was in one.
    pub fn stage(&self) -> Option<&str> {
        match self {
            Self::Failed { stage, .. }
            | Self::Panicked { stage, .. }
            | Self::TimedOut { stage, .. }
            | Self::Open { stage, .. } => Some(stage),
            Self::Expired { stage } | Self::Cut { stage } => stage.as_deref(),
            Self::Closed => None,
        }
    }
}

impl Classify for Failure {
    /// A panic and a passed deadline would come again; what depends on the moment would not.
    fn class(&self) -> Class {
        match self {
            Self::Failed { class, .. } => *class,
            Self::Open { retry_after, .. } => Class::Overload { retry_after: Some(*retry_after) },
            Self::Panicked { .. } | Self::Expired { .. } => Class::Permanent,
            Self::TimedOut { .. } | Self::Cut { .. } | Self::Closed => Class::Transient,
        }
    }
}
