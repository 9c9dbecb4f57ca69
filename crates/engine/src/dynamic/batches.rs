//! Batches: which inputs go together, and the model that serves them.
//!
//! The model leaves the batcher's hands while it runs. One that does not come back keeps the thread that called it, and
//! nothing else: its batch fails, its turn on the compute threads ends, and the next batch is served by the model that
//! [`Revive`] gives.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use flow::Batch;
use flow::batcher::WhenIdle;
use flow::work::Classed;
use tokio::sync::{Mutex, oneshot};
use tokio::task::spawn_blocking;

use super::{BatchModel, DynamicSettings};
use crate::Revive;
use crate::clock::Clock;
use crate::meters::Meters;
use crate::roll::Roll;
use crate::turns::{Seat, Turns};

/// How the inputs of a model become batches.
pub(super) fn rules<M: BatchModel>(settings: &DynamicSettings) -> Batch<Arc<M::Input>> {
    Batch::up_to(settings.batch_items)
        .within(settings.max_delay)
        .when_idle(WhenIdle::Adapt)
        .cost(settings.batch_cost, |input: &Arc<M::Input>| M::cost(input))
        .buckets(settings.buckets.clone(), |input: &Arc<M::Input>| M::cost(input))
        .executors(1)
        .at_most(1)
        .capacity(3 * settings.batch_items)
        .bisect()
}

/// Where a model computes, and how it is dealt with when it does not come back.
pub(crate) struct Care<M> {
    pub(crate) turns: Turns,
    /// `None` if there is no other one to be had: it is waited for without end.
    pub(crate) revive: Option<Revive<M>>,
}

/// The model, and who watches it.
pub(super) struct Cell<M> {
    pub(super) place: Mutex<Place<M>>,
    pub(super) care: Care<M>,
    /// After so long in a batch, it does not come back.
    pub(super) patience: Option<Duration>,
    pub(super) meters: Arc<Meters>,
    pub(super) roll: Arc<Roll>,
    pub(super) clock: Arc<dyn Clock>,
}

/// Where the model is.
pub(super) enum Place<M> {
    /// Here, ready for a batch.
    Here(Runner<M>),
    /// With a thread that does not come back.
    Away,
    /// There is none any more.
    Lost(Lost),
}

/// What a batch is computed with.
pub(super) struct Runner<M> {
    model: M,
    seat: Arc<Seat>,
}

/// What became of a batch: as [`BatchModel::run`] says, or the panic that it ended in.
type Ran<M> = thread::Result<
    Result<Vec<Result<<M as BatchModel>::Output, <M as BatchModel>::Error>>, <M as BatchModel>::Error>,
>;

/// Why the inputs of a batch have no outcome.
#[derive(Debug, thiserror::Error)]
#[error(
    "the model did not come back from the batch of this input for {after:?} and is loaded again; ask again, and for less \
     at once if it happens again"
)]
struct Stuck {
    after: Duration,
}

/// Why there is no model any more.
#[derive(Clone, Debug, thiserror::Error)]
#[error("a batch has not ended, and the model cannot be loaded again: {reason}")]
pub(super) struct Lost {
    reason: Arc<str>,
}

impl<M: BatchModel> Runner<M> {
    pub(super) fn new(model: M, turns: &Turns) -> Self {
        Self { model, seat: Arc::new(turns.seat()) }
    }

    /// Runs a batch when it is the model's turn, and tells when that is.
    fn run(mut self, batch: &[Arc<M::Input>], begun: oneshot::Sender<()>) -> (Self, Ran<M>) {
        let Self { model, seat } = &mut self;
        seat.enter();
        let turn = seat.turn();
        // Who loads no model again does not listen.
        let _ = begun.send(());
        let ran = catch_unwind(AssertUnwindSafe(|| model.run(batch)));
        drop(turn);
        (self, ran)
    }
}

