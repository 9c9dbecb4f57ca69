//! Errors of the crates below as the exceptions of `tidegate.errors`, which subclass those of Python.

use std::time::Duration;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyModule};
use tidegate::OpenError;
use tidegate::protocol::{Failure, Refusal, Unserved};

/// An exception of `tidegate.errors` with a message and what else it carries, by name.
pub(crate) fn exception(kind: &str, message: impl ToString, fields: &[(&str, Field<'_>)]) -> PyErr {
    Python::attach(|py| build(py, kind, &message.to_string(), fields).unwrap_or_else(|error| error))
}

/// What an exception carries besides its message.
pub(crate) enum Field<'a> {
    /// A text.
    Text(&'a str),
    /// Seconds.
    Seconds(Duration),
    /// A number.
    Count(u64),
}

fn build(py: Python<'_>, kind: &str, message: &str, fields: &[(&str, Field<'_>)]) -> PyResult<PyErr> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || py.import("tidegate.errors").map(Bound::unbind))?;
    let named = PyDict::new(py);
    for (name, field) in fields {
        match field {
            Field::Text(text) => named.set_item(name, text)?,
            Field::Seconds(time) => named.set_item(name, time.as_secs_f64())?,
            Field::Count(count) => named.set_item(name, count)?,
        }
    }
    let error = module.bind(py).getattr(kind)?.call((message,), Some(&named))?;
    Ok(PyErr::from_value(error))
}

/// Why a model could not be opened.
pub(crate) fn not_opened(error: &OpenError) -> PyErr {
    let kind = match error {
        OpenError::Missing { .. } => "ModelMissingError",
        OpenError::Engine(_) => "InvalidRequestError",
        _ => "ModelLoadError",
    };
    exception(kind, error, &[])
}

/// Why a request was not accepted.
pub(crate) fn refused(refusal: &Refusal) -> PyErr {
    match refusal {
        Refusal::QueueFull { retry_after, .. } => {
            exception("QueueFullError", refusal, &[("retry_after", Field::Seconds(*retry_after))])
        }
        Refusal::RateLimited { retry_after } => {
            exception("RateLimitedError", refusal, &[("retry_after", Field::Seconds(*retry_after))])
        }
        Refusal::UnknownModel { .. } => exception("UnknownModelError", refusal, &[]),
        Refusal::NotReady { .. } => exception("EngineStoppedError", refusal, &[]),
        Refusal::InvalidParameter { param, .. } => {
            exception("InvalidRequestError", refusal, &[("parameter", Field::Text(param))])
        }
        _ => exception("InvalidRequestError", refusal, &[]),
    }
}

/// Why an accepted request ended without an answer.
pub(crate) fn failed(failure: &Failure) -> PyErr {
    let kind = match failure {
        failure if failure.is_late() => "DeadlineExceededError",
        Failure::ShuttingDown => "EngineStoppedError",
        _ => "EngineError",
    };
    exception(kind, failure, &[])
}

/// Why there is no answer.
pub(crate) fn unserved(unserved: &Unserved) -> PyErr {
    match unserved {
        Unserved::Refused(refusal) => refused(refusal),
        Unserved::Failed(failure) => failed(failure),
    }
}
