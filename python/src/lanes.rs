//! Python functions on lanes: threads that stay on their processors.

use std::num::NonZeroUsize;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::awaitable::Awaitable;
use crate::errors;

/// Lanes on which functions are called, one at a time on each.
#[pyclass(frozen)]
pub(crate) struct Lanes {
    lanes: tidegate::lanes::Lanes,
}

#[pymethods]
impl Lanes {
    /// So many lanes.
    #[new]
    fn new(count: usize) -> PyResult<Self> {
        let none = || PyValueError::new_err("there is at least one lane");
        let lanes = tidegate::lanes::Lanes::new(NonZeroUsize::new(count).ok_or_else(none)?);
        lanes.map(|lanes| Self { lanes }).map_err(failed)
    }

    /// How many functions are called at once.
    #[getter]
    fn count(&self) -> usize {
        self.lanes.count()
    }

    /// Calls a function with the number of its lane, once one is free; gives what it gives.
    fn run(&self, function: Py<PyAny>) -> Awaitable {
        let lanes = self.lanes.clone();
        Awaitable::new(async move {
            let called = lanes.run(move |lane| {
                Python::attach(|py| {
                    let result = function.call1(py, (lane,));
                    drop(function);
                    result
                })
            });
            called.await.map_err(failed)?
        })
    }
}

fn failed(error: tidegate::lanes::LaneError) -> PyErr {
    errors::exception("TidegateError", error, &[])
}
