//! The idempotency keys that a queue has seen lately.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::TicketId;
use super::store::Position;

/// How many keys a queue remembers, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The most keys; one more, and the oldest is forgotten.
    pub count: NonZeroUsize,
    /// How long a key is remembered.
    pub time: Duration,
}

/// Which item a key stands for.
#[derive(Clone, Copy)]
pub(super) struct First {
    pub(super) id: TicketId,
    /// Where the store notes it, unless it was there when the queue was opened or there is no store.
    pub(super) position: Option<Position>,
}

pub(super) struct Keys {
    window: Window,
    first: HashMap<Arc<str>, First>,
    /// In order of time. A key that was forgotten and came again is here twice, so each names its item.
    order: VecDeque<(Duration, Arc<str>, TicketId)>,
}

impl Keys {
    pub(super) fn new(window: Window) -> Self {
        Self { window, first: HashMap::new(), order: VecDeque::new() }
    }

    /// The item that came first with that key, if that is not too long ago.
    pub(super) fn seen(&mut self, key: &str, now: Duration) -> Option<First> {
        while let Some((since, _, _)) = self.order.front()
            && now.saturating_sub(*since) >= self.window.time
        {
            self.forget_oldest();
        }
        self.first.get(key).copied()
    }

    pub(super) fn remember(&mut self, key: Arc<str>, first: First, now: Duration) {
        while self.order.len() >= self.window.count.get() {
            self.forget_oldest();
        }
        self.order.push_back((now, Arc::clone(&key), first.id));
        self.first.insert(key, first);
    }

    /// Frees the key of an item that was not taken after all.
    pub(super) fn forget(&mut self, key: &str, id: TicketId) {
        if self.first.get(key).is_some_and(|first| first.id == id) {
            self.first.remove(key);
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key, id)) = self.order.pop_front() {
            self.forget(&key, id);
        }
    }
}
