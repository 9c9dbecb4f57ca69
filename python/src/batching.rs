//! Python functions that are given batches: micro-batches of a stream, and models of users' own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flow::batcher::{BatchFailure, WhenIdle};
use flow::{Batch, Batcher};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use serde_json::json;
use tidegate::batching::{BatchModel, Dynamic, DynamicSettings, Revive, Terms};
use tidegate::protocol::{Priority, TenantId};

use crate::awaitable::Awaitable;
use crate::call::{Function, Home, setting};
use crate::engine::Job;
use crate::item::{Fault, Item};
use crate::request::seconds;
use crate::{errors, runtime};

/// Items served together by a Python function on lists.
#[pyclass(frozen)]
pub(crate) struct MicroBatches {
    batcher: Batcher<Item, Item, Fault>,
    home: Arc<Mutex<Option<Home>>>,
}

/// The outcomes of a batch: one for each input, in their order. An exception in the list is of its input alone.
fn outcomes(answer: &Bound<'_, PyAny>, expected: usize) -> PyResult<Vec<Result<Item, Fault>>> {
    let answers: Vec<Bound<'_, PyAny>> = answer.try_iter()?.collect::<PyResult<_>>()?;
    if answers.len() != expected {
        let found = answers.len();
        let message =
            format!("the function was given {expected} inputs and answered {found}; answer one for each");
        return Err(PyValueError::new_err(message));
    }
    let one = |answer: Bound<'_, PyAny>| match answer.is_instance_of::<pyo3::exceptions::PyBaseException>() {
        true => Err(Fault::from(PyErr::from_value(answer))),
        false => Ok(Item::new(answer.unbind())),
    };
    Ok(answers.into_iter().map(one).collect())
}

fn list(inputs: impl IntoIterator<Item = Item>) -> PyResult<Item> {
    Python::attach(|py| {
        let objects: Vec<Py<PyAny>> = inputs.into_iter().map(|input| input.object(py)).collect();
        Ok(Item::new(PyList::new(py, objects)?.into_any().unbind()))
    })
}

fn failed(failure: BatchFailure<Fault>) -> PyErr {
    let message = failure.to_string();
    match failure {
        BatchFailure::Failed { error } => Python::attach(|py| error.error.clone_ref(py)),
        BatchFailure::Expired => errors::exception("DeadlineExceededError", message, &[]),
        BatchFailure::Closed | BatchFailure::Cut => errors::exception("QueueClosedError", message, &[]),
        _ => errors::exception("TaskFailedError", message, &[]),
    }
}

#[pymethods]
impl MicroBatches {
    /// Batches of at most `size` items, none of which waits for others longer than `delay` seconds; with `eager`, none
    /// waits while the function is idle.
    #[new]
    fn new(function: Py<PyAny>, place: &str, settings: &Bound<'_, PyDict>) -> PyResult<Self> {
        let function = Arc::new(Function::new(function, place, None));
        let delay = seconds("delay", setting(settings, "delay")?.unwrap_or(0.1))?;
        let when_idle = match setting(settings, "eager")? {
            Some(false) => WhenIdle::Wait,
            _ => WhenIdle::Leave,
        };
        let rules = Batch::up_to(setting(settings, "size")?.unwrap_or(32))
            .within(delay)
            .when_idle(when_idle)
            .executors(setting(settings, "executors")?.unwrap_or(1))
            .capacity(setting(settings, "capacity")?.unwrap_or(1024))
            .bisect();
        let home: Arc<Mutex<Option<Home>>> = Arc::default();
        let at = Arc::clone(&home);
        let batcher = Batcher::new(rules, move |batch: Vec<Item>| {
            let (function, home) = (Arc::clone(&function), Arc::clone(&at));
            async move {
                let home = home.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let nowhere = || PyValueError::new_err("nothing was submitted from an event loop");
                let expected = batch.len();
                let answer = function.call_from_afar(&home.ok_or_else(nowhere)?, vec![list(batch)?]).await?;
                Ok(Python::attach(|py| outcomes(answer.0.bind(py), expected))?)
            }
        });
        Ok(Self { batcher, home })
    }

    /// Has an item served with others.
    fn submit(&self, py: Python<'_>, item: Py<PyAny>) -> PyResult<Awaitable> {
        let home = Home::here(py)?;
        // What was there before goes once the lock is free, for Python may do anything then.
        let _before = self.home.lock().unwrap_or_else(PoisonError::into_inner).replace(home);
        let (batcher, item) = (self.batcher.clone(), Item::new(item));
        Ok(Awaitable::new(async move {
            let answer = batcher.submit(item).await.map_err(failed)?;
            Ok(Python::attach(|py| answer.object(py)))
        }))
    }

    /// What it has done so far, as JSON.
    fn stats(&self) -> String {
        let stats = self.batcher.stats();
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        json!({
            "batches": stats.batches,
            "items": stats.items,
            "errors": stats.errors,
            "waiting": stats.waiting,
            "wait_p50_ms": millis(stats.waits.quantile(0.5)),
            "wait_p99_ms": millis(stats.waits.quantile(0.99)),
            "run_p50_ms": millis(stats.runs.quantile(0.5)),
        })
        .to_string()
    }

    /// Takes nothing more and waits for what is inside.
    fn drain(&self, timeout: f64) -> PyResult<Awaitable> {
        let (batcher, time) = (self.batcher.clone(), seconds("timeout", timeout)?);
        Ok(Awaitable::new(async move { Ok(batcher.drain(time).await.cut) }))
    }
}

