//! Readiness of a service: it is ready when it holds a permit, and spends it on the next call.

use std::future::Future;
use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::unconstrained;

type Waiting<E> = BoxFuture<'static, Result<OwnedSemaphorePermit, E>>;

/// The permit for the next call, if it is there.
pub(crate) struct Ready<E> {
    permit: Option<OwnedSemaphorePermit>,
    waiting: Option<Waiting<E>>,
}

impl<E> Ready<E> {
    pub(crate) fn new() -> Self {
        Self { permit: None, waiting: None }
    }

    /// Waits for a permit. It says that there is none only if there is none: tokio would have a task that has polled
    /// often enough believe so to make it yield, and a layer that sheds load would then shed it for nothing.
    pub(crate) fn poll<F>(&mut self, cx: &mut Context<'_>, ask: impl FnOnce() -> F) -> Poll<Result<(), E>>
    where
        F: Future<Output = Result<OwnedSemaphorePermit, E>> + Send + 'static,
    {
        if self.permit.is_none() {
            let waiting = self.waiting.get_or_insert_with(|| Box::pin(unconstrained(ask())));
            let permit = ready!(waiting.as_mut().poll(cx));
            self.waiting = None;
            self.permit = Some(permit?);
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.permit.is_some()
    }

    pub(crate) fn spend(&mut self) -> Option<OwnedSemaphorePermit> {
        self.permit.take()
    }
}
