//! Dynamic batching for models that do not generate: requests of one or many inputs, served together.
//!
//! ```text
//!   gate ──► prepare ──► turnstile (policy: tenants, priorities, deadlines) ──► batcher (window, buckets) ──► model
//! ```
//!
//! The bounds are those of [`flow::Gate`], the order that of [`flow::Line`], the batches those of [`flow::Batcher`]. Every
//! request is a task of a small runtime that the batcher owns; dropping the caller's future aborts it, wherever it is.

mod batches;
pub(crate) mod encoder;
mod model;
mod settings;
#[cfg(test)]
mod tests;
mod turnstile;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flow::batcher::BatchFailure;
use flow::queue::Permit;
use flow::work::Classed;
use flow::{Batcher, Capacity, Gate, Ticket};
use futures::future::join_all;
use protocol::{Failure, Phase, Priority, Refusal, Status, TenantId, Timing, Unserved};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

pub(crate) use batches::Care;
use batches::{Cell, Place, Runner, rules};

pub use model::BatchModel;
pub use settings::DynamicSettings;

use crate::clock::{Clock, SystemClock};
use crate::engine::{StopReport, refusal};
use crate::meters::{Meters, Stage};
use crate::roll::{Member, Roll};
use crate::turns::Turns;
use crate::{EngineError, Revive};
use turnstile::{Load, Turnstile};

/// Serves a model in batches. Dropping it fails what is still running; use [`Dynamic::drain`] to let that finish.
pub struct Dynamic<M: BatchModel> {
    shared: Arc<Shared<M>>,
    /// `None` where the tasks run on somebody else's runtime.
    runtime: Option<Runtime>,
}

/// What the tasks of a batcher share.
struct Shared<M: BatchModel> {
    gate: Gate,
    turnstile: Turnstile,
    batcher: Batcher<Arc<M::Input>, M::Output, Classed>,
    meters: Arc<Meters>,
    clock: Arc<dyn Clock>,
    roll: Arc<Roll>,
    handle: Handle,
    /// Whether accepted requests are to be failed.
    ending: watch::Sender<Ending>,
    stall_after: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    No,
    Now,
}

/// Whose work a request is, how urgent, and until when it is of use.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Whose work it is.
    pub tenant: TenantId,
    /// How urgent it is.
    pub priority: Priority,
    /// Time from admission after which it is of no use.
    pub deadline: Option<Duration>,
}

/// Why there is no output for one input, though its request was served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ItemError {
    /// What the model said.
    pub message: String,
}

/// A request that has a place in the queue and whose inputs are not known yet.
pub(crate) struct Admitted {
    permit: Permit,
    member: Member,
    terms: Terms,
    at: Duration,
    /// How long it took from then to read its inputs.
    prepared: Duration,
}

/// The outputs of one request, and where its time went: how long the last of its inputs waited.
pub(crate) struct Served<O> {
    pub(crate) outputs: Vec<Result<O, ItemError>>,
    pub(crate) timing: Timing,
}

impl<M: BatchModel> Dynamic<M> {
    /// Serves `model` on a small runtime of its own.
    ///
    /// # Errors
    /// When a setting cannot work, or the system refuses the threads.
    pub fn start(model: M, settings: &DynamicSettings) -> Result<Self, EngineError> {
        Self::start_with(model, settings, Care { turns: Turns::default(), revive: None })
    }

    /// As [`Dynamic::start`], and goes on with what `revive` gives when the model has not come back from a batch for
    /// [`DynamicSettings::restart_after`]. The thread that runs it cannot be ended and is left to itself.
    ///
    /// # Errors
    /// As [`Dynamic::start`].
    pub fn start_revivable(
        model: M,
        settings: &DynamicSettings,
        revive: Revive<M>,
    ) -> Result<Self, EngineError> {
        Self::start_with(model, settings, Care { turns: Turns::default(), revive: Some(revive) })
    }