impl<M: BatchModel> Cell<M> {
    /// One batch.
    pub(super) async fn run(
        self: Arc<Self>,
        batch: Vec<Arc<M::Input>>,
    ) -> Result<Vec<Result<M::Output, Classed>>, Classed> {
        let cost: u64 = batch.iter().map(|input| M::cost(input)).fold(0, u64::saturating_add);
        let began = self.clock.now();
        self.meters.progress(1, began);
        let mut place = self.place.lock().await;
        let runner = self.take(&mut place).await.map_err(Classed::transient)?;
        let seat = Arc::clone(&runner.seat);
        let (begun, begins) = oneshot::channel();
        let running = spawn_blocking(move || runner.run(&batch, begun));
        let (runner, ran) = tokio::select! {
            biased;
            ran = running => ran.map_err(Classed::transient)?,
            after = self.stuck(begins) => {
                self.leave_behind(&seat, after);
                return Err(Classed::transient(Stuck { after }));
            }
        };
        *place = Place::Here(runner);
        drop(place);
        self.count((began, cost), &ran);
        let outputs = ran.unwrap_or_else(|panic| resume_unwind(panic)).map_err(Classed::permanent)?;
        Ok(outputs.into_iter().map(|output| output.map_err(Classed::permanent)).collect())
    }

    /// Resolves when the model has had its turn for too long. To wait for the turn is not its fault.
    async fn stuck(&self, begins: oneshot::Receiver<()>) -> Duration {
        if let (Some(after), Some(_)) = (self.patience, &self.care.revive)
            && begins.await.is_ok()
        {
            tokio::time::sleep(after).await;
            return after;
        }
        std::future::pending().await
    }

    /// Goes on without the model, and has another one loaded whether anybody waits for it or not.
    fn leave_behind(self: &Arc<Self>, seat: &Seat, after: Duration) {
        seat.rest();
        tracing::error!("a batch has not ended for {after:?}; the model is loaded again");
        let now = self.clock.now();
        self.meters.fault("a batch did not end; the model was loaded again", now);
        self.meters.restarts.fetch_add(1, Relaxed);
        self.meters.progress(self.roll.count(), now);
        let cell = Arc::clone(self);
        tokio::spawn(async move {
            let mut place = cell.place.lock().await;
            if let Ok(runner) = cell.take(&mut place).await {
                *place = Place::Here(runner);
            }
        });
    }

    /// The model, loaded again if it is away.
    async fn take(&self, place: &mut Place<M>) -> Result<Runner<M>, Lost> {
        match std::mem::replace(place, Place::Away) {
            Place::Here(runner) => return Ok(runner),
            Place::Lost(lost) => {
                *place = Place::Lost(lost.clone());
                return Err(lost);
            }
            Place::Away => {}
        }
        let loaded = match self.care.revive.clone() {
            Some(revive) => spawn_blocking(move || revive.load()).await,
            None => Ok(Err("nobody has said how".to_owned())),
        };
        let now = self.clock.now();
        match loaded.unwrap_or_else(|panic| Err(panic.to_string())) {
            Ok(model) => {
                tracing::warn!("the model was loaded again");
                self.meters.progress(self.roll.count(), now);
                Ok(Runner::new(model, &self.care.turns))
            }
            Err(reason) => {
                tracing::error!(reason, "the model cannot be loaded again");
                let lost = Lost { reason: reason.into() };
                self.meters.died(&lost.to_string(), now);
                *place = Place::Lost(lost.clone());
                Err(lost)
            }
        }
    }

    /// Notes how a batch of that cost went.
    fn count(&self, (began, cost): (Duration, u64), ran: &Ran<M>) {
        let now = self.clock.now();
        self.meters.steps.fetch_add(1, Relaxed);
        self.meters.step.observe(now.saturating_sub(began));
        self.meters.step_tokens.observe(usize::try_from(cost).unwrap_or(usize::MAX));
        self.meters.progress(self.roll.count(), now);
        match ran {
            Ok(Ok(_)) => {
                self.meters.recovered();
                self.meters.prompt_tokens.fetch_add(cost, Relaxed);
            }
            Ok(Err(error)) => self.meters.fault(&error.to_string(), now),
            Err(_) => self.meters.fault("the model panicked", now),
        }
    }
}
