//! A batcher as a service of `tower`, for those who want its layers around it.

use std::fmt;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tower_service::Service;

use super::{BatchFailure, Batcher, submit};
use crate::ready::Ready;
use crate::work::StageError;

/// A client of a batcher: it is ready when it holds a place for an item, and spends it on the next call.
///
/// A clone holds no place of its own. One that is dropped gives its place back.
pub struct Client<I, O, E> {
    batcher: Batcher<I, O, E>,
    ready: Ready<BatchFailure<E>>,
}

impl<I, O, E> Client<I, O, E> {
    pub(super) fn new(batcher: Batcher<I, O, E>) -> Self {
        Self { batcher, ready: Ready::new() }
    }
}

impl<I, O, E> Service<I> for Client<I, O, E>
where
    I: Send + 'static,
    O: Send + 'static,
    E: StageError,
{
    type Response = O;
    type Error = BatchFailure<E>;
    type Future = BoxFuture<'static, Result<O, BatchFailure<E>>>;

    /// Waits for a place.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BatchFailure<E>>> {
        let shared = &self.batcher.shared;
        self.ready.poll(cx, || {
            let shared = shared.clone();
            async move { shared.place().await }
        })
    }

    /// Has an item served with others. Called without being ready, it waits for a place first.
    fn call(&mut self, item: I) -> Self::Future {
        Box::pin(submit(self.batcher.shared.clone(), item, None, self.ready.spend()))
    }
}

impl<I, O, E> Clone for Client<I, O, E> {
    fn clone(&self) -> Self {
        Self::new(self.batcher.clone())
    }
}

impl<I, O, E> fmt::Debug for Client<I, O, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("has_place", &self.ready.is_ready()).finish_non_exhaustive()
    }
}