/// A function on lists as the engine's model.
struct Callable {
    function: Py<PyAny>,
}

/// Every input costs the same: what one costs is for the function to know.
impl BatchModel for Callable {
    type Input = Item;
    type Output = Result<Item, Fault>;
    type Error = Fault;

    fn cost(_: &Item) -> u64 {
        1
    }

    fn run(&mut self, batch: &[Arc<Item>]) -> Result<Vec<Result<Self::Output, Fault>>, Fault> {
        let inputs = list(batch.iter().map(|item| Item::clone(item)))?;
        let answer = Python::attach(|py| {
            let answer = self.function.bind(py).call1((inputs.object(py),))?;
            outcomes(&answer, batch.len())
        });
        match answer {
            Ok(answers) => Ok(answers.into_iter().map(Ok).collect()),
            // An input that fails alone is to have the very exception; more than one are parted by the caller.
            Err(error) if batch.len() == 1 => Ok(vec![Ok(Err(Fault::from(error)))]),
            Err(error) => Err(Fault::from(error)),
        }
    }
}

/// A model of the user's own, served in batches by the engine.
#[pyclass(frozen)]
pub(crate) struct BatchEngine {
    dynamic: Mutex<Option<Arc<Dynamic<Callable>>>>,
}

impl BatchEngine {
    fn dynamic(&self) -> PyResult<Arc<Dynamic<Callable>>> {
        let dynamic = self.dynamic.lock().unwrap_or_else(PoisonError::into_inner).clone();
        dynamic.ok_or_else(|| errors::exception("EngineStoppedError", "the engine was stopped", &[]))
    }
}

fn terms(asked: &Bound<'_, PyDict>) -> PyResult<Terms> {
    let timeout = setting::<f64>(asked, "timeout")?.map(|value| seconds("timeout", value)).transpose()?;
    Ok(Terms {
        tenant: setting::<String>(asked, "tenant")?.map_or_else(TenantId::default, TenantId),
        priority: match setting::<String>(asked, "priority")?.as_deref() {
            Some("high") => Priority::High,
            Some("low") => Priority::Low,
            _ => Priority::Normal,
        },
        deadline: timeout,
    })
}

async fn served(dynamic: Arc<Dynamic<Callable>>, item: Item, terms: Terms) -> PyResult<Py<PyAny>> {
    let answer = dynamic.submit(item, terms).await.map_err(|error| errors::unserved(&error))?;
    let answer = answer.map_err(|error| errors::exception("EngineError", error, &[]))?;
    let item = answer.map_err(|fault| fault.error)?;
    Ok(Python::attach(|py| item.object(py)))
}

#[pymethods]
impl BatchEngine {
    /// Serves a function on lists, which is called on one thread at a time. When it has not come back for `restart_after`
    /// seconds, its batch fails, and the next one is served by calling it on another thread.
    #[new]
    fn new(function: Py<PyAny>, settings: &Bound<'_, PyDict>) -> PyResult<Self> {
        let items = setting(settings, "batch_size")?.unwrap_or(32);
        let policy: String = setting(settings, "policy")?.unwrap_or_else(|| "priority".to_owned());
        let restart_after = setting::<f64>(settings, "restart_after")?;
        let restart_after = restart_after.map(|value| seconds("restart_after", value)).transpose()?;
        let policy = policy.parse::<flow::queue::policy::Discipline>();
        let settings = DynamicSettings {
            batch_items: items,
            batch_cost: items as u64,
            max_delay: seconds("delay", setting(settings, "delay")?.unwrap_or(0.005))?,
            queue_requests: setting(settings, "max_queue")?.unwrap_or(1024),
            policy: policy.map_err(|error| PyValueError::new_err(error.to_string()))?.into(),
            restart_after: restart_after.filter(|after| !after.is_zero()),
            ..DynamicSettings::default()
        };
        let again = Python::attach(|py| function.clone_ref(py));
        let revive = Revive::new(move || {
            let function = Python::attach(|py| again.clone_ref(py));
            Ok(Callable { function })
        });
        let dynamic = Dynamic::start_revivable(Callable { function }, &settings, revive);
        let dynamic = dynamic.map_err(|error| errors::exception("InvalidRequestError", error, &[]))?;
        Ok(Self { dynamic: Mutex::new(Some(Arc::new(dynamic))) })
    }

    /// Has an input served with others.
    fn process(&self, item: Py<PyAny>, asked: &Bound<'_, PyDict>) -> PyResult<Awaitable> {
        Ok(Awaitable::new(served(self.dynamic()?, Item::new(item), terms(asked)?)))
    }

    /// The same for a handle.
    fn submit(&self, item: Py<PyAny>, asked: &Bound<'_, PyDict>, handle: Py<PyAny>) -> PyResult<Job> {
        Job::begin(handle, served(self.dynamic()?, Item::new(item), terms(asked)?))
    }

    /// What it is doing and has done, as JSON.
    fn status(&self) -> PyResult<String> {
        Ok(json!(self.dynamic()?.status()).to_string())
    }

    /// Accepts nothing more and waits so long for what was accepted; answers how many requests were failed.
    fn stop(&self, grace: f64) -> PyResult<Awaitable> {
        let grace = seconds("grace", grace)?;
        let dynamic = self.dynamic.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(Awaitable::new(async move {
            let Some(dynamic) = dynamic else { return Ok(0) };
            let stopped = runtime::handle()?.spawn(async move { dynamic.stop(grace).await.aborted });
            stopped.await.map_err(|error| errors::exception("EngineError", error, &[]))
        }))
    }
}
