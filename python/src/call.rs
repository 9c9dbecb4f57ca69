//! Python functions as Rust futures: on the task that awaits them, on the loop from elsewhere, or on a thread.

use std::sync::{Arc, OnceLock};

use flow::retry::Class;
use flow::work::{Cx, Work};
use pyo3::exceptions::{PyException, PyRuntimeError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};
use tokio::sync::oneshot;

use crate::awaitable::{Driven, is_crowded};
use crate::item::{Fault, Item};
use crate::mailbox::{Address, Letter};
use crate::runtime;

/// Where a function runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On the event loop: coroutine functions, and plain ones that are quick.
    Loop,
    /// On a thread: plain functions that may block.
    Thread,
}

/// A Python function.
pub(crate) struct Function {
    function: Arc<Py<PyAny>>,
    place: Place,
    /// The exceptions after which trying again may help.
    transient: Option<Py<PyAny>>,
    /// A type that its results were of and that cannot be awaited: asking that of every result costs more than the call.
    plain: OnceLock<Py<PyType>>,
}

/// A loop on which coroutines run that are begun elsewhere, in a context.
#[derive(Clone)]
pub(crate) struct Home {
    address: Address,
    context: Arc<Py<PyAny>>,
}

impl Home {
    /// The running loop, and a copy of the current context.
    pub(crate) fn here(py: Python<'_>) -> PyResult<Self> {
        Ok(Self { address: Address::here(py)?.0, context: Arc::new(context(py)?) })
    }
}

/// A copy of the current context, so that what runs elsewhere sees the same variables.
fn context(py: Python<'_>) -> PyResult<Py<PyAny>> {
    Ok(py.import(intern!(py, "contextvars"))?.call_method0(intern!(py, "copy_context"))?.unbind())
}

impl Function {
    pub(crate) fn new(function: Py<PyAny>, place: &str, transient: Option<Py<PyAny>>) -> Self {
        let place = if place == "thread" { Place::Thread } else { Place::Loop };
        Self { function: Arc::new(function), place, transient, plain: OnceLock::new() }
    }

    /// Whether a result is a coroutine, or something else that is to be awaited.
    fn is_awaitable(&self, result: &Bound<'_, PyAny>) -> PyResult<bool> {
        if self.plain.get().is_some_and(|plain| plain.as_ptr() == result.get_type_ptr().cast()) {
            return Ok(false);
        }
        let kind = result.get_type();
        let is_awaitable = kind.hasattr(intern!(result.py(), "__await__"))?;
        if !is_awaitable {
            self.plain.set(kind.unbind()).ok();
        }
        Ok(is_awaitable)
    }

    /// Calls it within a coroutine of ours, whose task and context it shares.
    pub(crate) async fn call_here(&self, arguments: Vec<Item>) -> PyResult<Item> {
        if self.place == Place::Thread {
            return self.call_on_thread(Python::attach(context)?, arguments).await;
        }
        let begun = Python::attach(|py| {
            let result = self.function.bind(py).call1(tuple(py, &arguments)?)?;
            match self.is_awaitable(&result)? {
                true if is_crowded() => Err(PyTypeError::new_err(
                    "the task returned a coroutine and is not a coroutine function; define it with 'async def'",
                )),
                true => Ok::<_, PyErr>(Begun::Waits(Driven::new(&result)?)),
                false => Ok(Begun::Over(Item::new(result.unbind()))),
            }
        })?;
        match begun {
            Begun::Over(item) => Ok(item),
            Begun::Waits(driven) => driven.await.map(Item::new),
        }
    }

    /// Calls it from a task of the runtime.
    pub(crate) async fn call_from_afar(&self, home: &Home, arguments: Vec<Item>) -> PyResult<Item> {
        if self.place == Place::Thread {
            let copy = |py: Python<'_>| home.context.call_method0(py, intern!(py, "copy"));
            return self.call_on_thread(Python::attach(copy)?, arguments).await;
        }
        let (sender, receiver) = oneshot::channel();
        let (function, context) = (Arc::clone(&self.function), Arc::clone(&home.context));
        let begin = move |py: Python<'_>| begin(py, (&function, &context), &arguments, sender);
        home.address.post(Letter::Call(Box::new(begin)));
        let gone = |_| PyRuntimeError::new_err("the event loop ended before the function did");
        let task = receiver.await.map_err(gone)?;
        let mut ending = Ending { address: &home.address, task: Some(task.0) };
        let outcome = task.1.await.map_err(gone)?;
        ending.task = None;
        outcome.map(Item::new)
    }

