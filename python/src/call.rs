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
use crate::item::{Carried, Fault, Item};
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
    pub(crate) async fn call_here(&self, arguments: Py<PyTuple>) -> PyResult<Py<PyAny>> {
        if self.place == Place::Thread {
            // Boxed, so that calls on the loop do not carry the room for it.
            return Box::pin(self.call_on_thread(Python::attach(context)?, arguments)).await;
        }
        match Python::attach(|py| self.begin(py, arguments))? {
            Begun::Over(result) => Ok(result),
            Begun::Waits(driven) => driven.await,
        }
    }

    fn begin(&self, py: Python<'_>, arguments: Py<PyTuple>) -> PyResult<Begun> {
        let result = self.function.bind(py).call1(arguments)?;
        match self.is_awaitable(&result)? {
            true if is_crowded() => Err(PyTypeError::new_err(
                "the task returned a coroutine and is not a coroutine function; define it with 'async def'",
            )),
            true => Ok(Begun::Waits(Driven::new(&result)?)),
            false => Ok(Begun::Over(result.unbind())),
        }
    }

    /// Calls it from a task of the runtime.
    pub(crate) async fn call_from_afar(&self, home: &Home, arguments: Vec<Item>) -> PyResult<Item> {
        if self.place == Place::Thread {
            let copy = |py: Python<'_>| {
                let context = home.context.call_method0(py, intern!(py, "copy"))?;
                Ok::<_, PyErr>((context, tuple(py, &arguments)?.unbind()))
            };
            let (context, arguments) = Python::attach(copy)?;
            return self.call_on_thread(context, arguments).await.map(Item::new);
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

    async fn call_on_thread(&self, context: Py<PyAny>, arguments: Py<PyTuple>) -> PyResult<Py<PyAny>> {
        let function = Arc::clone(&self.function);
        let call = move || {
            Python::attach(|py| {
                let mut words = vec![function.bind(py).clone()];
                words.extend(arguments.bind(py).iter());
                context.call_method1(py, intern!(py, "run"), PyTuple::new(py, words)?)
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
    Over(Py<PyAny>),
    Waits(Driven),
}

/// Objects as the arguments of a call.
pub(crate) fn words<W>(objects: W) -> PyResult<Py<PyTuple>>
where
    W: for<'py> IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error = PyErr>,
{
    Python::attach(|py| objects.into_pyobject(py).map(Bound::unbind))
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
impl Work<Carried> for Function {
    type Out = Carried;
    type Err = Fault;

    async fn call<'a>(&'a self, _: Cx<'a>, input: Carried) -> Result<Carried, Fault> {
        let called = match (input.begun, words((input.object,))) {
            (Some(driven), _) => driven.await,
            (None, Ok(words)) => self.call_here(words).await,
            (None, Err(error)) => Err(error),
        };
        called.map(Carried::new).map_err(|error| self.fault(error))
    }

    /// Once a result could not be awaited, the next will hardly be a coroutine either, and needs no future.
    fn call_now(&self, _: Cx<'_>, input: Carried) -> Result<Result<Carried, Fault>, Carried> {
        if self.place == Place::Thread || self.plain.get().is_none() || input.begun.is_some() {
            return Err(input);
        }
        Python::attach(|py| {
            let object = input.object.clone_ref(py);
            let begun = (object,).into_pyobject(py).and_then(|words| self.begin(py, words.unbind()));
            match begun {
                Ok(Begun::Over(result)) => Ok(Ok(Carried::new(result))),
                Ok(Begun::Waits(driven)) => Err(Carried { begun: Some(driven), ..input }),
                Err(error) => Ok(Err(self.fault(error))),
            }
        })
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
