//! Pipelines whose stages are Python functions.

mod submission;

use std::future::Future;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;

use flow::breaker::{Breaker, BreakerRules};
use flow::pipeline::{PipelineStats, StageStats};
use flow::{BreakerState, Failure, Retry};
use futures::future::{BoxFuture, FutureExt, join, ready};
use futures::poll;
use futures::stream::{FuturesOrdered, StreamExt};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use serde_json::{Value, json};
use tokio::time::Instant;

pub(crate) use submission::Submission;

use crate::awaitable::{Awaitable, Crowd, give_way};
use crate::call::{Function, setting, words};
use crate::errors::{self, Field};
use crate::item::{Carried, Fault};
use crate::request::seconds;

type Stage = flow::Pipeline<Carried, Carried>;

/// An item and the stages that it is to pass.
struct Trip {
    item: Carried,
    stages: Arc<[Stage]>,
    deadline: Option<Instant>,
}

/// A pipeline that gets its stages one by one. `tidegate.AsyncPipeline` is the class for people; it subclasses this one so
/// that a submission is one call and no more.
#[pyclass(frozen, subclass)]
pub(crate) struct Pipeline {
    /// There once it was opened.
    inside: OnceLock<Arc<Inside>>,
}

pub(crate) struct Inside {
    places: u32,
    /// Whether whoever submits one item too many is refused rather than made to wait.
    refuses: bool,
    /// Bounds what is inside, whatever stage it is in. Items do not pass it while there is but one stage, which has the
    /// same bound of its own.
    whole: flow::Pipeline<Trip, Result<Carried, Failure>>,
    stages: Mutex<Stages>,
}

/// The stages with their names.
#[derive(Default)]
struct Stages {
    names: Vec<String>,
    /// Shared with every item on its way.
    all: Arc<[Stage]>,
    /// What had become of the items that passed the first stage while it was the only one.
    before: Option<PipelineStats>,
}

/// How an item goes through.
enum Way {
    /// By the only stage there is.
    Alone(Stage),
    /// Within the bound of the whole pipeline.
    Along(Arc<[Stage]>),
}

impl Inside {
    fn lock(&self) -> MutexGuard<'_, Stages> {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more item would have to wait outside.
    fn is_full(&self) -> bool {
        let stats = self.alone().map_or_else(|| self.whole.stats(), |stage| stage.stats());
        stats.in_flight() >= u64::from(self.places)
    }

    /// The only stage, if there is but one.
    fn alone(&self) -> Option<Stage> {
        match &*self.lock().all {
            [stage] => Some(stage.clone()),
            _ => None,
        }
    }

    fn way(&self, only: Option<&str>) -> PyResult<Way> {
        let stages = self.stages(only)?;
        Ok(self.alone().map_or(Way::Along(stages), Way::Alone))
    }

    /// Takes an item through. The way is chosen when it begins, so that every item is on one of the books.
    fn pass(&self, item: Carried, only: Option<&str>, deadline: Option<Instant>) -> PyResult<Passage> {
        Ok(match (self.way(only)?, deadline) {
            (Way::Alone(stage), None) => stage.submit(item),
            (Way::Alone(stage), Some(deadline)) => stage.submit_by(item, deadline),
            (Way::Along(stages), deadline) => {
                let trip = Trip { item, stages, deadline };
                let passes = match deadline {
                    None => self.whole.submit(trip),
                    Some(deadline) => self.whole.submit_by(trip, deadline),
                };
                passes.map(|ended| ended.and_then(|passed| passed)).boxed()
            }
        })
    }

    /// The same without a future, where there is but one stage and it need not wait.
    fn pass_now(&self, item: Carried) -> Result<Result<Carried, Failure>, Carried> {
        match self.alone() {
            Some(stage) => stage.submit_now(item),
            None => Err(item),
        }
    }

    fn stages(&self, only: Option<&str>) -> PyResult<Arc<[Stage]>> {
        let found = self.lock().found(only);
        found.map_err(|message| errors::exception("InvalidRequestError", message, &[]))
    }
}

impl Stages {
    /// The stages, or the named one; else what is wrong. No exception is made while the lock is held, for that lets other
    /// threads of Python's run, which may wait for it.
    fn found(&self, only: Option<&str>) -> Result<Arc<[Stage]>, String> {
        let found = match only {
            None => Arc::clone(&self.all),
            Some(only) => {
                let at = self.names.iter().position(|name| name == only);
                at.map(|at| self.all[at].clone()).into_iter().collect()
            }
        };
        match only {
            _ if !found.is_empty() => Ok(found),
            Some(name) => Err(format!("there is no task '{name}'; add_task('{name}', function) adds it")),
            None => Err("the pipeline has no task; add_task(name, function) adds one".to_owned()),
        }
    }

