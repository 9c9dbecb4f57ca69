//! Whether to try again, and when: back-off with full jitter, under a budget, never past a deadline.
//!
//! Nothing here sleeps or looks at a clock; whoever runs the attempts asks [`Retry::after`] how long to wait.

mod budget;
#[cfg(test)]
mod tests;

use std::time::Duration;

use tokio::time::Instant;

pub use budget::RetryBudget;

use crate::random::Random;

/// What an error says about trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The same call may succeed later.
    Transient,
    /// The same call will fail again.
    Permanent,
    /// The callee has too much to do.
    Overload {
        /// How long it asked to be left alone.
        retry_after: Option<Duration>,
    },
}

/// An error that knows its class. Implement it for the errors of your stages, batches and nodes.
pub trait Classify {
    /// What this error says about trying again.
    fn class(&self) -> Class;
}

impl Classify for std::convert::Infallible {
    fn class(&self) -> Class {
        match *self {}
    }
}

/// Exponential back-off with full jitter: before attempt n + 1 a wait that is uniform between zero and
/// min(longest, first · 2^(n - 1)). Of the usual jitters this one spreads callers best for the work it costs
/// (Brooker, "Exponential backoff and jitter", AWS 2015).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// Waits up to `first` after the first failure, twice as long after every further one, but never above `longest`.
    pub fn exponential(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// The longest wait after that many failures; zero after none.
    pub fn ceiling(&self, failures: u32) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
        let factor = 2u32.checked_pow(doublings).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.longest)
    }

    /// A random wait after that many failures.
    pub fn delay(&self, failures: u32, random: &mut Random) -> Duration {
        random.up_to(self.ceiling(failures))
    }
}

/// How often and when to try again.
#[derive(Clone, Debug)]
pub struct Retry {
    backoff: Backoff,
    attempts: u32,
    budget: Option<RetryBudget>,
}

/// An attempt that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The how-manieth it was, counted from 1.
    pub number: u32,
    /// What its error says.
    pub class: Class,
    /// When it failed.
    pub failed_at: Instant,
    /// When a success stops being of use.
    pub deadline: Option<Instant>,
    /// How long an attempt usually takes.
    pub usual: Duration,
}

/// Why there is no further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GiveUp {
    /// The error says that it would fail again.
    Permanent,
    /// All attempts are used up.
    Attempts,
    /// It would not be finished by the deadline.
    Deadline,
    /// Too many attempts of late were retries.
    Budget,
}

impl Retry {
    /// Three attempts in all, with that back-off between them and no budget.
    pub fn exponential(first: Duration, longest: Duration) -> Self {
        Self { backoff: Backoff::exponential(first, longest), attempts: 3, budget: None }
    }

    /// No second attempt.
    pub fn never() -> Self {
        Self::exponential(Duration::ZERO, Duration::ZERO).attempts(1)
    }

    /// Sets how many attempts there are in all, the first included.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Takes every further attempt out of that budget. Clones of a budget are the same budget.
    pub fn budget(mut self, budget: RetryBudget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Whether there can be an attempt after the one with that number, whatever becomes of it.
    pub fn allows_after(&self, number: u32) -> bool {
        number < self.attempts
    }

    /// How long to wait before the next attempt. Asking takes from the budget, so ask only if there will be one.
    ///
    /// # Errors
    /// Says why there is to be no further attempt. One that would usually not be finished by the deadline is refused
    /// here rather than begun, and costs no budget.
    pub fn after(&self, attempt: Attempt, random: &mut Random) -> Result<Duration, GiveUp> {
        let asked = match attempt.class {
            Class::Permanent => return Err(GiveUp::Permanent),
            Class::Transient => Duration::ZERO,
            Class::Overload { retry_after } => retry_after.unwrap_or_default(),
        };
        if !self.allows_after(attempt.number) {
            return Err(GiveUp::Attempts);
        }
        // The jitter comes on top of what was asked: else all who were turned away together would return together.
        let wait = asked.saturating_add(self.backoff.delay(attempt.number, random));
        let done = attempt.failed_at.checked_add(wait.saturating_add(attempt.usual));
        if attempt.deadline.is_some_and(|deadline| done.is_none_or(|done| done >= deadline)) {
            return Err(GiveUp::Deadline);
        }
        match &self.budget {
            Some(budget) if !budget.withdraw(attempt.failed_at) => Err(GiveUp::Budget),
            _ => Ok(wait),
        }
    }

    /// Notes a success, which is what fills a budget.
    pub fn succeeded(&self, now: Instant) {
        if let Some(budget) = &self.budget {
            budget.deposit(now);
        }
    }
}