    async fn call_on_thread(&self, context: Py<PyAny>, arguments: Vec<Item>) -> PyResult<Item> {
        let function = Arc::clone(&self.function);
        let call = move || {
            Python::attach(|py| {
                let mut words = vec![function.clone_ref(py)];
                words.extend(arguments.iter().map(|item| item.object(py)));
                let result = context.call_method1(py, intern!(py, "run"), PyTuple::new(py, words)?)?;
                Ok(Item::new(result))
            })
        };
        let ended = runtime::handle()?.spawn_blocking(call).await;
        ended.map_err(|error| PyRuntimeError::new_err(error.to_string()))?
    }

    /// Gives an exception its class: what is listed may be tried again, and nothing that ends a task.
    pub(crate) fn fault(&self, error: PyErr) -> Fault {
        let is_transient = Python::attach(|py| {
            let listed =
                self.transient.as_ref().is_some_and(|kinds| error.matches(py, kinds).unwrap_or(false));
            listed && error.is_instance_of::<PyException>(py)
        });
        Fault::new(error, if is_transient { Class::Transient } else { Class::Permanent })
    }
}

enum Begun {
    Over(Item),
    Waits(Driven),
}

fn tuple<'py>(py: Python<'py>, arguments: &[Item]) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(py, arguments.iter().map(|item| item.object(py)))
}

/// A task of an event loop, and how it will have ended.
type Begin = (Py<PyAny>, oneshot::Receiver<PyResult<Py<PyAny>>>);

/// Begins a call on the loop's thread: a coroutine gets a task of its own.
fn begin(
    py: Python<'_>,
    (function, context): (&Py<PyAny>, &Py<PyAny>),
    arguments: &[Item],
    began: oneshot::Sender<Begin>,
) {
    let (sender, receiver) = oneshot::channel();
    let attempt = || {
        let context = context.bind(py);
        let mut words = vec![function.clone_ref(py)];
        words.extend(arguments.iter().map(|item| item.object(py)));
        let result = context.call_method1(intern!(py, "run"), PyTuple::new(py, words)?)?;
        if !result.hasattr(intern!(py, "__await__"))? {
            return Ok(Err(result.unbind()));
        }
        let task = py.import("tidegate.callables")?.getattr("begin_task")?;
        let words = PyTuple::new(py, [task, result])?;
        Ok::<_, PyErr>(Ok(context.call_method1(intern!(py, "run"), words)?))
    };
    match attempt() {
        Ok(Ok(task)) => {
            let ended = Ended(std::sync::Mutex::new(Some(sender)));
            if let Err(error) = task.call_method1(intern!(py, "add_done_callback"), (ended,)) {
                error.write_unraisable(py, Some(&task));
            }
            began.send((task.unbind(), receiver)).ok();
        }
        Ok(Err(value)) => {
            sender.send(Ok(value)).ok();
            began.send((py.None(), receiver)).ok();
        }
        Err(error) => {
            sender.send(Err(error)).ok();
            began.send((py.None(), receiver)).ok();
        }
    }
}

/// A callback of a task that says how it ended.
#[pyclass(frozen)]
struct Ended(std::sync::Mutex<Option<oneshot::Sender<PyResult<Py<PyAny>>>>>);

#[pymethods]
impl Ended {
    fn __call__(&self, task: Bound<'_, PyAny>) {
        let sender = self.0.lock().ok().and_then(|mut sender| sender.take());
        if let Some(sender) = sender {
            sender.send(task.call_method0("result").map(Bound::unbind)).ok();
        }
    }
}

/// Cancels a task for which nobody waits any more.
struct Ending<'a> {
    address: &'a Address,
    task: Option<Py<PyAny>>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            let cancel = move |py: Python<'_>| {
                if !task.is_none(py)
                    && let Err(error) = task.call_method0(py, intern!(py, "cancel"))
                {
                    error.write_unraisable(py, None);
                }
            };
            self.address.post(Letter::Call(Box::new(cancel)));
        }
    }
}

/// As the work of a stage it is called within the coroutine that carries the item.
impl Work<Item> for Function {
    type Out = Item;
    type Err = Fault;

    async fn call<'a>(&'a self, _: Cx<'a>, input: Item) -> Result<Item, Fault> {
        self.call_here(vec![input]).await.map_err(|error| self.fault(error))
    }
}

/// A number from a dictionary of settings, if it is there and not `None`.
pub(crate) fn setting<'py, T>(settings: &Bound<'py, PyDict>, name: &str) -> PyResult<Option<T>>
where
    T: for<'a> FromPyObject<'a, 'py, Error: Into<PyErr>>,
{
    match settings.get_item(name)? {
        Some(value) if !value.is_none() => value.extract().map(Some).map_err(Into::into),
        _ => Ok(None),
    }
}
