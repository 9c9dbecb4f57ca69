//! One item that is taken through a pipeline by whoever awaits it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use flow::Failure;
use futures::future::FutureExt;
use pyo3::prelude::*;
use tokio::time::Instant;

use super::{Passage, Pipeline, raised};
use crate::item::Carried;

/// An item that is taken through when this is polled, with no allocation but that of the way itself.
pub(crate) enum Submission {
    /// It has not begun.
    Fresh { pipeline: Py<Pipeline>, item: Carried, only: Option<Box<str>>, deadline: Option<Instant> },
    /// It is inside.
    Passing(Passage),
    /// It has come out.
    Over,
}

impl Future for Submission {
    type Output = PyResult<Py<PyAny>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let result = |ended: Result<Carried, Failure>| ended.map(|item| item.object).map_err(raised);
        let mut passage = match std::mem::replace(&mut *self, Self::Over) {
            Self::Fresh { pipeline, item, only, deadline } => {
                let inside = pipeline.get().inside()?;
                let is_plain = only.is_none() && deadline.is_none();
                match if is_plain { inside.pass_now(item) } else { Err(item) } {
                    Ok(ended) => return Poll::Ready(result(ended)),
                    Err(item) => inside.pass(item, only.as_deref(), deadline)?,
                }
            }
            Self::Passing(passage) => passage,
            Self::Over => return Poll::Pending,
        };
        match passage.poll_unpin(context) {
            Poll::Ready(ended) => Poll::Ready(result(ended)),
            Poll::Pending => {
                *self = Self::Passing(passage);
                Poll::Pending
            }
        }
    }
}