    pub(crate) fn start_with(
        model: M,
        settings: &DynamicSettings,
        care: Care<M>,
    ) -> Result<Self, EngineError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("tidegate-dynamic")
            .enable_time()
            .build()
            .map_err(EngineError::Thread)?;
        let clock = Arc::new(SystemClock::new());
        let shared = Shared::new((model, care), settings, runtime.handle().clone(), clock)?;
        Ok(Self { shared, runtime: Some(runtime) })
    }

    /// Has one input served with others.
    ///
    /// # Errors
    /// Refused, or failed after it was accepted; the inner error is what the model says of this input.
    pub async fn submit(
        &self,
        input: M::Input,
        terms: Terms,
    ) -> Result<Result<M::Output, ItemError>, Unserved> {
        let outputs = self.submit_all(vec![input], terms).await?;
        let nothing = || Err(ItemError { message: "there is no outcome".to_owned() });
        Ok(outputs.into_iter().next().unwrap_or_else(nothing))
    }

    /// Has several inputs served, as one request. Dropping the future cancels them, wherever they are.
    ///
    /// # Errors
    /// As [`Dynamic::submit`].
    pub async fn submit_all(
        &self,
        inputs: Vec<M::Input>,
        terms: Terms,
    ) -> Result<Vec<Result<M::Output, ItemError>>, Unserved> {
        let admitted = self.admit(terms)?;
        Ok(self.serve(admitted, inputs).await?.outputs)
    }

    /// Takes a place in the queue, before anything is spent on the request.
    pub(crate) fn admit(&self, terms: Terms) -> Result<Admitted, Refusal> {
        let Shared { gate, clock, roll, .. } = &*self.shared;
        let admit = || {
            let member = roll.join();
            self.shared.meters.check_ready()?;
            let at = clock.now();
            let permit = gate.enter(at).map_err(refusal)?;
            Ok(Admitted { permit, member, terms: terms.clone(), at, prepared: Duration::ZERO })
        };
        admit().inspect_err(|refusal| self.shared.meters.refused(refusal))
    }

    /// Serves the inputs of a request that has been admitted.
    pub(crate) async fn serve(
        &self,
        mut admitted: Admitted,
        inputs: Vec<M::Input>,
    ) -> Result<Served<M::Output>, Unserved> {
        let shared = &self.shared;
        let costs = inputs.iter().map(M::cost).fold(0u64, u64::saturating_add);
        let now = shared.clock.now();
        admitted.prepared = now.saturating_sub(admitted.at);
        let weighed = admitted.permit.weigh(costs, 0, now).map_err(refusal);
        weighed.inspect_err(|refusal| shared.meters.refused(refusal))?;
        shared.meters.accepted.fetch_add(1, Relaxed);
        let task = shared.handle.spawn(Arc::clone(shared).run(admitted, inputs));
        let mut cancelling = Cancelling { shared, task: Some(task.abort_handle()) };
        let ended = task.await;
        cancelling.task = None;
        let failed = |failure: &Failure| shared.meters.failed(failure);
        match ended {
            Ok(outcome) => Ok(outcome.inspect_err(failed)?),
            // The runtime ended under the task.
            Err(_) => Err(Failure::ShuttingDown).inspect_err(failed)?,
        }
    }

    /// Where the model is in its life, how it does, and what it has done.
    pub fn status(&self) -> Status {
        let Shared { gate, meters, clock, turnstile, .. } = &*self.shared;
        Status {
            phase: meters.phase(),
            health: meters.health(clock.now(), self.shared.stall_after),
            load: protocol::status::Load {
                queued: gate.held() as u64,
                oldest_queued_seconds: turnstile.oldest_age().as_secs_f64(),
                queue_capacity: gate.capacity().items as u64,
                running: turnstile.passed().items as u64,
                ..protocol::status::Load::default()
            },
            counters: meters.counters(),
            latency: meters.latencies(),
            ..Status::default()
        }
    }

    /// Accepts no more and resolves when everything accepted has ended.
    pub async fn drain(&self) {
        self.shared.meters.enter(Phase::Draining);
        self.shared.roll.empty().await;
    }

    /// Accepts no more, gives what is accepted `grace` to end, and fails the rest.
    pub async fn stop(&self, grace: Duration) -> StopReport {
        let drained = tokio::time::timeout(grace, self.drain()).await;
        let aborted = if drained.is_ok() { 0 } else { self.shared.roll.count() };
        self.shared.ending.send_replace(Ending::Now);
        self.shared.meters.enter(Phase::Stopped);
        StopReport { aborted }
    }

    pub(crate) fn meters(&self) -> &Meters {
        &self.shared.meters
    }

    /// Where work that takes long is done beside the tasks.
    pub(crate) fn handle(&self) -> &Handle {
        &self.shared.handle
    }
}

impl<M: BatchModel> Drop for Dynamic<M> {
    fn drop(&mut self) {
        self.shared.ending.send_replace(Ending::Now);
        self.shared.meters.enter(Phase::Stopped);
        if let Some(runtime) = self.runtime.take() {
            // It may be dropped by a task, which must not wait for a runtime to end.
            runtime.shutdown_background();
        }
    }
}

/// Aborts the task of a request nobody waits for any more.
struct Cancelling<'a, M: BatchModel> {
    shared: &'a Shared<M>,
    task: Option<AbortHandle>,
}

impl<M: BatchModel> Drop for Cancelling<'_, M> {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
            self.shared.meters.cancelled(Stage::Queued);
        }
    }
}

