//! How a queue is to behave, and the builder that asks for it.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use super::overload::ControlledDelay;
use super::policy::{Discipline, PolicySettings};
use super::store::{Recovered, Store};
use super::{Capacity, Gone, OpenError, Queue, Rate, Record, Window};

/// So many dead letters are kept where nothing else is said.
const DEAD_LETTERS: usize = 10_000;

/// What happens to an item for which there is no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// It waits until there is.
    #[default]
    Wait,
    /// It is refused.
    Reject,
    /// Those that have waited longest go, until there is room.
    DropOldest,
    /// It goes among the dead letters.
    DeadLetter,
}

/// What happens to an item whose deadline passes while it waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expiry {
    /// It goes, as [`Builder::on_gone`] is told.
    #[default]
    Drop,
    /// It goes among the dead letters.
    DeadLetter,
}

/// What happens to an item that could only be served after its deadline, going by how long serving takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Doomed {
    /// It is taken like any other.
    #[default]
    Accept,
    /// It is refused.
    Reject,
}

/// Is told of each item that the queue lets go by itself.
pub(super) type OnGone<T> = Arc<dyn Fn(Gone<T>) + Send + Sync>;

pub(super) struct Settings<T> {
    pub(super) capacity: Capacity,
    pub(super) policy: PolicySettings,
    pub(super) overflow: Overflow,
    pub(super) expiry: Expiry,
    pub(super) doomed: Doomed,
    pub(super) rate: Option<Rate>,
    pub(super) owner_rate: Option<Rate>,
    pub(super) visibility: Option<Visibility<T>>,
    pub(super) max_attempts: Option<NonZeroU32>,
    pub(super) window: Option<Window>,
    pub(super) dead_letters: usize,
    pub(super) overload: Option<ControlledDelay>,
    pub(super) on_gone: Option<OnGone<T>>,
}

/// How long a lease runs, and how its item is copied so that another taker can have it afterwards.
pub(super) struct Visibility<T> {
    pub(super) time: Duration,
    pub(super) copy: fn(&T) -> T,
}

/// Describes a queue; [`Builder::build`] makes one that lives in memory, [`Builder::open`] one that is durable.
pub struct Builder<T> {
    settings: Settings<T>,
}

impl<T: Send + 'static> Builder<T> {
    pub(super) fn new(capacity: Capacity) -> Self {
        Self {
            settings: Settings {
                capacity,
                policy: Discipline::default().into(),
                overflow: Overflow::default(),
                expiry: Expiry::default(),
                doomed: Doomed::default(),
                rate: None,
                owner_rate: None,
                visibility: None,
                max_attempts: None,
                window: None,
                dead_letters: DEAD_LETTERS,
                overload: None,
                on_gone: None,
            },
        }
    }

    /// In what order items are taken; by priority where nothing is said.
    #[must_use]
    pub fn policy(mut self, policy: impl Into<PolicySettings>) -> Self {
        self.settings.policy = policy.into();
        self
    }

    /// What happens when the queue is full.
    #[must_use]
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.settings.overflow = overflow;
        self
    }

    /// What happens to items whose deadline passes while they wait. They are never handed out.
    #[must_use]
    pub fn expiry(mut self, expiry: Expiry) -> Self {
        self.settings.expiry = expiry;
        self
    }

    /// What happens to items that could only be served too late.
    #[must_use]
    pub fn doomed(mut self, doomed: Doomed) -> Self {
        self.settings.doomed = doomed;
        self
    }

    /// How fast items are taken in, all owners together.
    #[must_use]
    pub fn rate(mut self, rate: Rate) -> Self {
        self.settings.rate = Some(rate);
        self
    }

    /// How fast items of each owner are taken in. One owner's wait keeps nobody else waiting.
    #[must_use]
    pub fn owner_rate(mut self, rate: Rate) -> Self {
        self.settings.owner_rate = Some(rate);
        self
    }

    /// Leases run out after that time, unless they are extended, and the item goes to another taker. The queue keeps a
    /// copy of each item that is out, so an item that is dear to copy is best an `Arc`.
    #[must_use]
    pub fn lease(mut self, time: Duration) -> Self
    where
        T: Clone,
    {
        self.settings.visibility = Some(Visibility { time, copy: T::clone });
        self
    }

    /// An item that was handed out so often without being acknowledged goes among the dead letters.
    #[must_use]
    pub fn max_attempts(mut self, attempts: NonZeroU32) -> Self {
        self.settings.max_attempts = Some(attempts);
        self
    }

    /// An item with the key of one that came within the window is not taken again; putting it answers with the name
    /// of the first.
    #[must_use]
    pub fn dedupe(mut self, count: NonZeroUsize, time: Duration) -> Self {
        self.settings.window = Some(Window { count, time });
        self
    }

    /// How many dead letters are kept; one more, and the one that was accepted first goes. 10,000 where nothing is said.
    #[must_use]
    pub fn dead_letters(mut self, limit: usize) -> Self {
        self.settings.dead_letters = limit;
        self
    }

    /// While the queue is overloaded, lets go what has waited too long.
    #[must_use]
    pub fn overload(mut self, control: ControlledDelay) -> Self {
        self.settings.overload = Some(control);
        self
    }

    /// Is called with each item that the queue lets go by itself, on the task that happened to touch the queue then.
    #[must_use]
    pub fn on_gone(mut self, call: impl Fn(Gone<T>) + Send + Sync + 'static) -> Self {
        self.settings.on_gone = Some(Arc::new(call));
        self
    }

    /// A queue that lives as long as its handles.
    pub fn build(self) -> Queue<T> {
        Queue::in_memory(self.settings)
    }

    /// A queue that remembers in a store. `recovered` is what the store held when it was opened: items that were out
    /// wait again, and an item that was out for the last time it may goes among the dead letters.
    ///
    /// # Errors
    /// When an item that the store held cannot be read. Nothing is changed in the store then.
    pub fn open(self, store: Arc<dyn Store>, recovered: Recovered) -> Result<Queue<T>, OpenError>
    where
        T: Record,
    {
        Queue::on_store(self.settings, store, recovered)
    }
}
