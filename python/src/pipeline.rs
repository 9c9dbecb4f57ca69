//! Pipelines whose stages are Python functions.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flow::breaker::{Breaker, BreakerRules};
use flow::pipeline::{PipelineStats, StageStats};
use flow::{BreakerState, Failure, Retry};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::awaitable::Awaitable;
use crate::call::{Function, setting};
use crate::errors::{self, Field};
use crate::item::{Fault, Item};
use crate::request::seconds;

type Stage = flow::Pipeline<Item, Item>;

/// An item and the stages that it is to pass.
struct Trip {
    item: Item,
    stages: Vec<Stage>,
    deadline: Option<Instant>,
}

/// A pipeline that gets its stages one by one.
#[pyclass(frozen)]
pub(crate) struct Pipeline {
    /// Bounds what is inside, whatever stage it is in.
    whole: flow::Pipeline<Trip, Result<Item, Failure>>,
    stages: Mutex<Vec<(String, Stage)>>,
    places: u32,
}

impl Pipeline {
    fn stages(&self, only: Option<&str>) -> PyResult<Vec<Stage>> {
        let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = stages.iter().filter(|(name, _)| only.is_none_or(|only| only == name));
        let found: Vec<Stage> = wanted.map(|(_, stage)| stage.clone()).collect();
        if found.is_empty() {
            let message = match only {
                Some(name) => format!("there is no task '{name}'; add_task('{name}', function) adds it"),
                None => "the pipeline has no task; add_task(name, function) adds one".to_owned(),
            };
            return Err(errors::exception("InvalidRequestError", message, &[]));
        }
        Ok(found)
    }
}

async fn travel(trip: Trip) -> Result<Result<Item, Failure>, std::convert::Infallible> {
    let mut item = trip.item;
    for stage in &trip.stages {
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

fn stage(name: &str, function: Function, settings: &Bound<'_, PyDict>) -> PyResult<Stage> {
    let mut staged = flow::Pipeline::builder().credits(u32::MAX).work(name, function);
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
        staged = staged.fallback(move |item: Item, failure| {
            let fallback = Arc::clone(&fallback);
            async move {
                let error = Item::new(Python::attach(|py| raised(failure).into_value(py).into_any()));
                let answered = fallback.call_here(vec![item, error]).await;
                answered.map_err(|error| Failure::Failed {
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

#[pymethods]
impl Pipeline {
    /// A pipeline that holds at most so many items.
    #[new]
    fn new(places: u32) -> Self {
        let whole = flow::Pipeline::builder().credits(places).stage("pipeline", travel).build();
        Self { whole, stages: Mutex::default(), places }
    }

    /// Adds a task behind the others.
    fn add(&self, name: &str, function: Py<PyAny>, settings: &Bound<'_, PyDict>) -> PyResult<()> {
        let place: String = setting(settings, "place")?.unwrap_or_default();
        let function = Function::new(function, &place, setting(settings, "retry_on")?);
        let stage = stage(name, function, settings)?;
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        if stages.iter().any(|(known, _)| known == name) {
            let message = format!("there is a task '{name}' already; give this one another name");
            return Err(errors::exception("InvalidRequestError", message, &[]));
        }
        stages.push((name.to_owned(), stage));
        Ok(())
    }

    /// Takes an item through all tasks, or through one.
    #[pyo3(signature = (item, only=None, timeout=None))]
    fn submit(&self, item: Py<PyAny>, only: Option<&str>, timeout: Option<f64>) -> PyResult<Awaitable> {
        let timeout = timeout.map(|timeout| seconds("timeout", timeout)).transpose()?;
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let trip = Trip { item: Item::new(item), stages: self.stages(only)?, deadline };
        let whole = self.whole.clone();
        Ok(Awaitable::new(async move {
            let ended = match deadline {
                Some(deadline) => whole.submit_by(trip, deadline).await,
                None => whole.submit(trip).await,
            };
            let item = ended.map_err(raised)?.map_err(raised)?;
            Ok(Python::attach(|py| item.object(py)))
        }))
    }

    /// Whether one more item would have to wait outside.
    fn is_full(&self) -> bool {
        self.whole.stats().in_flight() >= u64::from(self.places)
    }

    /// Changes how many items a task works on at once.
    fn set_workers(&self, name: &str, workers: usize) -> PyResult<()> {
        let wrong = |error: flow::FlowError| errors::exception("InvalidRequestError", error, &[]);
        self.stages(Some(name))?[0].set_workers(name, workers).map_err(wrong)
    }

    /// What has become of the items, as JSON.
    fn stats(&self) -> String {
        let whole = self.whole.stats();
        let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        let stages: Vec<PipelineStats> = stages.iter().map(|(_, stage)| stage.stats()).collect();
        let tasks: Vec<Value> = stages.iter().flat_map(|stats| &stats.stages).map(task).collect();
        let failed: u64 = stages.iter().map(|stats| stats.failed).sum();
        json!({
            "accepted": whole.accepted,
            "completed": whole.completed.saturating_sub(failed),
            "failed": whole.failed + failed,
            "expired": whole.expired,
            "cancelled": whole.cancelled,
            "cut": whole.cut,
            "in_flight": whole.in_flight(),
            "tasks": tasks,
        })
        .to_string()
    }

    /// Takes nothing more, and waits for what is inside; answers how many items were cut short.
    fn drain(&self, timeout: f64) -> PyResult<Awaitable> {
        let (whole, time) = (self.whole.clone(), seconds("timeout", timeout)?);
        Ok(Awaitable::new(async move { Ok(whole.drain(time).await.cut) }))
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
