//! Ctrl-C and SIGTERM as something that can be waited for.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals that ask the program to stop. None is lost between two waits.
pub(super) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// Listens from now on; the default action of the signals, which is to kill the program, is off from now on too.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
