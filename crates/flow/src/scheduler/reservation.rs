//! What work holds while it runs, and what holds its place while it waits.

use std::fmt;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::ScheduleError;
use super::book::Placement;
use super::shared::Shared;
use super::waiting::JobId;

/// Resources that are taken. Dropping it gives them back.
#[must_use = "what is not held is given back at once"]
pub struct Reservation {
    shared: Arc<Shared>,
    placement: Option<Placement>,
}

impl Reservation {
    pub(super) fn new(shared: Arc<Shared>, placement: Placement) -> Self {
        Self { shared, placement: Some(placement) }
    }

    /// The names of the devices that it got.
    pub fn devices(&self) -> &[Arc<str>] {
        self.placement.as_ref().map_or(&[], |placement| &placement.devices)
    }

    /// What was taken, for someone who gives it back.
    pub(super) fn into_placement(mut self) -> Option<Placement> {
        self.placement.take()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(placement) = self.placement.take() {
            self.shared.change(|state, _| {
                state.book.give_back(&placement);
                Vec::new()
            });
        }
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("placement", &self.placement).finish_non_exhaustive()
    }
}

/// A place among those who wait. Dropping it gives the place up, and with it what was granted and not yet received.
pub(super) struct Waiter {
    shared: Arc<Shared>,
    job: Option<JobId>,
    answer: oneshot::Receiver<Result<Reservation, ScheduleError>>,
}

impl Waiter {
    pub(super) fn new(
        shared: Arc<Shared>,
        job: JobId,
        answer: oneshot::Receiver<Result<Reservation, ScheduleError>>,
    ) -> Self {
        Self { shared, job: Some(job), answer }
    }

    /// Waits for the answer, no longer than until the deadline.
    pub(super) async fn granted(mut self, deadline: Option<Instant>) -> Result<Reservation, ScheduleError> {
        let answer = match deadline {
            Some(deadline) => {
                timeout_at(deadline, &mut self.answer).await.map_err(|_| ScheduleError::Expired)?
            }
            None => (&mut self.answer).await,
        };
        self.job = None;
        answer.unwrap_or(Err(ScheduleError::Closed))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Some(job) = self.job {
            self.shared.change(|state, _| {
                state.book.leave(job);
                state.replies.remove(&job);
                Vec::new()
            });
        }
    }
}
