//! When a breaker opens, for how long, and what closes it again.

use std::time::Duration;

use super::window::Tally;

/// When a breaker opens, for how long, and what closes it again. The setters take what they are given literally; what
/// makes no sense is moved to the nearest that does (a rate into 0 to 1, a count of zero to one).
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerRules {
    pub(super) window: Duration,
    pub(super) calls: usize,
    pub(super) at_least: usize,
    pub(super) failure_rate: f64,
    pub(super) slow_call: Option<Duration>,
    pub(super) slow_rate: f64,
    pub(super) open_for: Duration,
    pub(super) jitter: f64,
    pub(super) probes: u32,
}

impl Default for BreakerRules {
    /// Opens when half of the calls of the last ten seconds failed, of which at least 10 and at most 100 count; for
    /// 5 s and up to a fifth of it more; five probes close it. No call counts as slow.
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
            calls: 100,
            at_least: 10,
            failure_rate: 0.5,
            slow_call: None,
            slow_rate: 1.0,
            open_for: Duration::from_secs(5),
            jitter: 0.2,
            probes: 5,
        }
    }
}

impl BreakerRules {
    /// Looks at the calls of the last `window`, but at most at the last `calls` of them.
    pub fn window(mut self, window: Duration, calls: usize) -> Self {
        self.window = window;
        self.calls = calls.max(1);
        self
    }

    /// Judges nothing before so many calls are in the window.
    pub fn at_least(mut self, calls: usize) -> Self {
        self.at_least = calls.max(1);
        self
    }

    /// Opens when this share of the calls failed. Half open, the same share of the probes opens it again.
    pub fn failure_rate(mut self, share: f64) -> Self {
        self.failure_rate = share.clamp(0.0, 1.0);
        self
    }

    /// Opens when this share of the calls took `slow_call` or longer. A slow probe counts as a failed one.
    pub fn slow_call(mut self, slow_call: Duration, share: f64) -> Self {
        self.slow_call = Some(slow_call);
        self.slow_rate = share.clamp(0.0, 1.0);
        self
    }

    /// Stays open for that long and a random part of `jitter` times as long besides, so that those who were turned
    /// away together do not all probe together.
    pub fn open_for(mut self, open_for: Duration, jitter: f64) -> Self {
        self.open_for = open_for;
        self.jitter = jitter.clamp(0.0, 1.0);
        self
    }

    /// Lets exactly so many calls through when half open.
    pub fn half_open(mut self, probes: u32) -> Self {
        self.probes = probes.max(1);
        self
    }

    /// Whether calls that went like that are too bad to go on. A window smaller than `at_least` is judged when full.
    pub(super) fn condemns(&self, tally: Tally) -> bool {
        if tally.calls < self.at_least.min(self.calls) {
            return false;
        }
        let share = |part: usize| part as f64 / tally.calls as f64;
        (tally.failed > 0 && share(tally.failed) >= self.failure_rate)
            || (tally.slow > 0 && share(tally.slow) >= self.slow_rate)
    }
}
