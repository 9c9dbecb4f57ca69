//! Items pass through stages, one after the other, and each ends in exactly one outcome.
//!
//! A pipeline is a future per item, not a set of threads: whoever submits an item carries it through all stages, waits
//! for a worker where a stage has no more of them, and cancels by dropping the future. So nothing crosses a channel,
//! nothing is left behind, and a stage that is ready at once costs little more than the call. An item holds one credit
//! from admission to outcome; that bounds what is inside, and makes a slow stage felt at the source.
//!
//! A stage may have a number of workers, a bounded buffer before it, a rate, a timeout, retries under a budget, a
//! circuit breaker and a fallback, or collect items into batches. An error, a panic or a passed deadline is the
//! outcome of that item alone.
//!
//! Read `chain.rs` first, then `stage.rs`, then `road.rs`; `run.rs` takes whole streams through.

mod builder;
pub(crate) mod chain;
mod failure;
mod road;
mod run;
mod seats;
mod serve;
mod service;
pub(crate) mod stage;
mod stats;
mod turnstile;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use tokio::time::{Instant, timeout};

pub use builder::{Builder, Staged};
use chain::Start;
pub use failure::Failure;
use road::Way;
pub use run::Run;
pub use serve::Served;
pub use service::Client;
pub use stats::{PipelineStats, StageStats};

use crate::error::FlowError;
use crate::queue::Queue;
use crate::retry::Backoff;

/// A pipeline from `In` to `Out`. Clones are the same pipeline.
pub struct Pipeline<In, Out> {
    way: Arc<dyn Way<In, Out>>,
}

/// What a drain came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Items that were inside when the time was over and were cut short; each ends in a failure that says so.
    pub cut: u64,
}

impl<In: Send + 'static> Pipeline<In, In> {
    /// A pipeline without stages, to be given some.
    pub fn builder() -> Builder<In, Start> {
        Builder::new()
    }
}

impl<In: Send + 'static, Out: Send + 'static> Pipeline<In, Out> {
    /// Takes an item through. Waits for a credit first; dropped at any time, the item goes no further.
    ///
    /// # Errors
    /// Says what the item ended in instead.
    pub fn submit(&self, item: In) -> BoxFuture<'static, Result<Out, Failure>> {
        self.way.clone().walk(item, None, None)
    }

    /// Takes an item through without a future, if it is the item of a single stage whose work is done at once
    /// ([`Work::call_now`](crate::Work::call_now)), and a credit and a worker are free. All that is said of an item that is
    /// submitted holds for it. A stage with a rate, a breaker, retries or a fallback gives every item back.
    ///
    /// # Errors
    /// Gives the item back if it would have to wait or is not to be taken in, to be submitted.
    pub fn submit_now(&self, item: In) -> Result<Result<Out, Failure>, In> {
        self.way.walk_now(item)
    }

    /// Takes an item through, if that can be done before `deadline`: no attempt begins at or after it, and one that is
    /// under way then is dropped.
    ///
    /// # Errors
    /// Says what the item ended in instead.
    pub fn submit_by(&self, item: In, deadline: Instant) -> BoxFuture<'static, Result<Out, Failure>> {
        self.way.clone().walk(item, Some(deadline), None)
    }

    /// Takes all items of a stream through and gives their outcomes as they come; see [`Run`] for more. Dropping the
    /// run cancels what is left.
    pub fn run<S>(&self, items: S) -> Run<In, Out>
    where
        S: Stream<Item = In> + Send + 'static,
    {
        Run::new(self.way.clone(), items.boxed())
    }

    /// Takes items from a queue on lease until it is closed and nothing can come any more. An item that comes out is
    /// acknowledged; one with a permanent failure goes among the dead letters; any other goes back, to be taken again
    /// after `again`, or when it said so. The last stage is where outputs go. Leases are renewed for as long as their
    /// items are inside, so stages that can hang need timeouts. Dropping this gives back what is under way.
    pub async fn serve(&self, queue: &Queue<In>, again: Backoff) -> Served
    where
        In: Clone + Sync,
    {
        serve::serve(self.way.clone(), queue, again).await
    }

    /// A client of this pipeline that is a `tower` service.
    pub fn client(&self) -> Client<In, Out> {
        Client::new(self.way.clone())
    }

    /// Changes how many items a stage works on at once. Fewer than are under way become fewer as they end; none at all
    /// halts the stage.
    ///
    /// # Errors
    /// If no stage is called so.
    pub fn set_workers(&self, stage: &str, workers: usize) -> Result<(), FlowError> {
        let controls = self.way.controls();
        let Some(control) = controls.iter().find(|control| &*control.name == stage) else {
            let known = controls.iter().map(|control| control.name.to_string()).collect();
            return Err(FlowError::UnknownStage { found: stage.to_owned(), known });
        };
        control.seats.set_limit(workers);
        Ok(())
    }

    /// What has become of the items so far.
    pub fn stats(&self) -> PipelineStats {
        PipelineStats::of(self.way.gate(), &self.way.controls())
    }

    /// Takes nothing more. What is inside goes on.
    pub fn close(&self) {
        self.way.gate().close();
    }

    /// Takes nothing more and waits until all that is inside has ended, but no longer than `time`; then cuts the rest
    /// short, so that each ends in [`Failure::Cut`] as soon as whoever waits for it looks.
    pub async fn drain(&self, time: Duration) -> Drained {
        self.close();
        let gate = self.way.gate();
        match timeout(time, gate.credits.acquire_many(gate.limit)).await {
            // All credits are back, or another drain had them back before.
            Ok(_) => {
                gate.credits.close();
                Drained { cut: 0 }
            }
            Err(_) => {
                let cut = self.stats().in_flight();
                gate.cut();
                Drained { cut }
            }
        }
    }
}

impl<In, Out> Clone for Pipeline<In, Out> {
    fn clone(&self) -> Self {
        Self { way: self.way.clone() }
    }
}

impl<In, Out> fmt::Debug for Pipeline<In, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").finish_non_exhaustive()
    }
}
