//! How stages follow one another: each takes what the one before gives.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;

use super::failure::Failure;
use super::seats::Seat;
use super::stage::Control;

/// An item on its way, as one stage hands it to the next.
pub struct Passing<'a, T> {
    pub(super) item: T,
    /// The seat in the stage it comes from, given up only once the next stage has room for it.
    pub(super) seat: Option<Seat<'a>>,
    /// When it left the stage it comes from: one look at the clock serves both.
    pub(super) at: Instant,
}

/// What is known of an item wherever it is.
pub struct Journey {
    pub(super) deadline: Option<Instant>,
    /// One more than the index of the stage it is in or waits for; 0 before the first.
    stage: AtomicUsize,
}

impl Journey {
    pub(super) fn new(deadline: Option<Instant>) -> Self {
        Self { deadline, stage: AtomicUsize::new(0) }
    }

    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    pub(super) fn reaches(&self, stage: usize) {
        self.stage.store(stage + 1, Ordering::Relaxed);
    }

    /// The index of the stage it is in or waits for.
    pub(super) fn stage(&self) -> Option<usize> {
        self.stage.load(Ordering::Relaxed).checked_sub(1)
    }
}

/// One stage, or several in a row.
pub trait Step<I>: Send + Sync + 'static {
    /// What comes out.
    type Out: Send + 'static;

    /// Takes an item through. The failure is boxed because every step hands it on, and hardly any item has one.
    fn pass<'a>(
        &'a self,
        journey: &'a Journey,
        on: Passing<'a, I>,
    ) -> impl Future<Output = Result<Passing<'a, Self::Out>, Box<Failure>>> + Send + 'a;

    /// Shows the stages in their order.
    fn show<'a>(&'a self, controls: &mut Vec<&'a Control>);

    /// The stage, if there is but one: what one has made cannot be given back for another to wait with.
    fn only(&self) -> Option<&dyn Now<I, Self::Out>> {
        None
    }

    /// The stage that follows, if there is none before it.
    fn only_then<'a, B: Step<Self::Out>>(&'a self, _: &'a B) -> Option<&'a dyn Now<I, B::Out>> {
        None
    }
}

/// A stage that may be done with an item without a future.
pub trait Now<I, O> {
    /// Takes an item through that came at `at`, or gives it back because it would have to wait, as if it had not come.
    fn pass_now(&self, item: I, at: Instant) -> Result<Result<O, Box<Failure>>, I>;
}

/// No stage at all.
#[derive(Debug)]
pub struct Start;

impl<I: Send + 'static> Step<I> for Start {
    type Out = I;

    async fn pass<'a>(&'a self, _: &'a Journey, on: Passing<'a, I>) -> Result<Passing<'a, I>, Box<Failure>> {
        Ok(on)
    }

    fn show<'a>(&'a self, _: &mut Vec<&'a Control>) {}

    fn only_then<'a, B: Step<I>>(&'a self, next: &'a B) -> Option<&'a dyn Now<I, B::Out>> {
        next.only()
    }
}

/// One step after another.
#[derive(Debug)]
pub struct Then<A, B> {
    pub(super) first: A,
    pub(super) last: B,
}

impl<I: Send + 'static, A: Step<I>, B: Step<A::Out>> Step<I> for Then<A, B> {
    type Out = B::Out;

    async fn pass<'a>(
        &'a self,
        journey: &'a Journey,
        on: Passing<'a, I>,
    ) -> Result<Passing<'a, B::Out>, Box<Failure>> {
        let on = self.first.pass(journey, on).await?;
        self.last.pass(journey, on).await
    }

    fn show<'a>(&'a self, controls: &mut Vec<&'a Control>) {
        self.first.show(controls);
        self.last.show(controls);
    }

    fn only(&self) -> Option<&dyn Now<I, B::Out>> {
        self.first.only_then(&self.last)
    }
}
