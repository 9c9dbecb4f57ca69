//! Where items wait: bounded, in the order of a policy, and handed out so that none is lost.
//!
//! [`Queue`] is what tasks share: cheap to clone, and every method may be dropped while it waits. In ten lines:
//!
//! 1. `put` gives an item in, with a [`Ticket`] that says whose it is, how urgent, how dear and until when it is of use.
//! 2. It waits for room; `try_put` does not wait, and says why not and when to try again.
//! 3. `take` waits for the item that is next under the policy, and hands it out as a [`Lease`].
//! 4. A lease reads like the item. While it is out, nobody else has the item.
//! 5. `ack` says that the item is done, and `ack_many` that several are. Only then is it gone; a durable queue has that on
//!    disk when `ack` returns.
//! 6. `nack` says that it is not, and that it may be taken again after a while. Dropping the lease says so too, at once.
//! 7. Where leases run out, a taker that stalls loses the item to another one, and its late `ack` is refused; work that
//!    takes longer says `extend` now and then.
//! 8. So every item is served at least once. With idempotency keys on the producer's side and effects keyed by item on
//!    the taker's, it takes effect once.
//! 9. An item that comes back too often, or that its taker condemns, lies among the dead letters until someone looks.
//! 10. `pop` takes for good, without a lease: for items that may be lost together with their taker, and faster.
//!
//! [`Line`] is the same order and the same bounds without tasks, time or threads; a queue is built around one. [`Gate`] is
//! the bounds and the rates alone, for work that has to be looked at before its cost is known.

mod books;
mod dead_letters;
mod exchange;
mod gate;
mod gone;
mod journal;
mod keys;
mod lanes;
mod lease;
mod leases;
pub mod line;
mod moment;
mod opening;
mod overload;
mod owners;
mod pace;
mod packing;
mod parting;
mod past;
pub mod policy;
mod popped;
mod put;
mod record;
mod rejected;
mod settings;
mod stats;
mod stock;
pub mod store;
mod streams;
mod sync;
mod take;
mod taken;
mod taking;
mod throttle;
mod ticket;
mod timekeeper;
mod waiters;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

pub use dead_letters::{Cause, DeadLetter, DeadLetters};
pub use gate::{Denial, Denied, Gate, Permit};
pub use gone::{Gone, Why};
pub use keys::Window;
pub use lease::{Lease, LeaseError};
pub use line::Line;
pub use opening::OpenError;
pub use overload::{ControlledDelay, OverloadOrder};
pub use past::{Attempt, Ending};
pub use popped::Popped;
pub use record::{Json, Record, RecordError};
pub use rejected::{PutManyError, Rejected, Rejection};
pub use settings::{Builder, Doomed, Expiry, Overflow};
pub use stats::{RejectedTally, Stats, Tally};
pub use streams::QueueSink;
pub use taken::Taken;
pub use taking::UpTo;
pub use throttle::Rate;
pub use ticket::{Capacity, Owner, Reason, Refused, Ticket, TicketId};

use books::Books;
use exchange::Exchange;
use moment::Moment;
use policy::PolicySettings;
use store::Store;

/// A queue that tasks share. A clone is another handle to the same queue.
///
/// Futures of this queue need a tokio runtime only where something falls due by itself: leases that run out, items that
/// are put off, deadlines, rates.
pub struct Queue<T> {
    shared: Arc<Shared<T>>,
}

/// What all handles, leases and tasks of a queue have in common.
struct Shared<T> {
    exchange: Exchange<Books<T>>,
    clock: Clock,
    memory: Option<Memory<T>>,
    rest: Arc<Notify>,
    has_keeper: AtomicBool,
}

/// Where a durable queue remembers, and how an item is written.
struct Memory<T> {
    store: Arc<dyn Store>,
    encode: fn(&T, &mut Vec<u8>),
}

/// The clock of a queue: the time since it was made, or, if a store held older items, since the first of them came.
#[derive(Clone, Copy)]
struct Clock {
    start: Instant,
    head_start: Duration,
}

impl Clock {
    fn now(&self) -> Duration {
        self.start.elapsed() + self.head_start
    }

