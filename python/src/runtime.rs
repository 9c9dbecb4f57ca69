//! The runtime on which work goes on that no event loop polls. There is one for the process, made when it is needed.

use std::cell::Cell;
use std::sync::OnceLock;

use pyo3::PyResult;
use pyo3::exceptions::PyRuntimeError;
use tokio::runtime::{Builder, Handle, Runtime};

static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();

/// Threads that poll futures. They compute little: engines and Python functions have threads of their own.
const THREADS: usize = 2;

/// The runtime.
///
/// # Errors
/// When the system refuses the threads.
pub(crate) fn handle() -> PyResult<&'static Handle> {
    let build = || {
        Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("tidegate-python")
            .enable_all()
            .build()
            .ok()
    };
    let refused = || PyRuntimeError::new_err("the system refuses the threads that Tidegate needs");
    RUNTIME.get_or_init(build).as_ref().map(Runtime::handle).ok_or_else(refused)
}

/// Lets this thread poll what needs the runtime, for its timers for instance. It may from then on: a thread that has polled
/// once is an event loop's, and will poll again. Threads of the runtime itself may anyway, and leave it when they end.
///
/// # Errors
/// When the system refuses the threads.
pub(crate) fn enter() -> PyResult<()> {
    thread_local! {
        static HAS_ENTERED: Cell<bool> = const { Cell::new(false) };
    }
    if !HAS_ENTERED.get() && Handle::try_current().is_err() {
        std::mem::forget(handle()?.enter());
        HAS_ENTERED.set(true);
    }
    Ok(())
}
