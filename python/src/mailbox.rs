//! How threads that are not Python's wake the tasks of an event loop: many letters, one byte through a socket.
//!
//! Leaving a letter takes a lock for a moment, never the interpreter's, so no engine ever waits for Python code. The
//! loop watches the socket's other end, and one call of `deliver` wakes all that have been written to by then.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// So many letters are delivered before the loop gets a chance to do something else, such as to look at its timers. Each
/// wakes a task that takes some 40 µs to read its events and hand them on, while a further round costs a look at the sockets.
const ROUND: usize = 16;

/// What is done on the loop's thread.
pub(crate) enum Letter {
    /// A future of the loop is to be completed.
    Wake(Py<PyAny>),
    /// Something is to be called.
    Call(Box<dyn FnOnce(Python<'_>) + Send>),
}

/// The mailbox of one event loop. The loop holds it for as long as it watches the socket.
#[pyclass(frozen)]
pub(crate) struct Mailbox {
    inside: Mutex<Inside>,
    bell: UnixStream,
    ear: UnixStream,
}

struct Inside {
    letters: Vec<Letter>,
    /// Whether the loop has been told already.
    is_rung: bool,
}

/// A handle on a mailbox that other threads may keep.
#[derive(Clone)]
pub(crate) struct Address(Arc<Py<Mailbox>>);

impl Address {
    /// That of the loop that runs on this thread.
    ///
    /// # Errors
    /// When none runs, or it cannot watch a socket.
    pub(crate) fn here(py: Python<'_>) -> PyResult<(Self, Bound<'_, PyAny>)> {
        static RUNNING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        static MAILBOXES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let event_loop = RUNNING.import(py, "asyncio", "get_running_loop")?.call0()?;
        let make = || Ok::<_, PyErr>(py.import("weakref")?.call_method0("WeakKeyDictionary")?.unbind());
        let mailboxes = MAILBOXES.get_or_try_init(py, make)?.bind(py);
        let known = mailboxes.call_method1(intern!(py, "get"), (&event_loop,))?;
        if let Ok(mailbox) = known.cast::<Mailbox>() {
            return Ok((Self(Arc::new(mailbox.clone().unbind())), event_loop));
        }
        let mailbox = Bound::new(py, Mailbox::new()?)?;
        let deliver = mailbox.getattr(intern!(py, "deliver"))?;
        event_loop.call_method1(intern!(py, "add_reader"), (mailbox.get().ear.as_raw_fd(), deliver))?;
        mailboxes.set_item(&event_loop, &mailbox)?;
        Ok((Self(Arc::new(mailbox.unbind())), event_loop))
    }

    /// Leaves a letter.
    pub(crate) fn post(&self, letter: Letter) {
        self.0.get().post(letter);
    }
}

impl Mailbox {
    fn new() -> PyResult<Self> {
        let (bell, ear) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        ear.set_nonblocking(true)?;
        Ok(Self { inside: Mutex::new(Inside { letters: Vec::new(), is_rung: false }), bell, ear })
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn post(&self, letter: Letter) {
        let mut inside = self.lock();
        inside.letters.push(letter);
        if !inside.is_rung {
            inside.is_rung = true;
            self.ring();
        }
    }

    /// A full socket has a byte in it that will be heard, and a closed one has a loop behind it that is gone.
    fn ring(&self) {
        (&self.bell).write_all(&[1]).ok();
    }
}

#[pymethods]
impl Mailbox {
    /// Does what the letters say. The loop calls it when the bell has rung.
    fn deliver(&self, py: Python<'_>) {
        // One byte is all that is ever unread: it is rung again only after the letters were taken.
        (&self.ear).read_exact(&mut [0]).ok();
        let letters: Vec<Letter> = {
            let mut inside = self.lock();
            let round = inside.letters.len().min(ROUND);
            let letters = inside.letters.drain(..round).collect();
            inside.is_rung = !inside.letters.is_empty();
            if inside.is_rung {
                self.ring();
            }
            letters
        };
        for letter in letters {
            match letter {
                Letter::Wake(future) => complete(future.bind(py)),
                Letter::Call(call) => call(py),
            }
        }
    }
}

/// Completes a future of the loop on whose thread this is, unless it is over.
pub(crate) fn complete(future: &Bound<'_, PyAny>) {
    let py = future.py();
    let complete = || {
        if !future.call_method0(intern!(py, "done"))?.is_truthy()? {
            future.call_method1(intern!(py, "set_result"), (py.None(),))?;
        }
        Ok::<_, PyErr>(())
    };
    if let Err(error) = complete() {
        error.write_unraisable(py, Some(future));
    }
}
