//! Who is in the engine, so that a drain can wait until nobody is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts requests from their arrival to their terminal event.
#[derive(Default)]
pub(crate) struct Roll {
    members: AtomicUsize,
    left: Notify,
}

/// One request on the roll; dropping it takes it off.
pub(crate) struct Member {
    roll: Arc<Roll>,
}

impl Roll {
    /// Puts a request on the roll.
    pub(crate) fn join(self: &Arc<Self>) -> Member {
        self.members.fetch_add(1, Ordering::SeqCst);
        Member { roll: self.clone() }
    }

    /// How many are on the roll.
    pub(crate) fn count(&self) -> usize {
        self.members.load(Ordering::SeqCst)
    }

    /// Resolves when nobody is on the roll.
    pub(crate) async fn empty(&self) {
        loop {
            let mut left = std::pin::pin!(self.left.notified());
            // Listening begins before the count is read, so that a departure in between is not missed.
            left.as_mut().enable();
            if self.members.load(Ordering::SeqCst) == 0 {
                return;
            }
            left.await;
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if self.roll.members.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.roll.left.notify_waiters();
        }
    }
}
