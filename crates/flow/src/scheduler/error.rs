//! Why work did not run to its end.

use std::any::Any;

use tokio::task::JoinError;

use super::needs::NeedsError;

/// Why work did not run to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// Its needs can never be met.
    #[error(transparent)]
    Impossible(#[from] NeedsError),
    /// Its deadline passed before it had ended.
    #[error("the deadline passed before the work had ended; allow more time, or ask for less")]
    Expired,
    /// The scheduler takes no more work.
    #[error("the scheduler is closed and takes no more work")]
    Closed,
    /// It was cancelled.
    #[error("the work was cancelled")]
    Cancelled,
    /// It panicked.
    #[error("the work panicked: {message}")]
    Panicked {
        /// What it said.
        message: String,
    },
}

impl From<JoinError> for ScheduleError {
    fn from(error: JoinError) -> Self {
        match error.try_into_panic() {
            Ok(panic) => Self::Panicked { message: panic_message(&*panic) },
            Err(_) => Self::Cancelled,
        }
    }
}

/// What a panic said.
pub(super) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "(no message)".to_owned())
}
