//! A pipeline as a service of `tower`, for those who want its layers around it.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::unconstrained;
use tower_service::Service;

use super::failure::Failure;
use super::road::Way;

/// A client of a pipeline: it is ready when it holds a credit, and spends it on the next call.
///
/// A clone holds no credit of its own. One that is dropped gives its credit back.
pub struct Client<In, Out> {
    way: Arc<dyn Way<In, Out>>,
    credit: Option<OwnedSemaphorePermit>,
    waiting: Option<BoxFuture<'static, Result<OwnedSemaphorePermit, Failure>>>,
}

impl<In, Out> Client<In, Out> {
    pub(super) fn new(way: Arc<dyn Way<In, Out>>) -> Self {
        Self { way, credit: None, waiting: None }
    }
}

impl<In: Send + 'static, Out: Send + 'static> Service<In> for Client<In, Out> {
    type Response = Out;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<Out, Failure>>;

    /// Waits for a credit. It says that there is none only if there is none: tokio would have a task that has polled
    /// often enough believe so to make it yield, and a layer that sheds load would then shed it for nothing.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if self.credit.is_none() {
            let way = &self.way;
            let waiting = self.waiting.get_or_insert_with(|| {
                let way = way.clone();
                Box::pin(unconstrained(async move { way.gate().credit().await }))
            });
            let credit = ready!(waiting.as_mut().poll(cx));
            self.waiting = None;
            self.credit = Some(credit?);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes an item through. Called without being ready, it waits for a credit first.
    fn call(&mut self, item: In) -> Self::Future {
        self.way.clone().walk(item, None, self.credit.take())
    }
}

impl<In, Out> Clone for Client<In, Out> {
    fn clone(&self) -> Self {
        Self::new(self.way.clone())
    }
}

impl<In, Out> fmt::Debug for Client<In, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("has_credit", &self.credit.is_some()).finish_non_exhaustive()
    }
}
