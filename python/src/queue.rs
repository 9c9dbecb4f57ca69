//! Queues of Python objects, in memory or on the disk.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flow::queue::policy::Discipline;
use flow::queue::store::{DiskOptions, DiskStore};
use flow::queue::{LeaseError, Overflow, Rate, Rejection};
use flow::{Capacity, Lease, Rejected, Ticket};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::json;

use crate::awaitable::Awaitable;
use crate::call::setting;
use crate::errors::{self, Field};
use crate::item::Item;
use crate::request::seconds;
use crate::runtime;

/// A queue of Python objects.
#[pyclass(frozen)]
pub(crate) struct Queue {
    queue: flow::Queue<Item>,
}

/// An item that was handed out and is not done yet.
#[pyclass(frozen)]
pub(crate) struct Leased {
    lease: Mutex<Option<Lease<Item>>>,
}

fn closed() -> PyErr {
    errors::exception("QueueClosedError", "the queue is closed and nothing is left in it", &[])
}

fn rejected(rejected: Rejected<Item>) -> PyErr {
    let kind = match rejected.reason {
        Rejection::Rate => "RateLimitedError",
        Rejection::Closed => "QueueClosedError",
        Rejection::TimedOut | Rejection::Expired | Rejection::Doomed { .. } => "DeadlineExceededError",
        Rejection::Store(_) => "TaskFailedError",
        _ => "QueueFullError",
    };
    match (kind, rejected.retry_after) {
        ("RateLimitedError" | "QueueFullError", Some(after)) => {
            errors::exception(kind, &rejected, &[("retry_after", Field::Seconds(after))])
        }
        _ => errors::exception(kind, &rejected, &[]),
    }
}

fn lost(error: LeaseError) -> PyErr {
    errors::exception("DeadlineExceededError", error, &[])
}

fn wrong(error: impl ToString) -> PyErr {
    PyValueError::new_err(error.to_string())
}

fn ticket(now: Duration, terms: &Bound<'_, PyDict>) -> PyResult<Ticket> {
    let owner: Option<String> = setting(terms, "owner")?;
    let mut ticket =
        owner.map_or_else(|| Ticket::of(flow::queue::Owner::default()), |owner| Ticket::of(&*owner));
    ticket.level = setting(terms, "level")?.unwrap_or(1);
    ticket.cost = setting(terms, "cost")?.unwrap_or(1);
    ticket.bytes = setting(terms, "bytes")?.unwrap_or(0);
    ticket.key = setting::<String>(terms, "key")?.map(Into::into);
    let deadline = setting::<f64>(terms, "deadline")?.map(|value| seconds("deadline", value)).transpose()?;
    ticket.deadline = deadline.map(|deadline| now.saturating_add(deadline));
    Ok(ticket)
}

fn overflow(name: &str) -> PyResult<Overflow> {
    Ok(match name {
        "wait" => Overflow::Wait,
        "reject" => Overflow::Reject,
        "drop_oldest" => Overflow::DropOldest,
        "dead_letter" => Overflow::DeadLetter,
        _ => {
            return Err(wrong(format!("overflow='{name}'; give wait, reject, drop_oldest or dead_letter")));
        }
    })
}

fn opened(settings: &Bound<'_, PyDict>) -> PyResult<flow::Queue<Item>> {
    let items = setting(settings, "max_size")?.unwrap_or(usize::MAX);
    let policy: String = setting(settings, "policy")?.unwrap_or_else(|| "priority".to_owned());
    let mut builder = flow::Queue::<Item>::builder(Capacity::items(items))
        .policy(policy.parse::<Discipline>().map_err(wrong)?)
        .overflow(overflow(&setting::<String>(settings, "overflow")?.unwrap_or_else(|| "wait".to_owned()))?);
    if let Some(rate) = setting::<NonZeroU32>(settings, "rate_limit")? {
        let burst = setting::<NonZeroU32>(settings, "burst")?.unwrap_or(rate);
        builder = builder.rate(Rate::per_second(rate).burst(burst));
    }
    if let Some(rate) = setting::<NonZeroU32>(settings, "owner_rate_limit")? {
        builder = builder.owner_rate(Rate::per_second(rate));
    }
    if let Some(lease) = setting::<f64>(settings, "lease")? {
        builder = builder.lease(seconds("lease", lease)?);
    }
    if let Some(attempts) = setting::<NonZeroU32>(settings, "max_attempts")? {
        builder = builder.max_attempts(attempts);
    }
    if let Some(most) = setting(settings, "dead_letters")? {
        builder = builder.dead_letters(most);
    }
    match setting::<std::path::PathBuf>(settings, "path")? {
        None => Ok(builder.build()),
        Some(path) => {
            let failed = |error: &dyn ToString| errors::exception("ModelLoadError", error.to_string(), &[]);
            let (store, recovered) =
                DiskStore::open(path, DiskOptions::default()).map_err(|error| failed(&error))?;
            builder.open(Arc::new(store), recovered).map_err(|error| failed(&error))
        }
    }
}

#[pymethods]
impl Queue {
    /// A queue with those settings.
    #[new]
    fn new(settings: &Bound<'_, PyDict>) -> PyResult<Self> {
        let _runtime = runtime::handle()?.enter();
        Ok(Self { queue: opened(settings)? })
    }

