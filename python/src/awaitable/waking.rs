//! What a Rust future wakes: the asyncio future for which its task waits.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

use pyo3::intern;
use pyo3::prelude::*;

use crate::mailbox::{Address, Letter, complete};

thread_local! {
    /// One that the last coroutine of this thread has left, so that one that never waits needs none of its own.
    static SPARE: Cell<Option<Target>> = const { Cell::new(None) };
}

/// The target of the wakers of one coroutine, and the waker that the coroutine is polled with.
pub(super) struct Target {
    waking: Arc<Waking>,
    waker: Waker,
    /// Whether a task has waited for it.
    was_armed: bool,
}

/// The clones of a waking that its own target holds.
const OWN: usize = 2;

impl Target {
    /// One that nobody can wake yet.
    pub(super) fn new() -> Self {
        SPARE.take().unwrap_or_else(|| {
            let waking = Arc::new(Waking::default());
            Self { waker: Waker::from(Arc::clone(&waking)), waking, was_armed: false }
        })
    }

    pub(super) fn waking(&self) -> &Arc<Waking> {
        &self.waking
    }

    /// Forgets what happened before a poll.
    pub(super) fn begin(&mut self) {
        if self.was_armed || self.waking.is_woken.load(Relaxed) {
            self.waking.forget();
            self.was_armed = false;
        }
    }

    /// A future of the running loop that is completed by the next waking; `None` if that was already.
    pub(super) fn arm<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.was_armed = true;
        self.waking.arm(py)
    }

    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Whether somebody has it who may wake it.
    pub(super) fn is_known(&self) -> bool {
        Arc::strong_count(&self.waking) > OWN
    }

    /// The coroutine is over. What nobody else knows serves the next one.
    pub(super) fn end(mut self) {
        self.begin();
        if !self.is_known() {
            SPARE.set(Some(self));
        }
    }
}

/// What wakers wake.
#[derive(Default)]
pub(super) struct Waking {
    /// For which the task waits, on which loop.
    armed: Mutex<Option<(Py<PyAny>, Address)>>,
    /// Whether somebody woke it since it was last polled. It is written while `armed` is locked, so that a waking finds
    /// the future or is found by whoever arms; that nothing happened can be seen without the lock.
    is_woken: AtomicBool,
}

impl Waking {
    fn lock(&self) -> MutexGuard<'_, Option<(Py<PyAny>, Address)>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self) {
        let mut armed = self.lock();
        self.is_woken.store(false, Relaxed);
        *armed = None;
    }

    fn arm<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let (address, event_loop) = Address::here(py)?;
        let future = event_loop.call_method0(intern!(py, "create_future"))?;
        // This is how asyncio tells a future that is awaited from one that is merely given.
        future.setattr(intern!(py, "_asyncio_future_blocking"), true)?;
        let mut armed = self.lock();
        if self.is_woken.load(Relaxed) {
            return Ok(None);
        }
        *armed = Some((future.clone().unbind(), address));
        Ok(Some(future))
    }

    /// The future to be completed, if the task waits.
    fn take(&self) -> Option<(Py<PyAny>, Address)> {
        let mut armed = self.lock();
        self.is_woken.store(true, Relaxed);
        armed.take()
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
