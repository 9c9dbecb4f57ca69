//! A handle on submitted work.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::task::JoinHandle;

use super::ScheduleError;

/// Work that waits or runs. Awaiting it gives its result; dropping it cancels the work, wherever it is.
#[derive(Debug)]
#[must_use = "dropping a task cancels its work"]
pub struct Task<T> {
    handle: Option<JoinHandle<Result<T, ScheduleError>>>,
}

impl<T: Send + 'static> Task<T> {
    pub(super) fn spawn(work: impl Future<Output = Result<T, ScheduleError>> + Send + 'static) -> Self {
        Self { handle: Some(tokio::spawn(work)) }
    }
}

impl<T> Task<T> {
    /// Lets the work go on although nobody waits for its result.
    pub fn detach(mut self) {
        self.handle = None;
    }

    /// Whether the work has ended, in whatever way.
    pub fn is_finished(&self) -> bool {
        self.handle.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, ScheduleError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(handle) = &mut self.handle else { return Poll::Ready(Err(ScheduleError::Cancelled)) };
        let outcome = ready!(Pin::new(handle).poll(cx));
        self.handle = None;
        Poll::Ready(outcome.unwrap_or_else(|error| Err(error.into())))
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.abort();
        }
    }
}