    fn add(&mut self, name: &str, stage: Stage) -> Result<(), String> {
        if self.names.iter().any(|known| known == name) {
            return Err(format!("there is a task '{name}' already; give this one another name"));
        }
        if let [only] = &*self.all {
            let before = only.stats();
            if before.in_flight() > 0 {
                let many = before.in_flight();
                return Err(format!("{many} items are in the only task; add '{name}' before or after them"));
            }
            self.before = Some(before);
        }
        self.names.push(name.to_owned());
        self.all = self.all.iter().cloned().chain([stage]).collect();
        Ok(())
    }
}

type Passage = BoxFuture<'static, Result<Carried, Failure>>;

async fn travel(trip: Trip) -> Result<Result<Carried, Failure>, std::convert::Infallible> {
    let mut item = trip.item;
    for stage in trip.stages.iter() {
        let passed = match trip.deadline {
            Some(deadline) => stage.submit_by(item, deadline).await,
            None => stage.submit(item).await,
        };
        match passed {
            Ok(next) => item = next,
            Err(failure) => return Ok(Err(failure)),
        }
    }
    Ok(Ok(item))
}

/// So many items end before the event loop has its turn, which it then gets every half a millisecond or so.
const ROUND: usize = 512;

/// What an item that fails does to the others of its stream.
#[derive(Clone, Copy, PartialEq)]
enum OnError {
    /// Its exception is its outcome.
    Keep,
    /// Its exception is that of all; what has not ended is cancelled.
    Raise,
}

/// The outcomes of items, in their order, with at most so many inside at once.
async fn collect<B>(
    mut begun: impl Iterator<Item = B>,
    places: usize,
    on_error: OnError,
) -> PyResult<Vec<Py<PyAny>>>
where
    B: Future<Output = Result<Carried, Failure>> + Unpin,
{
    let mut outcomes = Vec::with_capacity(begun.size_hint().0);
    let mut waiting = FuturesOrdered::new();
    loop {
        let mut ended = None;
        while waiting.len() < places.max(1)
            && let Some(mut next) = begun.next()
        {
            // What needs not wait, while nothing before it does, costs no more than the call.
            if waiting.is_empty()
                && let Poll::Ready(outcome) = poll!(&mut next)
            {
                ended = Some(outcome);
                break;
            }
            waiting.push_back(next);
        }
        if ended.is_none() {
            ended = waiting.next().await;
        }
        let Some(ended) = ended else { return Ok(outcomes) };
        match ended {
            Ok(item) => outcomes.push(item.object),
            Err(failure) if on_error == OnError::Raise => return Err(raised(failure)),
            Err(failure) => {
                outcomes.push(Python::attach(|py| raised(failure).into_value(py).into_any()));
            }
        }
        if outcomes.len() % ROUND == 0 {
            give_way().await;
        }
    }
}

/// The exception that a failure is: the one that the function raised, if it raised one.
fn raised(failure: Failure) -> PyErr {
    let message = failure.to_string();
    match failure {
        Failure::Failed { stage, attempts, cause, .. } => match cause.downcast::<Fault>() {
            Ok(fault) => noted(fault.error, &format!("in task '{stage}', at attempt {attempts}")),
            Err(_) => {
                let attempts = Field::Count(attempts.into());
                errors::exception(
                    "TaskFailedError",
                    message,
                    &[("stage", Field::Text(&stage)), ("attempts", attempts)],
                )
            }
        },
        Failure::Open { stage, retry_after } => {
            let fields = [("stage", Field::Text(&stage)), ("retry_after", Field::Seconds(retry_after))];
            errors::exception("CircuitOpenError", message, &fields)
        }
        Failure::Expired { .. } | Failure::TimedOut { .. } => {
            errors::exception("DeadlineExceededError", message, &[])
        }
        Failure::Cut { .. } | Failure::Closed => errors::exception("QueueClosedError", message, &[]),
        _ => errors::exception("TaskFailedError", message, &[]),
    }
}

/// Says where an exception came from, where Python can (3.11 and later).
fn noted(error: PyErr, note: &str) -> PyErr {
    Python::attach(|py| {
        error.value(py).call_method1("add_note", (note,)).ok();
    });
    error
}

fn duration(settings: &Bound<'_, PyDict>, name: &str) -> PyResult<Option<Duration>> {
    setting::<f64>(settings, name)?.map(|value| seconds(name, value)).transpose()
}

fn breaker(settings: &Bound<'_, PyDict>) -> PyResult<Option<Breaker>> {
    let Some(rate) = setting::<f64>(settings, "breaker_failure_rate")? else { return Ok(None) };
    let calls = setting(settings, "breaker_calls")?.unwrap_or(10);
    let open_for = duration(settings, "breaker_open_for")?.unwrap_or(Duration::from_secs(5));
    let rules = BreakerRules::default().at_least(calls).failure_rate(rate).open_for(open_for, 0.2);
    Ok(Some(Breaker::new(rules)))
}