    /// Puts an item in, waiting for room; answers its number.
    fn put(&self, item: Py<PyAny>, terms: &Bound<'_, PyDict>) -> PyResult<Awaitable> {
        let ticket = ticket(self.queue.now(), terms)?;
        let timeout = setting::<f64>(terms, "timeout")?.map(|value| seconds("timeout", value)).transpose()?;
        let (queue, item) = (self.queue.clone(), Item::new(item));
        Ok(Awaitable::new(async move {
            let put = match timeout {
                Some(timeout) => queue.put_timeout(item, ticket, timeout).await.map_err(|error| *error),
                None => queue.put(item, ticket).await.map_err(|error| *error),
            };
            put.map(u64::from).map_err(rejected)
        }))
    }

    /// Puts an item in, if there is room now.
    fn put_nowait(&self, item: Py<PyAny>, terms: &Bound<'_, PyDict>) -> PyResult<u64> {
        let _runtime = runtime::handle()?.enter();
        let put = self.queue.try_put(Item::new(item), ticket(self.queue.now(), terms)?);
        put.map(u64::from).map_err(|error| rejected(*error))
    }

    /// Takes the next item for good.
    fn get(&self) -> Awaitable {
        let queue = self.queue.clone();
        Awaitable::new(async move {
            let taken = queue.pop().await.ok_or_else(closed)?;
            Ok(Python::attach(|py| taken.item.object(py)))
        })
    }

    /// The next item if there is one.
    fn get_nowait(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let _runtime = runtime::handle()?.enter();
        Ok(self.queue.try_pop().map(|taken| taken.item.object(py)))
    }

    /// Takes the next item on lease.
    fn lease(&self) -> Awaitable {
        let queue = self.queue.clone();
        Awaitable::new(async move {
            let lease = queue.take().await.ok_or_else(closed)?;
            Ok(Leased { lease: Mutex::new(Some(lease)) })
        })
    }

    /// Items that wait.
    fn __len__(&self) -> usize {
        self.queue.len()
    }

    /// Takes nothing more in.
    fn close(&self) {
        self.queue.close();
    }

    /// Serves in another order from now on.
    fn set_policy(&self, policy: &str) -> PyResult<()> {
        self.queue.set_policy(policy.parse::<Discipline>().map_err(wrong)?);
        Ok(())
    }

    /// The dead letters: number, item, cause, attempts.
    fn dead_letters(&self, py: Python<'_>) -> Vec<(u64, Py<PyAny>, String, u32)> {
        let letters = self.queue.dead_letters();
        letters.list(|letter| {
            (letter.id().into(), letter.item.object(py), letter.cause().to_string(), letter.attempts())
        })
    }

    /// Has dead letters wait again; answers how many.
    fn retry_dead_letters(&self) -> Awaitable {
        let letters = self.queue.dead_letters();
        Awaitable::new(async move {
            letters.retry_all().await.map_err(|error| errors::exception("TaskFailedError", error, &[]))
        })
    }

    /// Throws the dead letters away; answers how many.
    fn purge_dead_letters(&self) -> Awaitable {
        let letters = self.queue.dead_letters();
        Awaitable::new(async move {
            let gone = letters.purge_all().await;
            gone.map(|gone| gone.len()).map_err(|error| errors::exception("TaskFailedError", error, &[]))
        })
    }

    /// The queue at this moment and what it has done, as JSON.
    fn stats(&self) -> String {
        let stats = self.queue.stats();
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        json!({
            "size": stats.depth,
            "in_flight": stats.in_flight,
            "dead_letters": stats.dead_letters,
            "oldest_seconds": stats.oldest.map(|age| age.as_secs_f64()),
            "per_second": stats.per_second,
            "wait_p50_ms": millis(stats.waits.quantile(0.5)),
            "wait_p99_ms": millis(stats.waits.quantile(0.99)),
            "accepted": stats.totals.accepted,
            "taken": stats.totals.taken,
            "done": stats.totals.done,
            "returned": stats.totals.returned,
            "expired": stats.totals.expired,
            "dropped": stats.totals.dropped,
            "rejected": stats.totals.rejected.total(),
        })
        .to_string()
    }
}

impl Leased {
    fn take(&self) -> PyResult<Lease<Item>> {
        let lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner).take();
        lease.ok_or_else(|| errors::exception("InvalidRequestError", "the lease was given back already", &[]))
    }
}

#[pymethods]
impl Leased {
    /// The item.
    #[getter]
    fn item(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let read = |lease: &Option<Lease<Item>>| lease.as_ref().map(|lease| lease.object(py));
        let item = read(&self.lease.lock().unwrap_or_else(PoisonError::into_inner));
        item.ok_or_else(|| errors::exception("InvalidRequestError", "the lease was given back already", &[]))
    }

    /// The how-manieth time it is that the item is out.
    #[getter]
    fn attempt(&self) -> u32 {
        let lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        lease.as_ref().map_or(0, Lease::attempt)
    }

    /// The item is done.
    fn ack(&self) -> PyResult<Awaitable> {
        let lease = self.take()?;
        Ok(Awaitable::new(async move { lease.ack().await.map_err(lost) }))
    }

    /// The item is not done; it may be taken again after so many seconds.
    fn nack(&self, after: f64) -> PyResult<Awaitable> {
        let (lease, after) = (self.take()?, seconds("after", after)?);
        Ok(Awaitable::new(async move { lease.nack(after).await.map_err(lost) }))
    }

    /// The item can never be done.
    fn dead_letter(&self, cause: String) -> PyResult<Awaitable> {
        let lease = self.take()?;
        Ok(Awaitable::new(async move { lease.dead_letter(cause).await.map_err(lost) }))
    }
}
