//! Looks at how short the system's memory is, for all who give something up when it is.

use std::fmt;
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use flow::metrics::System;
use flow::scheduler::Reading;

/// Reads every so often how much of the memory is used, of the machine's or of the control group's, and how long work stands
/// still for it. It ends when it is dropped.
pub struct MemoryWatch {
    /// Nothing is sent: the thread ends when this is gone.
    going: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl MemoryWatch {
    /// Looks at this system, on a thread of its own, which tells `hears` what it reads.
    ///
    /// # Errors
    /// When the system refuses the thread.
    pub fn start(every: Duration, hears: impl FnMut(Reading) + Send + 'static) -> io::Result<Self> {
        Self::of(System::here(), every, hears)
    }

    /// As [`MemoryWatch::start`], of a system that may be another one.
    pub(crate) fn of(
        system: System,
        every: Duration,
        mut hears: impl FnMut(Reading) + Send + 'static,
    ) -> io::Result<Self> {
        let (going, gone) = mpsc::channel::<()>();
        let body = move || {
            while gone.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                hears(Reading::of(&system));
            }
        };
        let thread = thread::Builder::new().name("tidegate-memory".to_owned()).spawn(body)?;
        Ok(Self { going: Some(going), thread: Some(thread) })
    }
}

impl Drop for MemoryWatch {
    /// Waits until nobody is told any more.
    fn drop(&mut self) {
        drop(self.going.take());
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            // If whoever was told has panicked, that has been said already.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for MemoryWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryWatch").finish_non_exhaustive()
    }
}