    #[inline]
    fn moment(&self) -> Moment {
        Moment::of(self.now())
    }
}

impl<T> Shared<T> {
    fn with<R>(&self, act: impl FnOnce(&mut Books<T>) -> R) -> R {
        self.exchange.with(self.clock.moment(), act)
    }

    fn store(&self) -> Option<&dyn Store> {
        self.memory.as_ref().map(|memory| &*memory.store)
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        self.exchange.take_alarm().into_iter().for_each(std::task::Waker::wake);
    }
}

/// What was left when a queue had been drained.
#[derive(Debug)]
pub struct Drained<T> {
    /// Items that nobody took, in order of arrival. Those of a durable queue are in its store still.
    pub left: Vec<Taken<T>>,
    /// Items that are out on leases which do not run out, and could not be called back.
    pub out: usize,
}

impl<T: Send + 'static> Queue<T> {
    /// Describes a queue with these bounds.
    pub fn builder(capacity: Capacity) -> Builder<T> {
        Builder::new(capacity)
    }

    /// A queue with these bounds in which all else is as it is when nothing is said.
    pub fn new(capacity: Capacity) -> Self {
        Self::builder(capacity).build()
    }

    /// Sees to it that what falls due is not forgotten.
    fn keep_time(&self) {
        if !self.shared.has_keeper.load(Relaxed) {
            timekeeper::begin(&self.shared);
        }
    }

    /// The time on the clock of the queue, on which deadlines are given.
    pub fn now(&self) -> Duration {
        self.shared.clock.now()
    }

    /// Takes nothing in any more. What is there can still be taken; whoever waits for room is refused.
    pub fn close(&self) {
        self.shared.with(|books| books.line.close());
    }

    /// Whether the queue takes nothing in any more.
    pub fn is_closed(&self) -> bool {
        self.shared.with(|books| books.line.is_closed())
    }

    /// Closes the queue and waits until everything in it is taken and acknowledged, but not longer than `within`. Then
    /// leases that run out are called back, and what is left is handed to the caller.
    pub async fn drain(&self, within: Duration) -> Drained<T> {
        self.keep_time();
        self.close();
        let deadline = Instant::now() + within;
        loop {
            let rest = self.shared.rest.notified();
            tokio::pin!(rest);
            rest.as_mut().enable();
            let is_over = self.shared.with(|books| books.is_at_rest());
            if is_over || timeout_at(deadline, rest).await.is_err() {
                return self.shared.with(Books::clear);
            }
        }
    }

    /// Serves in another order from now on. Those who wait keep their arrival.
    pub fn set_policy(&self, policy: impl Into<PolicySettings>) {
        let policy = policy.into();
        self.shared.with(|books| books.line.set_policy(policy));
    }

    /// Has other bounds from now on. What waits beyond them is served as ever.
    pub fn set_capacity(&self, capacity: Capacity) {
        self.shared.with(|books| books.settings.capacity = capacity);
    }

    /// Takes items in at another rate from now on, all owners together; `None` is without limit.
    pub fn set_rate(&self, rate: Option<Rate>) {
        self.shared.with(|books| books.throttle.limit_all(rate));
    }

    /// Takes items of each owner in at another rate from now on; `None` is without limit.
    pub fn set_owner_rate(&self, rate: Option<Rate>) {
        self.shared.with(|books| books.throttle.limit_each(rate));
    }

    /// Items that wait.
    pub fn len(&self) -> usize {
        self.shared.with(|books| books.depth())
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The queue at this moment, and what it has done so far.
    pub fn stats(&self) -> Stats {
        self.shared.with(Books::stats)
    }

    /// The items that were given up.
    pub fn dead_letters(&self) -> DeadLetters<T> {
        DeadLetters::new(Arc::clone(&self.shared))
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.with(|books| {
            f.debug_struct("Queue")
                .field("depth", &books.depth())
                .field("in_flight", &books.in_flight)
                .field("dead_letters", &books.dead.letters.len())
                .field("is_closed", &books.line.is_closed())
                .finish_non_exhaustive()
        })
    }
}
