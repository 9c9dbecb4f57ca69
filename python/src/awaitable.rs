//! A Rust future as a Python coroutine: polled by the task that awaits it, dropped when that task is cancelled.

mod coroutine;
mod crowd;
mod waking;

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyBaseException, PyException, PyRuntimeError, PyStopIteration};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

pub(crate) use coroutine::{Coroutine, Driven, is_cancellation};
pub(crate) use crowd::{Crowd, give_way, is_crowded};
use waking::{Bell, Target};

use crate::pipeline::Submission;
use crate::runtime;

thread_local! {
    /// The Python coroutine that has to wait within what is being polled.
    static WAITING: RefCell<Option<Arc<Coroutine>>> = const { RefCell::new(None) };
    /// What came out of a Python coroutine and is no outcome but the end of its task, such as a cancellation.
    static ESCAPED: RefCell<Option<PyErr>> = const { RefCell::new(None) };
}

/// A coroutine whose steps are Rust's. Awaiting it gives its result; cancelling the task that awaits it drops the work.
#[pyclass(frozen, module = "tidegate")]
pub(crate) struct Awaitable {
    state: Mutex<State>,
}

/// What a coroutine of ours does.
enum Work {
    /// Anything.
    Any(Pin<Box<dyn Future<Output = PyResult<Py<PyAny>>> + Send>>),
    /// Takes an item through a pipeline. It is here as it is because it is the one that is often over at once.
    Submission(Submission),
    /// It is over.
    Over,
}

struct State {
    work: Work,
    /// What wakes it, from the first step on.
    target: Option<Target>,
    /// The Python coroutine that runs within and waits.
    within: Option<Arc<Coroutine>>,
    /// What that waits for, if it wakes us by a callback.
    chained: Option<Py<PyAny>>,
}

impl Awaitable {
    /// Wraps a future.
    pub(crate) fn new<T>(work: impl Future<Output = PyResult<T>> + Send + 'static) -> Self
    where
        T: for<'py> IntoPyObject<'py> + Send + 'static,
    {
        Self::doing(Work::Any(Box::pin(async move {
            let value = work.await?;
            Python::attach(|py| value.into_py_any(py))
        })))
    }

    /// Takes an item through a pipeline.
    pub(crate) fn submission(submission: Submission) -> Self {
        Self::doing(Work::Submission(submission))
    }

    fn doing(work: Work) -> Self {
        Self { state: Mutex::new(State { work, target: None, within: None, chained: None }) }
    }

    fn lock(&self) -> PyResult<MutexGuard<'_, State>> {
        self.state.try_lock().map_err(|_| PyRuntimeError::new_err("the coroutine is being run already"))
    }
}

impl State {
    /// Goes on until the work is over or has to wait; answers what the task is to wait for.
    fn step<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        runtime::enter()?;
        loop {
            let target = self.target.get_or_insert_with(Target::new);
            target.begin();
            let mut context = Context::from_waker(target.waker());
            let polled = match &mut self.work {
                Work::Any(work) => work.as_mut().poll(&mut context),
                Work::Submission(submission) => Pin::new(submission).poll(&mut context),
                Work::Over => {
                    return Err(PyRuntimeError::new_err("cannot reuse a coroutine that was awaited already"));
                }
            };
            self.within = WAITING.take();
            if let Some(error) = ESCAPED.take() {
                // Dropping the work is what cancels it; nobody on the way is to take this for a failure.
                self.end();
                return Err(error);
            }
            if let Poll::Ready(outcome) = polled {
                self.end();
                return Err(stop(outcome?.into_bound(py)));
            }
            if crowd::gives_way() {
                return Ok(py.None().into_bound(py));
            }
            let waits_for = self.within.as_ref().map(|within| within.waits_for(py));
            let future = match waits_for {
                // It wants to go on in the loop's next round.
                Some(None) => return Ok(py.None().into_bound(py)),
                // Nothing of Rust's can wake it, so the task may wait for the very thing.
                Some(Some(object)) if !target.is_known() => return Ok(object),
                Some(Some(object)) => {
                    chain(target, &mut self.chained, &object)?;
                    target.arm(py)?
                }
                None => target.arm(py)?,
            };
            if let Some(future) = future {
                return Ok(future);
            }
        }
    }

    /// What to do with an exception that the task throws in, before going on.
    fn throw(&mut self, py: Python<'_>, error: PyErr) -> PyResult<()> {
        let Some(within) = self.within.take() else {
            self.end();
            return Err(error);
        };
        // The task has cancelled the future that we gave it; what the coroutine really waits for has to hear of it first.
        let is_chained = self.chained.take().is_some();
        if is_chained && is_cancellation(py, &error) && within.cancel_what_it_waits_for(py)? {
            return Ok(());
        }
        match within.throw(py, error) {
            Some(error) if !error.is_instance_of::<PyException>(py) => {
                self.end();
                Err(error)
            }
            Some(error) => {
                within.end(Err(error));
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn end(&mut self) {
        self.work = Work::Over;
        self.within = None;
        self.chained = None;
        if let Some(target) = self.target.take() {
            target.end();
        }
    }
}

/// Has `object`, which a Python coroutine waits for, wake the target; `chained` is what does so already.
fn chain(target: &Target, chained: &mut Option<Py<PyAny>>, object: &Bound<'_, PyAny>) -> PyResult<()> {
    if chained.as_ref().is_some_and(|chained| chained.is(object)) {
        return Ok(());
    }
    let py = object.py();
    object.setattr(intern!(py, "_asyncio_future_blocking"), false)?;
    let bell = Bell::new(Arc::clone(target.waking()));
    object.call_method1(intern!(py, "add_done_callback"), (bell,))?;
    *chained = Some(object.clone().unbind());
    Ok(())
}

/// How an iterator ends with a value. Bare values spare Python the making of an exception; a tuple would be taken for
/// the exception's arguments, and an exception for itself.
fn stop(value: Bound<'_, PyAny>) -> PyErr {
    let is_bare = !value.is_instance_of::<PyTuple>() && !value.is_instance_of::<PyBaseException>();
    if is_bare {
        PyStopIteration::new_err(value.unbind())
    } else {
        PyStopIteration::new_err((value.unbind(),))
    }
}

#[pymethods]
impl Awaitable {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.lock()?.step(py)
    }

    /// Goes on; what is sent means nothing.
    fn send<'py>(&self, py: Python<'py>, value: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        drop(value);
        self.lock()?.step(py)
    }

    /// Goes on with an exception at the place where it waits.
    #[pyo3(signature = (kind, value=None, traceback=None))]
    fn throw<'py>(
        &self,
        kind: Bound<'py, PyAny>,
        value: Option<Bound<'py, PyAny>>,
        traceback: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        drop(traceback);
        let py = kind.py();
        let error = match value {
            Some(value) if !value.is_none() => PyErr::from_value(value),
            _ => PyErr::from_value(kind),
        };
        let mut state = self.lock()?;
        state.throw(py, error)?;
        state.step(py)
    }

    /// Ends it wherever it is.
    fn close(&self) -> PyResult<()> {
        self.lock()?.end();
        Ok(())
    }
}
