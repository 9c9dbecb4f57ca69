//! How a pipeline is put together: stage after stage, each followed by what it is to do besides its work.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::Pipeline;
use super::chain::{Start, Step, Then};
use super::failure::Failure;
use super::road::Road;
use super::stage::{Control, Stage};
use super::turnstile::Turnstile;
use crate::breaker::Breaker;
use crate::random::Random;
use crate::rate::TokenBucket;
use crate::retry::Retry;
use crate::work::{Plain, StageError, Work};

/// So many items may be inside unless told otherwise.
const CREDITS: u32 = 1024;

/// A pipeline that is being put together. What follows a stage (`workers`, `retry`, …) is about that stage.
#[must_use = "a pipeline is there once it is built"]
pub struct Builder<In, S> {
    steps: S,
    stages: usize,
    credits: u32,
    input: PhantomData<fn(In)>,
}

/// A builder whose last stage takes `I`, gives `O` and does `W`, after the steps `S`.
pub type Staged<In, S, I, O, W> = Builder<In, Then<S, Stage<I, O, W>>>;

impl<In: Send + 'static> Builder<In, Start> {
    pub(super) fn new() -> Self {
        Self { steps: Start, stages: 0, credits: CREDITS, input: PhantomData }
    }
}

impl<In: Send + 'static, S: Step<In>> Builder<In, S> {
    /// Sets how many items may be inside at once, from admission to outcome; 1024 unless set, 1 at least. This is what
    /// bounds the memory of the pipeline: further items wait outside, with whoever brings them.
    pub fn credits(mut self, credits: u32) -> Self {
        self.credits = credits.clamp(1, u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        self
    }

    /// Adds a stage: an asynchronous function from what the stage before gives.
    ///
    /// It works on as many items at once as there are credits, unless `workers` says less. A call that computes for
    /// long without awaiting keeps a thread of the runtime busy, here as everywhere; give such work to
    /// `spawn_blocking`.
    pub fn stage<F, Fut, O, E>(self, name: &str, function: F) -> Staged<In, S, S::Out, O, Plain<F>>
    where
        F: Fn(S::Out) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, E>> + Send + 'static,
        O: Send + 'static,
        E: StageError,
    {
        self.work(name, Plain(function))
    }

    /// Adds a stage: work that learns about the attempt it is in.
    pub fn work<W: Work<S::Out>>(self, name: &str, work: W) -> Staged<In, S, S::Out, W::Out, W> {
        let stage = Stage::new(Control::new(name, self.stages), work);
        Builder {
            steps: Then { first: self.steps, last: stage },
            stages: self.stages + 1,
            credits: self.credits,
            input: PhantomData,
        }
    }

    /// The pipeline. It has no tasks of its own: whoever submits an item carries it through, and a run has drivers.
    pub fn build(self) -> Pipeline<In, S::Out> {
        Pipeline { way: Arc::new(Road::new(self.steps, self.credits)) }
    }
}

impl<In, S, I, O, W> Staged<In, S, I, O, W> {
    /// The stage works on at most so many items at once; [`Pipeline::set_workers`] changes that later.
    pub fn workers(self, workers: usize) -> Self {
        self.steps.last.control.seats.set_limit(workers);
        self
    }

    /// At most so many items wait for the stage; the ones that would be more stay where they are, and keep a worker of
    /// the stage before. Without this, whatever has a credit may wait.
    pub fn buffer(mut self, places: usize) -> Self {
        self.steps.last.control.places = Some(Semaphore::new(places.clamp(1, Semaphore::MAX_PERMITS)));
        self
    }

    /// An attempt that takes longer is dropped, and counts as a transient error.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.steps.last.rules.timeout = Some(timeout);
        self
    }

    /// Begins at most `tokens` attempts per `per`, and up to `burst` at once after a quiet time.
    pub fn rate(mut self, tokens: NonZeroU32, per: Duration, burst: NonZeroU32) -> Self {
        self.steps.last.rules.turnstile = Some(Turnstile::new(TokenBucket::new(tokens, per, burst)));
        self
    }

    /// Makes no calls while the circuit is open. A permanent error speaks against the item, not against the callee,
    /// and does not count as a failed call.
    pub fn breaker(mut self, breaker: Breaker) -> Self {
        self.steps.last.control.breaker = Some(breaker);
        self
    }

    /// Draws the jitter of the waits between attempts from there, so that they can be repeated.
    pub fn random(mut self, random: Random) -> Self {
        self.steps.last.rules.random = Mutex::new(random);
        self
    }
}

impl<In, S, I: Clone, O, W> Staged<In, S, I, O, W> {
    /// Tries again after a transient error, an overload and a timeout. The worker is free for others meanwhile.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.steps.last.rules.retry = retry;
        self.steps.last.rules.copy = Some(I::clone);
        self
    }

    /// Asks this instead once the stage has given an item up; not after its deadline. It may answer with the failure.
    pub fn fallback<F, Fut>(mut self, fallback: F) -> Self
    where
        F: Fn(I, Failure) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, Failure>> + Send + 'static,
    {
        let boxed = move |item, failure| -> futures::future::BoxFuture<'static, Result<O, Failure>> {
            Box::pin(fallback(item, failure))
        };
        self.steps.last.rules.fallback = Some(Box::new(boxed));
        self.steps.last.rules.copy = Some(I::clone);
        self
    }
}

impl<In, S> fmt::Debug for Builder<In, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("stages", &self.stages)
            .field("credits", &self.credits)
            .finish_non_exhaustive()
    }
}
