//! The task that touches a queue when something in it falls due: a lease runs out, an item may be taken again, a
//! deadline passes, a token comes.
//!
//! One runs per queue, from the first use of the queue inside of a runtime. Without it nothing would be wrong, only
//! late, until someone touches the queue. It ends when the queue does.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Weak;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until};

use super::Shared;

/// Farther ahead than any timer needs to be set.
const FAR: Duration = Duration::from_secs(60 * 60 * 24 * 365);

/// Says that no task keeps the time of a queue any more, however it ended.
struct Presence<T>(Weak<Shared<T>>);

impl<T> Drop for Presence<T> {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.has_keeper.store(false, Relaxed);
        }
    }
}

/// Begins to keep the time of a queue, if this is called inside of a runtime and nobody does yet.
#[cold]
pub(super) fn begin<T: Send + 'static>(shared: &std::sync::Arc<Shared<T>>) {
    let Ok(runtime) = Handle::try_current() else { return };
    if !shared.has_keeper.swap(true, Relaxed) {
        runtime.spawn(keep(std::sync::Arc::downgrade(shared)));
    }
}

async fn keep<T: Send + 'static>(weak: Weak<Shared<T>>) {
    let presence = Presence(weak);
    let mut timer = pin!(sleep_until(Instant::now()));
    poll_fn(|context| {
        loop {
            let Some(shared) = presence.0.upgrade() else { return Poll::Ready(()) };
            let now = shared.clock.moment();
            let due = shared.exchange.watch(now, context.waker());
            let wait = due.since(now).min(FAR);
            drop(shared);
            timer.as_mut().reset(Instant::now() + wait);
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await;
}
