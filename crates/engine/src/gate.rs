//! The bound of the queue, counted before any work is spent on a request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::Refusal;

use crate::drain_rate::DrainRate;

/// Counts who waits, by requests and by prompt tokens.
pub(crate) struct Gate {
    requests: usize,
    tokens: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    requests: usize,
    tokens: usize,
    drain: DrainRate,
}

/// A place in the queue; dropping it frees the place.
pub(crate) struct Ticket {
    gate: Arc<Gate>,
    tokens: usize,
}

impl Gate {
    /// A queue of at most so many requests and prompt tokens.
    pub(crate) fn new(requests: usize, tokens: usize) -> Arc<Self> {
        Arc::new(Self { requests, tokens, waiting: Mutex::default() })
    }

    /// Takes a place for a request whose length is not known yet.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Ticket, Refusal> {
        let mut waiting = self.lock();
        if waiting.requests >= self.requests || waiting.tokens >= self.tokens.max(1) {
            return Err(waiting.full());
        }
        waiting.requests += 1;
        Ok(Ticket { gate: self.clone(), tokens: 0 })
    }

    /// Requests that wait.
    pub(crate) fn queued(&self) -> usize {
        self.lock().requests
    }

    /// The most requests that may wait.
    pub(crate) fn capacity(&self) -> usize {
        self.requests
    }

    /// Notes that requests left the queue to run, for the estimate of the next free place.
    pub(crate) fn drained(&self, requests: usize, now: Duration) {
        self.lock().drain.record(requests, now);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn full(&self) -> Refusal {
        Refusal::QueueFull { queued: self.requests, retry_after: self.drain.time_for(self.requests) }
    }
}

impl Ticket {
    /// Counts the prompt's tokens. A request that is alone always fits.
    pub(crate) fn weigh(&mut self, tokens: usize) -> Result<(), Refusal> {
        let mut waiting = self.gate.lock();
        if waiting.tokens > 0 && waiting.tokens + tokens > self.gate.tokens {
            return Err(waiting.full());
        }
        waiting.tokens += tokens;
        self.tokens = tokens;
        Ok(())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut waiting = self.gate.lock();
        waiting.requests -= 1;
        waiting.tokens -= self.tokens;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_by_requests_and_tokens_and_come_back() {
        let gate = Gate::new(2, 100);
        let mut first = gate.enter().unwrap();
        first.weigh(150).unwrap();
        assert!(matches!(gate.enter(), Err(Refusal::QueueFull { queued: 1, .. })));
        drop(first);
        let mut first = gate.enter().unwrap();
        let mut second = gate.enter().unwrap();
        assert!(matches!(gate.enter(), Err(Refusal::QueueFull { queued: 2, .. })));
        first.weigh(60).unwrap();
        assert!(second.weigh(41).is_err());
        second.weigh(40).unwrap();
        drop((first, second));
        assert_eq!(gate.queued(), 0);
        assert_eq!(gate.lock().tokens, 0);
    }
}
