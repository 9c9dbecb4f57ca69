//! Graphs whose nodes are Python functions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use flow::Retry;
use flow::graph::{Cause, GraphError, Input, Named, Node};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use serde_json::json;

use crate::awaitable::Awaitable;
use crate::call::{Function, Home};
use crate::item::{Fault, Item};
use crate::request::seconds;
use crate::{errors, runtime};

/// A node as Python describes it.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Described {
    name: String,
    function: Py<PyAny>,
    place: String,
    /// The nodes whose results it is given, in this order; none for one that is given the input.
    after: Vec<String>,
    retries: u32,
    timeout: Option<f64>,
    cached: bool,
}

/// The name under which the input of a graph stands among its nodes.
const INPUT: &str = "(input)";

/// A graph of Python functions.
#[pyclass(frozen)]
pub(crate) struct Graph {
    graph: flow::Graph,
    input: Input<Item>,
    nodes: HashMap<String, Node<Item>>,
    /// Where coroutines run: the loop of whoever asked last.
    home: Arc<Mutex<Option<Home>>>,
}

/// The exception that a function raised is the error; the path to its node is a note on it.
fn failed(error: GraphError) -> PyErr {
    let message = error.to_string();
    match &error {
        GraphError::Node { cause: Cause::Error { error, .. }, .. } => match error.downcast_ref::<Fault>() {
            Some(fault) => Python::attach(|py| {
                let raised = fault.error.clone_ref(py);
                // Notes are there from Python 3.11 on.
                raised.value(py).call_method1("add_note", (message.as_str(),)).ok();
                raised
            }),
            None => errors::exception("TaskFailedError", message, &[]),
        },
        GraphError::Node { cause: Cause::Timeout { .. }, .. } => {
            errors::exception("DeadlineExceededError", message, &[])
        }
        GraphError::Node { .. } => errors::exception("TaskFailedError", message, &[]),
        _ => errors::exception("InvalidRequestError", message, &[]),
    }
}

#[pymethods]
impl Graph {
    /// Builds and checks a graph.
    #[new]
    fn new(nodes: Vec<Described>, concurrency: usize) -> PyResult<Self> {
        let mut builder = flow::Graph::builder();
        builder.concurrency(concurrency);
        let input = builder.unset_input::<Item>(INPUT);
        let home: Arc<Mutex<Option<Home>>> = Arc::default();
        let mut handles = HashMap::new();
        for node in nodes {
            let after: Vec<&str> = match node.after.is_empty() {
                true => vec![INPUT],
                false => node.after.iter().map(String::as_str).collect(),
            };
            let deps: Vec<Named<Item>> = after.iter().map(|name| builder.named(name)).collect();
            let function = Arc::new(Function::new(node.function, &node.place, None));
            let mut built = builder.node(&node.name, deps);
            if node.retries > 0 {
                let wait = std::time::Duration::from_millis(100);
                let retry = Retry::exponential(wait, wait * 100).attempts(node.retries.saturating_add(1));
                built = built.retry(retry);
            }
            if let Some(timeout) = node.timeout {
                built = built.timeout(seconds("timeout", timeout)?);
            }
            if !node.cached {
                built = built.unkept();
            }
            let home = Arc::clone(&home);
            let handle = built.run(move |values: Vec<Arc<Item>>| {
                let (function, home) = (Arc::clone(&function), Arc::clone(&home));
                async move {
                    let home = home.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    let nowhere =
                        || PyRuntimeError::new_err("the graph has not been asked from an event loop");
                    let home = home.ok_or_else(nowhere).map_err(Fault::from)?;
                    let values = values.iter().map(|value| Item::clone(value)).collect();
                    function.call_from_afar(&home, values).await.map_err(Fault::from)
                }
            });
            handles.insert(node.name, handle);
        }
        Ok(Self { graph: builder.build().map_err(failed)?, input, nodes: handles, home })
    }

    /// The results of nodes for an input. It runs what is needed for them and is not there.
    fn execute(&self, py: Python<'_>, input: Py<PyAny>, wanted: Vec<String>) -> PyResult<Awaitable> {
        let unknown = |name: &String| {
            errors::exception("InvalidRequestError", format!("the graph has no node '{name}'"), &[])
        };
        let nodes = wanted.iter().map(|name| self.nodes.get(name).copied().ok_or_else(|| unknown(name)));
        let nodes = nodes.collect::<PyResult<Vec<_>>>()?;
        let home = Home::here(py)?;
        // What was there before goes once the lock is free, for Python may do anything then.
        let _before = self.home.lock().unwrap_or_else(PoisonError::into_inner).replace(home);
        let (graph, given, input) = (self.graph.clone(), self.input, Item::new(input));
        Ok(Awaitable::new(async move {
            let values = {
                let _runtime = runtime::handle()?.enter();
                graph.with(given, input).map_err(failed)?.get(nodes)
            };
            let values = values.await.map_err(failed)?;
            Ok(Python::attach(|py| values.iter().map(|value| value.object(py)).collect::<Vec<_>>()))
        }))
    }

    /// Declares what is remembered of a node void.
    fn invalidate(&self, name: &str) -> PyResult<()> {
        let node = self.graph.node::<Item>(name).map_err(failed)?;
        self.graph.invalidate(node).map_err(failed)
    }

    /// What it has done and what it holds, as JSON.
    fn stats(&self) -> String {
        let stats = self.graph.stats();
        json!({
            "runs": stats.runs,
            "joined": stats.joined,
            "failures": stats.failures,
            "cancelled": stats.cancelled,
            "kept_bytes": stats.memo.bytes,
        })
        .to_string()
    }
}
