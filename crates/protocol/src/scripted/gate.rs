//! A door in a script that the test opens.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// Holds every reply that reaches it until it is opened; open once, open for ever. Clones are the same gate.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    door: Arc<Mutex<Door>>,
}

#[derive(Debug)]
enum Door {
    Open,
    Closed(Vec<Waker>),
}

impl Default for Door {
    fn default() -> Self {
        Self::Closed(Vec::new())
    }
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets everything through that waits or will come.
    pub fn open(&self) {
        let door =
            std::mem::replace(&mut *self.door.lock().unwrap_or_else(PoisonError::into_inner), Door::Open);
        if let Door::Closed(waiting) = door {
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

impl Future for Gate {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *door {
            Door::Open => Poll::Ready(()),
            Door::Closed(waiting) => {
                waiting.push(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
