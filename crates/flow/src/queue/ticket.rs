//! What a queue and its policies know of an item.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

/// Names one stay in one queue. Later arrivals have larger ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketId(pub(super) u64);

impl From<u64> for TicketId {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl From<TicketId> for u64 {
    fn from(id: TicketId) -> Self {
        id.0
    }
}

/// Whose an item is: a text, shared by all tickets that were made from the same `Arc<str>` or as clones of each other.
///
/// The default is the owner with the empty name, which costs nothing to make, to clone and to drop.
#[derive(Clone, Default)]
pub struct Owner(Option<Arc<str>>);

impl Owner {
    /// Whether both are clones of one text, which is quicker to see than that they read the same.
    #[inline]
    pub(super) fn is_clone_of(&self, other: &Self) -> bool {
        self.address() == other.address()
    }

    /// The owner with the empty name.
    pub(super) fn nobody() -> &'static Self {
        static NOBODY: Owner = Owner(None);
        &NOBODY
    }

    #[inline]
    pub(super) fn is_nobody(&self) -> bool {
        self.0.is_none()
    }

    /// Where its text lies: as long as it does, no other text has that address.
    #[inline]
    pub(super) fn address(&self) -> usize {
        self.0.as_ref().map_or(0, |name| Arc::as_ptr(name).addr())
    }
}

impl Deref for Owner {
    type Target = str;

    fn deref(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

impl Borrow<str> for Owner {
    fn borrow(&self) -> &str {
        self
    }
}

impl PartialEq for Owner {
    fn eq(&self, other: &Self) -> bool {
        self.is_clone_of(other) || **self == **other
    }
}

impl Eq for Owner {}

impl Hash for Owner {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl From<Arc<str>> for Owner {
    fn from(name: Arc<str>) -> Self {
        Self((!name.is_empty()).then_some(name))
    }
}

impl From<&str> for Owner {
    fn from(name: &str) -> Self {
        Arc::<str>::from(name).into()
    }
}

impl From<String> for Owner {
    fn from(name: String) -> Self {
        Arc::<str>::from(name).into()
    }
}

impl From<&Owner> for Arc<str> {
    fn from(owner: &Owner) -> Self {
        owner.0.clone().unwrap_or_default()
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

/// All that a queue and its policy may know of an item.
///
/// ```
/// use std::time::Duration;
/// use flow::Ticket;
///
/// let ticket = Ticket::of("alice").level(1).cost(800).bytes(4096).deadline(Duration::from_secs(30)).key("order-17");
/// assert_eq!((&*ticket.owner, ticket.cost), ("alice", 800));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Whose item it is.
    pub owner: Owner,
    /// Urgency: 0 goes first.
    pub level: u8,
    /// What serving it costs, in a unit of the owner's choice (tokens, say): what shares and [`Capacity::cost`] count.
    pub cost: u64,
    /// The memory or disk that it takes up while it waits: what [`Capacity::bytes`] counts.
    pub bytes: u64,
    /// The time from which on serving it is of no use.
    pub deadline: Option<Duration>,
    /// The idempotency key: of two items with the same key only one is to be served. A [`crate::Line`] carries it and
    /// does not look at it.
    pub key: Option<Arc<str>>,
}

impl Ticket {
    /// A ticket of that owner: level 0, cost 1, no bytes, no deadline, no key. An `Arc<str>` that is at hand is taken
    /// over as it is; from a `&str` one is made.
    pub fn of(owner: impl Into<Owner>) -> Self {
        Self { owner: owner.into(), level: 0, cost: 1, bytes: 0, deadline: None, key: None }
    }

    /// The same with that urgency.
    #[must_use]
    pub fn level(mut self, level: u8) -> Self {
        self.level = level;
        self
    }

    /// The same with that cost.
    #[must_use]
    pub fn cost(mut self, cost: u64) -> Self {
        self.cost = cost;
        self
    }

    /// The same with that size.
    #[must_use]
    pub fn bytes(mut self, bytes: u64) -> Self {
        self.bytes = bytes;
        self
    }

    /// The same with that deadline, on the clock of the queue.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The same with that idempotency key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.key = Some(key.into());
        self
    }
}

impl Default for Ticket {
    /// A ticket of the owner with the empty name; see [`Ticket::of`].
    fn default() -> Self {
        Self::of(Owner::default())
    }
}

/// The bounds of a queue.
///
/// An item that alone is larger than the bound on cost or on bytes waits alone instead of never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// The most items that wait.
    pub items: usize,
    /// The largest sum of costs that waits.
    pub cost: u64,
    /// The largest sum of bytes that waits.
    pub bytes: u64,
}

impl Capacity {
    /// No bounds, for an owner that bounds what comes in some other way.
    pub const UNBOUNDED: Self = Self { items: usize::MAX, cost: u64::MAX, bytes: u64::MAX };

    /// At most so many items, of any cost and size.
    pub const fn items(items: usize) -> Self {
        Self { items, ..Self::UNBOUNDED }
    }

    /// The same with at most that sum of costs.
    #[must_use]
    pub const fn cost(mut self, cost: u64) -> Self {
        self.cost = cost;
        self
    }

    /// The same with at most that sum of bytes.
    #[must_use]
    pub const fn bytes(mut self, bytes: u64) -> Self {
        self.bytes = bytes;
        self
    }

    /// Why there is no room for one more item of that cost and size. What is alone fits, however large it is.
    #[inline]
    pub(super) fn objection(&self, held: Load, cost: u64, bytes: u64) -> Option<Reason> {
        let exceeds =
            |held: u64, more: u64, bound: u64| held.checked_add(more).is_none_or(|total| total > bound);
        if held.items >= self.items {
            Some(Reason::Items)
        } else if held.items == 0 {
            None
        } else if exceeds(held.cost, cost, self.cost) {
            Some(Reason::Cost)
        } else if exceeds(held.bytes, bytes, self.bytes) {
            Some(Reason::Bytes)
        } else {
            None
        }
    }
}

/// Room that items take up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) items: usize,
    pub(super) cost: u64,
    pub(super) bytes: u64,
}

impl Load {
    pub(super) fn add(&mut self, other: Self) {
        self.items += other.items;
        self.cost = self.cost.saturating_add(other.cost);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    pub(super) fn subtract(&mut self, other: Self) {
        self.items = self.items.saturating_sub(other.items);
        self.cost = self.cost.saturating_sub(other.cost);
        self.bytes = self.bytes.saturating_sub(other.bytes);
    }
}

/// An item that a queue does not accept, given back.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused<T> {
    /// The item.
    pub item: T,
    /// Why.
    pub reason: Reason,
}

/// Why a queue does not accept an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// As many items wait as may.
    Items,
    /// Its cost and that of the waiting items are more than may wait.
    Cost,
    /// Its bytes and those of the waiting items are more than may wait.
    Bytes,
    /// The queue is closed.
    Closed,
}

impl<T: fmt::Debug> std::error::Error for Refused<T> {}

impl<T> fmt::Display for Refused<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Items => "the queue holds as many items as it may",
            Self::Cost => "the waiting items cost as much as may wait",
            Self::Bytes => "the waiting items hold as many bytes as may wait",
            Self::Closed => "the queue is closed",
        })
    }
}
