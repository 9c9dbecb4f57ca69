//! A Python coroutine that runs within a Rust future, on the task that awaits that.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use pyo3::exceptions::{PyException, PyStopIteration};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyIterator;
use pyo3::types::iterator::PySendResult;

use super::{ESCAPED, WAITING};

/// A Python coroutine that has begun.
pub(crate) struct Coroutine {
    steps: Py<PyIterator>,
    place: Mutex<Place>,
}

/// Where it is.
enum Place {
    /// It may go on; it waits for nothing but its turn.
    Turn,
    /// It waits for an asyncio future.
    Waits(Py<PyAny>),
    /// It has ended, and nobody has looked.
    Ended(PyResult<Py<PyAny>>),
    /// It has ended.
    Over,
}

impl Coroutine {
    fn lock(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For what it waits; `None` if for nothing but its turn.
    pub(super) fn waits_for<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        match &*self.lock() {
            Place::Waits(object) => Some(object.bind(py).clone()),
            _ => None,
        }
    }

    /// Cancels what it waits for, as a task does, so that it hears of it by itself. Answers whether that was possible.
    pub(super) fn cancel_what_it_waits_for(&self, py: Python<'_>) -> PyResult<bool> {
        let Some(object) = self.waits_for(py) else { return Ok(false) };
        object.call_method0(intern!(py, "cancel"))?.is_truthy()
    }

    /// Goes on with an exception; answers one that came out of it.
    pub(super) fn throw(&self, py: Python<'_>, error: PyErr) -> Option<PyErr> {
        let thrown = self.steps.bind(py).call_method1(intern!(py, "throw"), (error.into_value(py),));
        match thrown {
            Ok(object) => *self.lock() = place(&object),
            Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
                let value = error.value(py).getattr(intern!(py, "value")).map(Bound::unbind);
                self.end(value);
            }
            Err(error) => {
                *self.lock() = Place::Over;
                return Some(error);
            }
        }
        None
    }

    /// Notes how it ended, for whoever looks.
    pub(super) fn end(&self, outcome: PyResult<Py<PyAny>>) {
        *self.lock() = Place::Ended(outcome);
    }

    /// Goes on as far as it can.
    fn poll(&self, py: Python<'_>) -> Poll<PyResult<Py<PyAny>>> {
        let mut at = self.lock();
        match &*at {
            Place::Waits(object) => {
                let is_done = object.bind(py).call_method0(intern!(py, "done"));
                if is_done.is_ok_and(|done| done.is_truthy().is_ok_and(|done| !done)) {
                    return Poll::Pending;
                }
            }
            Place::Turn => {}
            Place::Ended(_) | Place::Over => {
                return match std::mem::replace(&mut *at, Place::Over) {
                    Place::Ended(outcome) => Poll::Ready(outcome),
                    _ => Poll::Pending,
                };
            }
        }
        match self.steps.bind(py).send(py.None().bind(py)) {
            Ok(PySendResult::Return(value)) => {
                *at = Place::Over;
                Poll::Ready(Ok(value.unbind()))
            }
            Ok(PySendResult::Next(object)) => {
                *at = place(&object);
                Poll::Pending
            }
            Err(error) => {
                *at = Place::Over;
                Poll::Ready(Err(error))
            }
        }
    }
}

fn place(yielded: &Bound<'_, PyAny>) -> Place {
    if yielded.is_none() { Place::Turn } else { Place::Waits(yielded.clone().unbind()) }
}

/// A Python coroutine as a Rust future, to be polled by a coroutine of ours and by nobody else. Dropping it cancels it.
pub(crate) struct Driven(Arc<Coroutine>);

impl Driven {
    /// Begins with a coroutine, or anything else that can be awaited.
    pub(crate) fn new(coroutine: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = coroutine.py();
        let steps = coroutine.call_method0(intern!(py, "__await__"))?.cast_into::<PyIterator>()?.unbind();
        Ok(Self(Arc::new(Coroutine { steps, place: Mutex::new(Place::Turn) })))
    }
}

impl Future for Driven {
    type Output = PyResult<Py<PyAny>>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Python::attach(|py| match self.0.poll(py) {
            Poll::Ready(Err(error)) if !error.is_instance_of::<PyException>(py) => {
                ESCAPED.replace(Some(error));
                Poll::Pending
            }
            Poll::Pending => {
                WAITING.replace(Some(Arc::clone(&self.0)));
                Poll::Pending
            }
            ended => ended,
        })
    }
}

impl Drop for Driven {
    /// What is not over is told that it is cancelled. It may clean up; where it would have to wait for that, it is closed.
    fn drop(&mut self) {
        if matches!(*self.0.lock(), Place::Over | Place::Ended(_)) {
            return;
        }
        Python::try_attach(|py| {
            let steps = self.0.steps.bind(py);
            let close = || {
                self.0.cancel_what_it_waits_for(py)?;
                let cancelled = cancelled(py)?.call0()?;
                if let Some(error) = self.0.throw(py, PyErr::from_value(cancelled)) {
                    return if is_cancellation(py, &error) { Ok(()) } else { Err(error) };
                }
                steps.call_method0(intern!(py, "close"))?;
                Ok(())
            };
            if let Err(error) = close() {
                error.write_unraisable(py, Some(steps.as_any()));
            }
        });
    }
}

fn cancelled(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static CANCELLED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    CANCELLED.import(py, "asyncio", "CancelledError")
}

/// Whether an exception says that a task was cancelled.
pub(crate) fn is_cancellation(py: Python<'_>, error: &PyErr) -> bool {
    cancelled(py).is_ok_and(|kind| error.matches(py, kind).unwrap_or(false))
}
