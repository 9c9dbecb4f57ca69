//! What a Rust future wakes: the asyncio future for which its task waits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Wake;

use pyo3::intern;
use pyo3::prelude::*;

use crate::mailbox::{Address, Letter, complete};

/// The target of the wakers of one coroutine.
#[derive(Default)]
pub(super) struct Waking(Mutex<Armed>);

#[derive(Default)]
struct Armed {
    /// For which the task waits, on which loop.
    future: Option<Py<PyAny>>,
    address: Option<Address>,
    /// Whether somebody woke it while it was not waiting.
    is_woken: bool,
}

impl Waking {
    fn lock(&self) -> MutexGuard<'_, Armed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what happened before a poll.
    pub(super) fn begin(&self) {
        let mut armed = self.lock();
        armed.is_woken = false;
        armed.future = None;
    }

    pub(super) fn end(&self) {
        self.lock().future = None;
    }

    /// A future of the running loop that is completed by the next waking; `None` if that was already.
    pub(super) fn arm<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let (address, event_loop) = Address::here(py)?;
        let future = event_loop.call_method0(intern!(py, "create_future"))?;
        // This is how asyncio tells a future that is awaited from one that is merely given.
        future.setattr(intern!(py, "_asyncio_future_blocking"), true)?;
        let mut armed = self.lock();
        if armed.is_woken {
            return Ok(None);
        }
        armed.address = Some(address);
        armed.future = Some(future.clone().unbind());
        Ok(Some(future))
    }

    /// The future to be completed, if the task waits.
    fn take(&self) -> Option<(Py<PyAny>, Address)> {
        let mut armed = self.lock();
        armed.is_woken = true;
        armed.future.take().zip(armed.address.clone())
    }
}

impl Wake for Waking {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some((future, address)) = self.take() {
            address.post(Letter::Wake(future));
        }
    }
}

/// A callback of an asyncio future that wakes a coroutine of ours on the same loop.
#[pyclass(frozen)]
pub(super) struct Bell(Arc<Waking>);

impl Bell {
    pub(super) fn new(waking: Arc<Waking>) -> Self {
        Self(waking)
    }
}

#[pymethods]
impl Bell {
    fn __call__(&self, done: Bound<'_, PyAny>) {
        if let Some((future, _)) = self.0.take() {
            complete(future.bind(done.py()));
        }
    }
}
