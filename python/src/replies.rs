//! Outcomes for threads that wait without an event loop: one thread takes the interpreter's lock for all that have come.

use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use pyo3::intern;
use pyo3::prelude::*;

/// What makes an outcome once the interpreter's lock is held.
pub(crate) type Outcome = dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send;

/// An outcome, and the `tidegate.Handle` that is to have it.
pub(crate) struct Reply {
    /// The handle.
    pub(crate) handle: Py<PyAny>,
    /// The outcome, made once the lock is held.
    pub(crate) outcome: Box<Outcome>,
}

impl Reply {
    /// Leaves it for the thread. It waits for nothing, so what computes never waits for Python code.
    pub(crate) fn send(self) {
        static THREAD: OnceLock<Sender<Reply>> = OnceLock::new();
        let sender = THREAD.get_or_init(|| {
            let (sender, receiver) = channel();
            // Where there can be no thread the receiver goes, and handles say so by never being done.
            thread::Builder::new().name("tidegate-replies".into()).spawn(move || serve(&receiver)).ok();
            sender
        });
        sender.send(self).ok();
    }

    fn settle(self, py: Python<'_>) {
        let handle = self.handle.bind(py);
        let settled = match (self.outcome)(py) {
            Ok(value) => handle.call_method1(intern!(py, "_succeed"), (value,)),
            Err(error) => handle.call_method1(intern!(py, "_fail"), (error.into_value(py),)),
        };
        if let Err(error) = settled {
            error.write_unraisable(py, Some(handle));
        }
    }
}

fn serve(replies: &Receiver<Reply>) {
    while let Ok(first) = replies.recv() {
        // At the end of the interpreter nobody waits for what is left.
        Python::try_attach(|py| {
            first.settle(py);
            replies.try_iter().for_each(|reply| reply.settle(py));
        });
    }
}
