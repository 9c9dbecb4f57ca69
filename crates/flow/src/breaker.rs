//! A circuit breaker: stops calling what fails or is slow, and finds out by a few probes when it is well again.
//!
//! Closed, it lets every call through and watches the last ones. When too many of them failed or were slow it opens:
//! for a while nothing passes. Then it is half open: exactly as many probes pass as it was told, and their results
//! close it or open it again. Nothing here sleeps or looks at a clock.

mod rules;
#[cfg(test)]
mod tests;
mod window;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

pub use rules::BreakerRules;

use crate::random::Random;
use window::{Call, Verdict, Window};

/// A circuit breaker. Clones are the same breaker, so several callers of one service can share what they learn.
///
/// It is told the time as an `Instant` because those who share it have no other moment in common.
#[derive(Clone, Debug)]
pub struct Breaker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    rules: BreakerRules,
    circuit: Mutex<Circuit>,
}

#[derive(Debug)]
struct Circuit {
    phase: Phase,
    /// Grows with every change of phase; the result of a call that an earlier phase let through says nothing about
    /// the present one.
    era: u64,
    window: Window,
    random: Random,
    opened: u64,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed,
    Open { until: Instant },
    HalfOpen { free: u32, results: u32, bad: u32 },
}

/// What a breaker does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// All pass.
    Closed,
    /// None passes.
    Open {
        /// How long that will still be so.
        left: Duration,
    },
    /// Only probes pass.
    HalfOpen {
        /// Probes that may still begin.
        free: u32,
        /// Probes that are under way.
        under_way: u32,
    },
}

/// A call that a breaker does not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the circuit is open: calls failed or were slow too often; ask again in {retry_after:?}")]
pub struct CircuitOpen {
    /// When to ask again; zero if that depends on probes that are under way.
    pub retry_after: Duration,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(rules: BreakerRules) -> Self {
        Self::seeded(rules, Random::unpredictable())
    }

    /// A closed breaker that draws the jitter of its open times from there.
    pub fn seeded(rules: BreakerRules, random: Random) -> Self {
        let window = Window::new(rules.calls, rules.window);
        let circuit = Circuit { phase: Phase::Closed, era: 0, window, random, opened: 0 };
        Self { shared: Arc::new(Shared { rules, circuit: Mutex::new(circuit) }) }
    }

    /// Asks to make a call.
    ///
    /// # Errors
    /// Says that the call must not be made, and when to ask again.
    pub fn admit(&self, now: Instant) -> Result<Pass, CircuitOpen> {
        let mut circuit = self.circuit();
        circuit.half_open_if_due(&self.shared.rules, now);
        match &mut circuit.phase {
            Phase::Closed => {}
            Phase::Open { until } => {
                return Err(CircuitOpen { retry_after: until.saturating_duration_since(now) });
            }
            Phase::HalfOpen { free: 0, .. } => return Err(CircuitOpen { retry_after: Duration::ZERO }),
            Phase::HalfOpen { free, .. } => *free -= 1,
        }
        Ok(Pass { breaker: self.clone(), era: circuit.era, began: now, is_settled: false })
    }

    /// What it does with calls now.
    pub fn state(&self, now: Instant) -> BreakerState {
        let mut circuit = self.circuit();
        circuit.half_open_if_due(&self.shared.rules, now);
        match circuit.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Open { until } => BreakerState::Open { left: until.saturating_duration_since(now) },
            Phase::HalfOpen { free, results, .. } => {
                BreakerState::HalfOpen { free, under_way: self.shared.rules.probes - free - results }
            }
        }
    }

    /// How often it has opened.
    pub fn times_opened(&self) -> u64 {
        self.circuit().opened
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.shared.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The permission to make one call. Dropped without a result, as when the call is abandoned, it says nothing about the
/// callee, and a probe's place becomes free again.
#[derive(Debug)]
#[must_use = "say how the call went, or the breaker learns nothing"]
pub struct Pass {
    breaker: Breaker,
    era: u64,
    began: Instant,
    is_settled: bool,
}

impl Pass {
    /// The call came back as it should; it may still have been slow.
    pub fn succeeded(self, now: Instant) {
        let slow_call = self.breaker.shared.rules.slow_call;
        let is_slow = slow_call.is_some_and(|slow| now.saturating_duration_since(self.began) >= slow);
        self.settle(Call { at: now, verdict: if is_slow { Verdict::Slow } else { Verdict::Good } });
    }

    /// The call failed.
    pub fn failed(self, now: Instant) {
        self.settle(Call { at: now, verdict: Verdict::Failed });
    }

    fn settle(mut self, call: Call) {
        self.is_settled = true;
        let mut circuit = self.breaker.circuit();
        if circuit.era == self.era {
            circuit.learn(&self.breaker.shared.rules, call);
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.is_settled {
            return;
        }
        let mut circuit = self.breaker.circuit();
        if circuit.era == self.era
            && let Phase::HalfOpen { free, .. } = &mut circuit.phase
        {
            *free += 1;
        }
    }
}

impl Circuit {
    fn half_open_if_due(&mut self, rules: &BreakerRules, now: Instant) {
        if let Phase::Open { until } = self.phase
            && until <= now
        {
            self.turn(Phase::HalfOpen { free: rules.probes, results: 0, bad: 0 });
        }
    }

    fn learn(&mut self, rules: &BreakerRules, call: Call) {
        match &mut self.phase {
            Phase::Closed => {
                self.window.push(call);
                if rules.condemns(self.window.tally(call.at)) {
                    self.open(rules, call.at);
                }
            }
            Phase::Open { .. } => {}
            Phase::HalfOpen { results, bad, .. } => {
                *results += 1;
                *bad += u32::from(call.verdict != Verdict::Good);
                let (results, bad) = (*results, *bad);
                if bad > 0 && f64::from(bad) >= rules.failure_rate * f64::from(rules.probes) {
                    self.open(rules, call.at);
                } else if results == rules.probes {
                    self.turn(Phase::Closed);
                }
            }
        }
    }

    fn open(&mut self, rules: &BreakerRules, now: Instant) {
        let jitter = self.random.up_to(rules.open_for.mul_f64(rules.jitter));
        self.opened += 1;
        self.turn(Phase::Open { until: now + rules.open_for + jitter });
    }

    fn turn(&mut self, phase: Phase) {
        self.phase = phase;
        self.era += 1;
        self.window.clear();
    }
}