impl<M: BatchModel> Shared<M> {
    fn new(
        (model, care): (M, Care<M>),
        settings: &DynamicSettings,
        handle: Handle,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, EngineError> {
        let DynamicSettings { batch_items, queue_requests, .. } = *settings;
        for (setting, found) in [("batch_items", batch_items), ("queue_requests", queue_requests)] {
            if found == 0 {
                return Err(EngineError::Setting { setting, expected: "at least 1".to_owned(), found });
            }
        }
        let meters = Arc::new(Meters::new());
        let roll: Arc<Roll> = Arc::default();
        let rules = rules::<M>(settings);
        let cell = Cell {
            place: tokio::sync::Mutex::new(Place::Here(Runner::new(model, &care.turns))),
            care,
            patience: settings.restart_after,
            meters: meters.clone(),
            roll: roll.clone(),
            clock: clock.clone(),
        };
        let cell = Arc::new(cell);
        let batcher = Batcher::new(rules, move |batch| Arc::clone(&cell).run(batch));
        // One batch is served, one is ready to follow, and one gathers.
        let most = Load { items: 3 * batch_items, cost: settings.batch_cost.saturating_mul(3) };
        meters.enter(Phase::Ready);
        Ok(Arc::new(Self {
            gate: Gate::new(Capacity::items(queue_requests).cost(settings.queue_cost)),
            turnstile: Turnstile::new(settings.policy.clone(), most, clock.clone()),
            batcher,
            meters,
            clock,
            roll,
            handle,
            ending: watch::Sender::new(Ending::No),
            stall_after: settings.stall_after,
        }))
    }

    /// One request, from the queue to its outputs.
    async fn run(
        self: Arc<Self>,
        admitted: Admitted,
        inputs: Vec<M::Input>,
    ) -> Result<Served<M::Output>, Failure> {
        let Admitted { permit, member: _member, terms, at, prepared } = admitted;
        let now = self.clock.now();
        let _last = LastOut(&self);
        if self.turnstile.passed() == Load::default() && self.turnstile.waiting() == 0 {
            self.gate.idle(now);
            self.meters.progress(1, now);
        }
        let deadline = terms.deadline.map(|deadline| at.saturating_add(deadline));
        let left = deadline.map(|deadline| Instant::now() + deadline.saturating_sub(now));
        let mut ending = self.ending.subscribe();
        let served = self.clone().pass_all(inputs, (&terms, deadline, left), permit);
        let late = async {
            match left {
                Some(left) => tokio::time::sleep_until(left).await,
                None => std::future::pending().await,
            }
        };
        let (outputs, started) = tokio::select! {
            biased;
            served = served => served,
            () = late => return Err(Failure::DeadlineExceeded),
            _ = ending.wait_for(|ending| *ending == Ending::Now) => return Err(Failure::ShuttingDown),
        };
        if outputs.iter().any(|output| matches!(output, Err(BatchFailure::Expired))) {
            return Err(Failure::DeadlineExceeded);
        }
        let outputs = outputs.into_iter();
        let outputs = outputs.map(|output| output.map_err(|error| ItemError { message: error.to_string() }));
        let now = self.clock.now();
        let accepted = at.saturating_add(prepared);
        let (queued, total) = (started.saturating_sub(accepted), now.saturating_sub(accepted));
        self.meters.queue.observe(queued);
        self.meters.request.observe(total);
        // What there is comes all at once.
        let timing = Timing { prepared, queued, vision: Duration::ZERO, first_token: total, total };
        Ok(Served { outputs: outputs.collect(), timing })
    }

    /// Takes every input through the turnstile and the batcher; the room in the queue is given back when the last one has
    /// left it.
    async fn pass_all(
        self: Arc<Self>,
        inputs: Vec<M::Input>,
        (terms, deadline, left): (&Terms, Option<Duration>, Option<Instant>),
        permit: Permit,
    ) -> (Vec<Result<M::Output, BatchFailure<Classed>>>, Duration) {
        let owner: Arc<str> = Arc::from(terms.tenant.0.as_str());
        let room = Room { waiting: inputs.len(), permit: Some(permit), emptied: Duration::ZERO };
        let room = Mutex::new(room);
        let one = |input: M::Input| {
            let ticket = Ticket::of(owner.clone()).level(terms.priority as u8).cost(M::cost(&input));
            let (ticket, room, shared) = (Ticket { deadline, ..ticket }, &room, &self);
            async move {
                let place = shared.turnstile.pass(ticket).await;
                room.lock().unwrap_or_else(PoisonError::into_inner).leave(shared.clock.now());
                let outcome = match left {
                    Some(left) => shared.batcher.submit_by(Arc::new(input), left).await,
                    None => shared.batcher.submit(Arc::new(input)).await,
                };
                drop(place);
                outcome
            }
        };
        let outputs = join_all(inputs.into_iter().map(one)).await;
        let emptied = room.lock().unwrap_or_else(PoisonError::into_inner).emptied;
        (outputs, emptied)
    }
}

/// Notes that there is no work any more when the last request goes, whatever became of it.
struct LastOut<'a, M: BatchModel>(&'a Shared<M>);

impl<M: BatchModel> Drop for LastOut<'_, M> {
    fn drop(&mut self) {
        if self.0.roll.count() <= 1 {
            self.0.meters.progress(0, self.0.clock.now());
        }
    }
}

/// The room in the queue of a request some of whose inputs wait.
struct Room {
    waiting: usize,
    permit: Option<Permit>,
    emptied: Duration,
}

impl Room {
    fn leave(&mut self, now: Duration) {
        self.waiting -= 1;
        if self.waiting == 0
            && let Some(permit) = self.permit.take()
        {
            permit.serve(now);
            self.emptied = now;
        }
    }
}