fn stage(name: &str, function: Function, settings: &Bound<'_, PyDict>, places: u32) -> PyResult<Stage> {
    let mut staged = flow::Pipeline::builder().credits(places).work(name, function);
    if let Some(workers) = setting(settings, "workers")? {
        staged = staged.workers(workers);
    }
    if let Some(timeout) = duration(settings, "timeout")? {
        staged = staged.timeout(timeout);
    }
    if let Some(rate) = setting::<NonZeroU32>(settings, "rate")? {
        staged = staged.rate(rate, Duration::from_secs(1), rate);
    }
    if let Some(retries) = setting::<u32>(settings, "retries")?.filter(|retries| *retries > 0) {
        let first = duration(settings, "retry_delay")?.unwrap_or(Duration::from_millis(100));
        let longest = duration(settings, "longest_retry_delay")?.unwrap_or(Duration::from_secs(10));
        staged = staged.retry(Retry::exponential(first, longest).attempts(retries.saturating_add(1)));
    }
    if let Some(breaker) = breaker(settings)? {
        staged = staged.breaker(breaker);
    }
    if let Some(fallback) = setting::<Py<PyAny>>(settings, "fallback")? {
        let fallback = Arc::new(Function::new(fallback, "loop", None));
        staged = staged.fallback(move |item: Carried, failure| {
            let fallback = Arc::clone(&fallback);
            async move {
                let error = Python::attach(|py| raised(failure).into_value(py).into_any());
                let answered = match words((item.object, error)) {
                    Ok(words) => fallback.call_here(words).await,
                    Err(error) => Err(error),
                };
                answered.map(Carried::new).map_err(|error| Failure::Failed {
                    stage: "fallback".into(),
                    attempts: 1,
                    class: flow::Class::Permanent,
                    cause: Box::new(Fault::from(error)),
                })
            }
        });
    }
    Ok(staged.build())
}

impl Pipeline {
    fn inside(&self) -> PyResult<&Arc<Inside>> {
        let closed = || PyRuntimeError::new_err("the pipeline was not made; call super().__init__() first");
        self.inside.get().ok_or_else(closed)
    }
}

#[pymethods]
impl Pipeline {
    /// One that is to be opened. What it is given is for the class above it.
    #[new]
    #[pyo3(signature = (*_arguments, **_named))]
    fn new(_arguments: &Bound<'_, PyTuple>, _named: Option<&Bound<'_, PyDict>>) -> Self {
        Self { inside: OnceLock::new() }
    }

    /// Has it hold at most so many items. Whoever submits one more waits (`wait`), or is refused (`refuse`).
    fn _open(&self, places: u32, when_full: &str) -> PyResult<()> {
        let whole = flow::Pipeline::builder().credits(places).stage("pipeline", travel).build();
        let refuses = when_full == "refuse";
        let inside = Inside { places, refuses, whole, stages: Mutex::default() };
        let made = |_| PyRuntimeError::new_err("the pipeline was made already");
        self.inside.set(Arc::new(inside)).map_err(made)
    }

    /// Adds a task behind the others.
    fn _add(&self, name: &str, function: Py<PyAny>, settings: &Bound<'_, PyDict>) -> PyResult<()> {
        let inside = self.inside()?;
        let place: String = setting(settings, "place")?.unwrap_or_default();
        let function = Function::new(function, &place, setting(settings, "retry_on")?);
        let stage = stage(name, function, settings, inside.places)?;
        let added = inside.lock().add(name, stage);
        added.map_err(|message| errors::exception("InvalidRequestError", message, &[]))
    }

    /// Takes an item through all tasks, or through the named one, when it is awaited. Whoever submits more than
    /// `buffer_size` items waits, or without backpressure is refused with a `QueueFullError`. After `timeout` seconds, if
    /// they are given, the item is given up with a `DeadlineExceededError`.
    #[pyo3(signature = (item, *, task=None, timeout=None))]
    fn submit(
        slf: Py<Self>,
        item: Py<PyAny>,
        task: Option<&str>,
        timeout: Option<f64>,
    ) -> PyResult<Awaitable> {
        let inside = slf.get().inside()?;
        if inside.refuses && inside.is_full() {
            let message = format!(
                "the pipeline holds {} items, as many as buffer_size says; try again, or set enable_backpressure to wait",
                inside.places
            );
            return Err(errors::exception("QueueFullError", message, &[]));
        }
        let timeout = timeout.map(|timeout| seconds("timeout", timeout)).transpose()?;
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let (item, only) = (Carried::new(item), task.map(Box::from));
        Ok(Awaitable::submission(Submission::Fresh { pipeline: slf, item, only, deadline }))
    }

