//! A request that goes on by itself and whose outcome is delivered to a handle.

use std::future::Future;

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use tokio::task::AbortHandle;

use crate::replies::Reply;
use crate::runtime;

/// A request that goes on by itself.
#[pyclass(frozen)]
pub(crate) struct Job {
    task: AbortHandle,
}

impl Job {
    /// Begins with it. The outcome is converted on the thread that delivers it.
    pub(crate) fn begin<T>(
        handle: Py<PyAny>,
        work: impl Future<Output = PyResult<T>> + Send + 'static,
    ) -> PyResult<Self>
    where
        T: for<'py> IntoPyObject<'py> + Send + 'static,
    {
        let task = runtime::handle()?.spawn(async move {
            let outcome = work.await;
            let outcome = Box::new(move |py: Python<'_>| outcome?.into_py_any(py));
            Reply { handle, outcome }.send();
        });
        Ok(Self { task: task.abort_handle() })
    }
}

#[pymethods]
impl Job {
    /// Ends it wherever it is; nothing is delivered then.
    fn abort(&self) {
        self.task.abort();
    }
}
