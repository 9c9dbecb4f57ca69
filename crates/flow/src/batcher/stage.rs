//! A batcher as a stage of a pipeline.

use std::future::Future;

use super::{Batch, BatchFailure, Batcher, submit};
use crate::pipeline::chain::Step;
use crate::pipeline::{Builder, Staged};
use crate::work::{Cx, StageError, Work};

/// A batcher as the work of a pipeline's stage.
#[derive(Debug)]
pub struct Together<I, O, E>(Batcher<I, O, E>);

impl<I, O, E> Work<I> for Together<I, O, E>
where
    I: Send + 'static,
    O: Send + 'static,
    E: StageError,
{
    type Out = O;
    type Err = BatchFailure<E>;

    fn call<'a>(
        &'a self,
        cx: Cx<'a>,
        input: I,
    ) -> impl Future<Output = Result<O, BatchFailure<E>>> + Send + 'a {
        submit(self.0.shared.clone(), input, cx.deadline, None)
    }
}

/// A builder whose last stage serves items in batches.
pub type Batched<In, S, I, O, E> = Staged<In, S, I, O, Together<I, O, E>>;

impl<In: Send + 'static, S: Step<In>> Builder<In, S> {
    /// Adds a stage that serves items in batches; see [`Batch`] for how they are put together, and [`Batcher::new`] for
    /// what the function is to do.
    pub fn batch<F, Fut, O, E>(
        self,
        name: &str,
        rules: Batch<S::Out>,
        serve: F,
    ) -> Batched<In, S, S::Out, O, E>
    where
        F: Fn(Vec<S::Out>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<Result<O, E>>, E>> + Send + 'static,
        O: Send + 'static,
        E: StageError,
    {
        self.work(name, Together(Batcher::new(rules, serve)))
    }
}
