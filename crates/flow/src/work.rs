//! What the parts that run work know of it: a function of one input, errors that know their class, and what it may
//! ask about the attempt it is in.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::retry::{Class, Classify};

/// An error a stage may end in: any error that knows its class. [`Classed`] gives a class to one that does not.
pub trait StageError: Classify + Error + Send + Sync + 'static {}

impl<E: Classify + Error + Send + Sync + 'static> StageError for E {}

/// What a stage does with an item, for those who need more than a function: it learns about the attempt it is in.
///
/// For the implementer: the future is dropped when the item's deadline passes, when its caller drops it, or when the
/// pipeline is cut short, so it must lose nothing by being dropped. A panic is caught and becomes the item's error.
pub trait Work<I>: Send + Sync + 'static {
    /// What comes out.
    type Out: Send + 'static;
    /// What it may end in instead.
    type Err: StageError;

    /// Does it once.
    fn call<'a>(
        &'a self,
        cx: Cx<'a>,
        input: I,
    ) -> impl Future<Output = Result<Self::Out, Self::Err>> + Send + 'a;

    /// Does it once without a future, or gives the input back, to be handed to [`call`](Self::call). Work that is often over
    /// in less time than a future costs says so here. It must not block.
    ///
    /// # Errors
    /// Gives the input back if it would have to wait, and by default.
    fn call_now(&self, _: Cx<'_>, input: I) -> Result<Result<Self::Out, Self::Err>, I> {
        Err(input)
    }
}

/// What work may know of the attempt it is in.
#[derive(Clone, Copy, Debug)]
pub struct Cx<'a> {
    /// The name of the stage.
    pub stage: &'a str,
    /// The how-manieth attempt it is, counted from 1.
    pub attempt: u32,
    /// From when on the outcome is of no use.
    pub deadline: Option<Instant>,
}

impl Cx<'_> {
    /// How long the outcome is still of use; `None` if it always is.
    pub fn left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

/// A function from input to a future, as work.
#[derive(Clone, Copy, Debug)]
pub struct Plain<F>(pub F);

impl<I, O, E, F, Fut> Work<I> for Plain<F>
where
    I: Send + 'static,
    O: Send + 'static,
    E: StageError,
    F: Fn(I) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O, E>> + Send + 'static,
{
    type Out = O;
    type Err = E;

    fn call<'a>(&'a self, _: Cx<'a>, input: I) -> impl Future<Output = Result<O, E>> + Send + 'a {
        (self.0)(input)
    }
}

/// Any error, with a class given to it.
#[derive(Debug)]
pub struct Classed {
    class: Class,
    cause: Box<dyn Error + Send + Sync>,
}

impl Classed {
    /// An error of which trying again may be the cure.
    pub fn transient(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { class: Class::Transient, cause: cause.into() }
    }

    /// An error that would come again.
    pub fn permanent(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { class: Class::Permanent, cause: cause.into() }
    }

    /// The callee has too much to do, and may have said when to come again.
    pub fn overload(cause: impl Into<Box<dyn Error + Send + Sync>>, retry_after: Option<Duration>) -> Self {
        Self { class: Class::Overload { retry_after }, cause: cause.into() }
    }
}

impl Classify for Classed {
    fn class(&self) -> Class {
        self.class
    }
}

impl fmt::Display for Classed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl Error for Classed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.source()
    }
}
