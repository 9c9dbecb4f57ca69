//! A Python object as an item of queues, pipelines and graphs, and a Python exception as an error of theirs.

use std::fmt;
use std::sync::Arc;

use flow::graph::{Content, Digest};
use flow::queue::{Record, RecordError};
use flow::retry::{Class, Classify};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::awaitable::Driven;

/// A Python object that is cloned without the interpreter's lock.
#[derive(Clone)]
pub(crate) struct Item(pub(crate) Arc<Py<PyAny>>);

impl Item {
    pub(crate) fn new(object: Py<PyAny>) -> Self {
        Self(Arc::new(object))
    }

    /// The object itself.
    pub(crate) fn object(&self, py: Python<'_>) -> Py<PyAny> {
        self.0.clone_ref(py)
    }

    fn pickled(&self) -> PyResult<Vec<u8>> {
        Python::attach(|py| {
            let bytes = py.import("pickle")?.call_method1(intern!(py, "dumps"), (&*self.0, 5))?;
            Ok(bytes.cast_into::<PyBytes>()?.as_bytes().to_vec())
        })
    }
}

/// An item of a pipeline. Whoever carries it polls on a thread of Python's, so unlike an [`Item`] it costs no allocation,
/// and its clone takes the interpreter's lock.
pub(crate) struct Carried {
    pub(crate) object: Py<PyAny>,
    /// The function's coroutine, if it was called already and turned out to be one.
    pub(crate) begun: Option<Driven>,
}

impl Carried {
    pub(crate) fn new(object: Py<PyAny>) -> Self {
        Self { object, begun: None }
    }
}

/// The clone is there for another attempt, which begins anew.
impl Clone for Carried {
    fn clone(&self) -> Self {
        Self::new(Python::attach(|py| self.object.clone_ref(py)))
    }
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item").finish_non_exhaustive()
    }
}

/// Objects are told apart by what `pickle` makes of them; one that it refuses is equal to no other.
impl Content for Item {
    fn feed(&self, digest: &mut Digest) {
        match self.pickled() {
            Ok(bytes) => {
                digest.number(bytes.len() as u64);
                digest.bytes(&bytes);
            }
            Err(_) => digest.opaque(),
        }
    }

    fn heap_bytes(&self) -> u64 {
        self.pickled().map_or(0, |bytes| bytes.len() as u64)
    }
}

/// On the disk, items are pickled. What cannot be is refused before it gets here.
impl Record for Item {
    fn encode(&self, into: &mut Vec<u8>) {
        match self.pickled() {
            Ok(bytes) => into.extend_from_slice(&bytes),
            Err(error) => panic!("the item cannot be pickled: {error}"),
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let load = |py: Python<'_>| {
            let bytes = PyBytes::new(py, bytes);
            Ok::<_, PyErr>(py.import("pickle")?.call_method1(intern!(py, "loads"), (bytes,))?.unbind())
        };
        Python::attach(load).map(Self::new).map_err(|error| RecordError::new("a pickled object", error))
    }
}

/// A Python exception that ended an attempt, and what it says about trying again.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) error: PyErr,
    class: Class,
}

impl Fault {
    pub(crate) fn new(error: PyErr, class: Class) -> Self {
        Self { error, class }
    }
}

impl From<PyErr> for Fault {
    fn from(error: PyErr) -> Self {
        Self::new(error, Class::Permanent)
    }
}

impl Classify for Fault {
    fn class(&self) -> Class {
        self.class
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Fault {}
