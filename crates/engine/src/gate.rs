//! The bound of the queue, counted before any work is spent on a request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flow::rate::DrainRate;
use protocol::Refusal;

/// Over this time the rate is measured at which the queue drains.
const WINDOW: Duration = Duration::from_secs(60);

/// Counts who waits, by requests and by prompt tokens.
pub(crate) struct Gate {
    requests: usize,
    tokens: usize,
    waiting: Mutex<Waiting>,
}

struct Waiting {
    requests: usize,
    tokens: usize,
    drain: DrainRate,
}

/// A place in the queue; dropping it frees the place.
pub(crate) struct Reservation {
    gate: Arc<Gate>,
    tokens: usize,
}

impl Gate {
    /// A queue of at most so many requests and prompt tokens.
    pub(crate) fn new(requests: usize, tokens: usize) -> Arc<Self> {
        let waiting = Waiting { requests: 0, tokens: 0, drain: DrainRate::new(WINDOW, Duration::ZERO) };
        Arc::new(Self { requests, tokens, waiting: Mutex::new(waiting) })
    }

    /// Takes a place for a request whose length is not known yet.
    pub(crate) fn enter(self: &Arc<Self>, now: Duration) -> Result<Reservation, Refusal> {
        let mut waiting = self.lock();
        if waiting.requests >= self.requests || waiting.tokens >= self.tokens.max(1) {
            return Err(waiting.full(now));
        }
        waiting.requests += 1;
        Ok(Reservation { gate: self.clone(), tokens: 0 })
    }

    /// Requests that wait.
    pub(crate) fn queued(&self) -> usize {
        self.lock().requests
    }

    /// The most requests that may wait.
    pub(crate) fn capacity(&self) -> usize {
        self.requests
    }

    /// Notes that a request left the queue to run, for the estimate of when a refused one should come back.
    pub(crate) fn drained(&self, now: Duration) {
        self.lock().drain.record(1, now);
    }

    /// Notes that nobody has been waiting until now: such time says nothing about how fast a queue would drain.
    pub(crate) fn idle(&self, now: Duration) {
        self.lock().drain.idle(now);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn full(&mut self, now: Duration) -> Refusal {
        let retry_after = self.drain.retry_after(self.requests as u64, now);
        Refusal::QueueFull { queued: self.requests, retry_after }
    }
}

impl Reservation {
    /// Counts the prompt's tokens. A request that is alone always fits.
    pub(crate) fn weigh(&mut self, tokens: usize, now: Duration) -> Result<(), Refusal> {
        let mut waiting = self.gate.lock();
        if waiting.tokens > 0 && waiting.tokens + tokens > self.gate.tokens {
            return Err(waiting.full(now));
        }
        waiting.tokens += tokens;
        self.tokens = tokens;
        Ok(())
    }
}

impl Drop for Reservation {
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
        let mut first = gate.enter(Duration::ZERO).unwrap();
        first.weigh(150, Duration::ZERO).unwrap();
        assert!(matches!(gate.enter(Duration::ZERO), Err(Refusal::QueueFull { queued: 1, .. })));
        drop(first);
        let mut first = gate.enter(Duration::ZERO).unwrap();
        let mut second = gate.enter(Duration::ZERO).unwrap();
        assert!(matches!(gate.enter(Duration::ZERO), Err(Refusal::QueueFull { queued: 2, .. })));
        first.weigh(60, Duration::ZERO).unwrap();
        assert!(second.weigh(41, Duration::ZERO).is_err());
        second.weigh(40, Duration::ZERO).unwrap();
        drop((first, second));
        assert_eq!(gate.queued(), 0);
        assert_eq!(gate.lock().tokens, 0);
    }
}