    /// Takes an item through all tasks. It waits where `submit` may refuse.
    fn _pass(slf: Py<Self>, item: Py<PyAny>) -> Awaitable {
        let (pipeline, item) = (slf, Carried::new(item));
        Awaitable::submission(Submission::Fresh { pipeline, item, only: None, deadline: None })
    }

    /// Takes many items through all tasks, none of which may be a coroutine function; answers their outcomes in their
    /// order. What fails ends that (`raise`), or has its exception as its outcome (`keep`).
    fn _map(&self, items: Vec<Py<PyAny>>, on_error: &str) -> PyResult<Awaitable> {
        let inside = Arc::clone(self.inside()?);
        let places = inside.places as usize;
        let on_error = if on_error == "keep" { OnError::Keep } else { OnError::Raise };
        Ok(Awaitable::new(async move {
            let items = items.into_iter().map(Carried::new);
            match inside.way(None)? {
                Way::Alone(stage) => {
                    let begun = items.map(|item| match stage.submit_now(item) {
                        Ok(ended) => ready(ended).left_future(),
                        Err(item) => stage.submit(item).right_future(),
                    });
                    Crowd(Box::pin(collect(begun, places, on_error))).await
                }
                Way::Along(stages) => {
                    let begun = items.map(|item| {
                        let trip = Trip { item, stages: Arc::clone(&stages), deadline: None };
                        inside.whole.submit(trip).map(|ended| ended.and_then(|passed| passed))
                    });
                    Crowd(Box::pin(collect(begun, places, on_error))).await
                }
            }
        }))
    }

    /// Changes how many items a task works on at once.
    fn _set_workers(&self, name: &str, workers: usize) -> PyResult<()> {
        let wrong = |error: flow::FlowError| errors::exception("InvalidRequestError", error, &[]);
        self.inside()?.stages(Some(name))?[0].set_workers(name, workers).map_err(wrong)
    }

    /// What has become of the items, as JSON.
    fn _stats(&self) -> PyResult<String> {
        let inside = self.inside()?;
        let whole = inside.whole.stats();
        let (stages, before) = {
            let stages = inside.lock();
            let all: Vec<PipelineStats> = stages.all.iter().map(Stage::stats).collect();
            // Items that passed the only stage are on its books, all others on those of the whole.
            let before = if let [only] = &all[..] { Some(only.clone()) } else { stages.before.clone() };
            (all, before)
        };
        let tasks: Vec<Value> = stages.iter().flat_map(|stats| &stats.stages).map(task).collect();
        let alone = |read: fn(&PipelineStats) -> u64| before.as_ref().map_or(0, read);
        // What a stage gave up has come out of the whole as a failure.
        let failed = stages.iter().map(|stats| stats.failed).sum::<u64>() - alone(|stats| stats.failed);
        let expired = stages.iter().map(|stats| stats.expired).sum::<u64>() - alone(|stats| stats.expired);
        let stats = json!({
            "accepted": whole.accepted + alone(|stats| stats.accepted),
            "completed": whole.completed.saturating_sub(failed + expired) + alone(|stats| stats.completed),
            "failed": whole.failed + failed + alone(|stats| stats.failed),
            "expired": whole.expired + expired + alone(|stats| stats.expired),
            "cancelled": whole.cancelled + alone(|stats| stats.cancelled),
            "cut": whole.cut + alone(|stats| stats.cut),
            "in_flight": whole.in_flight() + alone(PipelineStats::in_flight),
            "tasks": tasks,
        });
        Ok(stats.to_string())
    }

    /// Takes nothing more, and waits for what is inside; answers how many items were cut short.
    fn _drain(&self, timeout: f64) -> PyResult<Awaitable> {
        let (inside, time) = (Arc::clone(self.inside()?), seconds("timeout", timeout)?);
        Ok(Awaitable::new(async move {
            let alone = async {
                match inside.alone() {
                    Some(stage) => stage.drain(time).await.cut,
                    None => 0,
                }
            };
            let (whole, alone) = join(inside.whole.drain(time), alone).await;
            Ok(whole.cut + alone)
        }))
    }
}

fn task(stats: &StageStats) -> Value {
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    json!({
        "name": &*stats.name,
        "workers": stats.workers,
        "running": stats.in_flight,
        "waiting": stats.waiting,
        "completed": stats.completed,
        "errors": stats.errors,
        "cancelled": stats.abandoned,
        "retries": stats.retries,
        "fallbacks": stats.fallbacks,
        "p50_ms": millis(stats.latency.quantile(0.5)),
        "p99_ms": millis(stats.latency.quantile(0.99)),
        "circuit": stats.breaker.as_ref().map(|state| match state {
            BreakerState::Open { .. } => "open",
            BreakerState::HalfOpen { .. } => "half_open",
            _ => "closed",
        }),
    })
}
