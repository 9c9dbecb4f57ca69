//! An item together with what happened to it.

use std::time::Duration;

use super::Taken;

/// The last attempts that are told in a history.
const TOLD: usize = 16;

/// An item as it lies in the line.
#[derive(Clone)]
pub(super) struct Stored<T> {
    pub(super) item: T,
    /// `None` for one that was never handed out, as most are.
    pub(super) past: Option<Box<Past>>,
}

/// What happened to an item that was handed out before.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    pub(super) attempts: u32,
    pub(super) history: Vec<Attempt>,
}

/// One time that an item was handed out and not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The how-manieth, counted from 1.
    pub number: u32,
    /// When it was handed out, on the clock of the queue.
    pub began: Duration,
    /// How long it was out.
    pub lasted: Duration,
    /// How it ended.
    pub end: Ending,
}

/// How an attempt ended without an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// The lease was dropped.
    Returned,
    /// The taker gave the item back, to be handed out after that time.
    Nacked(Duration),
    /// The lease ran out.
    RanOut,
    /// The taker said that nobody can serve it.
    Condemned,
    /// The queue was drained while it was out.
    Recalled,
}

impl<T> Stored<T> {
    pub(super) fn new(item: T) -> Self {
        Self { item, past: None }
    }

    pub(super) fn attempts(&self) -> u32 {
        self.past.as_ref().map_or(0, |past| past.attempts)
    }

    pub(super) fn remember(&mut self, attempt: Attempt) {
        let past = self.past.get_or_insert_default();
        past.attempts = attempt.number;
        if past.history.len() == TOLD {
            past.history.remove(0);
        }
        past.history.push(attempt);
    }
}

impl<T> Taken<Stored<T>> {
    /// As it is handed to those who do not care how often it was out.
    pub(super) fn without_past(self) -> Taken<T> {
        let Self { item, id, ticket, arrived } = self;
        Taken { item: item.item, id, ticket, arrived }
    }
}
