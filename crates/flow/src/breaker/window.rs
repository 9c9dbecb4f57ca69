//! The last calls: as many as fit, and no older than a while.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// How a call went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) at: Instant,
    pub(super) verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    /// It succeeded, but late.
    Slow,
    Failed,
}

/// How many calls went how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) calls: usize,
    pub(super) failed: usize,
    pub(super) slow: usize,
}

#[derive(Debug)]
pub(super) struct Window {
    calls: VecDeque<Call>,
    tally: Tally,
    most: usize,
    span: Duration,
}

impl Window {
    pub(super) fn new(most: usize, span: Duration) -> Self {
        Self { calls: VecDeque::new(), tally: Tally::default(), most, span }
    }

    pub(super) fn push(&mut self, call: Call) {
        if self.calls.len() == self.most {
            self.forget_oldest();
        }
        self.calls.push_back(call);
        self.tally.calls += 1;
        self.tally.failed += usize::from(call.verdict == Verdict::Failed);
        self.tally.slow += usize::from(call.verdict == Verdict::Slow);
    }

    pub(super) fn tally(&mut self, now: Instant) -> Tally {
        while self.calls.front().is_some_and(|call| now.saturating_duration_since(call.at) >= self.span) {
            self.forget_oldest();
        }
        self.tally
    }

    pub(super) fn clear(&mut self) {
        self.calls.clear();
        self.tally = Tally::default();
    }

    fn forget_oldest(&mut self) {
        if let Some(call) = self.calls.pop_front() {
            self.tally.calls -= 1;
            self.tally.failed -= usize::from(call.verdict == Verdict::Failed);
            self.tally.slow -= usize::from(call.verdict == Verdict::Slow);
        }
    }
}
