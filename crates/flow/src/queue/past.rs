//! What happened to items that were handed out and came back.

use std::time::Duration;

/// The last attempts that are told in a history.
const TOLD: usize = 16;

/// What happened to one item so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    pub(super) attempts: u32,
    pub(super) history: Vec<Attempt>,
}

impl Past {
    pub(super) fn remember(&mut self, attempt: Attempt) {
        self.attempts = attempt.number;
        if self.history.len() == TOLD {
            self.history.remove(0);
        }
        self.history.push(attempt);
    }
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
