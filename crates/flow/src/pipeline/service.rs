//! A pipeline as a service of `tower`, for those who want its layers around it.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tower_service::Service;

use super::failure::Failure;
use super::road::Way;
use crate::ready::Ready;

/// A client of a pipeline: it is ready when it holds a credit, and spends it on the next call.
///
/// A clone holds no credit of its own. One that is dropped gives its credit back.
pub struct Client<In, Out> {
    way: Arc<dyn Way<In, Out>>,
    ready: Ready<Failure>,
}

impl<In, Out> Client<In, Out> {
    pub(super) fn new(way: Arc<dyn Way<In, Out>>) -> Self {
        Self { way, ready: Ready::new() }
    }
}

impl<In: Send + 'static, Out: Send + 'static> Service<In> for Client<In, Out> {
    type Response = Out;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<Out, Failure>>;

    /// Waits for a credit.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let way = &self.way;
        self.ready.poll(cx, || {
            let way = way.clone();
            async move { way.gate().credit().await }
        })
    }

    /// Takes an item through. Called without being ready, it waits for a credit first.
    fn call(&mut self, item: In) -> Self::Future {
        self.way.clone().walk(item, None, self.ready.spend())
    }
}

impl<In, Out> Clone for Client<In, Out> {
    fn clone(&self) -> Self {
        Self::new(self.way.clone())
    }
}

impl<In, Out> fmt::Debug for Client<In, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("has_credit", &self.ready.is_ready()).finish_non_exhaustive()
    }
}
