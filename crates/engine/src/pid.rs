//! How many prompt tokens a step may have beside the tokens of running streams, so that each stream gets its next
//! token in time.
//!
//! A PID controller in velocity form: what it puts out is its own integral, so a bound on the output is all that
//! anti-windup takes. It works on logarithms, because a step that is twice too long needs half the tokens whatever the
//! model and the machine. Nothing here looks at a clock, a queue or a model.

use std::time::Duration;

/// What it aims at, and how it gets there.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PidSettings {
    /// The time between two tokens of a stream that steps should take. `None` is throughput mode: steps are as large as
    /// they may be.
    pub target: Option<Duration>,
    /// How strongly it answers.
    pub gains: Gains,
}

/// Shares of the error, in logarithms of the target over the measured time, that a step adds to the output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gains {
    /// Of its change.
    pub proportional: f64,
    /// Of itself.
    pub integral: f64,
    /// Of the change of its change.
    pub derivative: f64,
}

impl Default for Gains {
    /// Three quarters of an error are gone after two steps, and the noise of single steps is halved.
    fn default() -> Self {
        Self { proportional: 0.1, integral: 0.5, derivative: 0.0 }
    }
}

/// Where it begins: a guess that no machine needs long for.
const FIRST: f64 = 64.0;
/// Fewer tokens make no step noticeably shorter, and none at all would let streams keep prompts out for ever.
const LEAST: f64 = 8.0;
/// An error counts as at most that much, so that one stalled step does not undo what was learned.
const MOST_ERROR: f64 = 1.0;

/// The controller.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pid {
    gains: Gains,
    target: Duration,
    /// The most tokens.
    most: f64,
    /// Logarithm of the tokens.
    output: f64,
    /// The last error and the one before.
    errors: [f64; 2],
    /// Target less measured time of the last step that said something, in seconds.
    missed_by: f64,
}

impl Pid {
    /// A controller that gives at most so many tokens.
    pub(crate) fn new(target: Duration, gains: Gains, most: usize) -> Self {
        let most = (most as f64).max(1.0);
        Self { gains, target, most, output: FIRST.min(most).ln(), errors: [0.0; 2], missed_by: 0.0 }
    }

    /// Aims at something else from what it has learned.
    pub(crate) fn retarget(&mut self, target: Duration) {
        // A step that took the old target's time would have taken the new one's with that share of its tokens.
        self.set(self.output + (target.as_secs_f64() / self.target.as_secs_f64()).ln());
        self.target = target;
        self.errors = [0.0; 2];
    }

    /// The time that a step should take.
    pub(crate) fn target(&self) -> Duration {
        self.target
    }

    /// Target less measured time of the last step that it learned from, in seconds.
    pub(crate) fn error(&self) -> f64 {
        self.missed_by
    }

    /// The most prompt tokens of the next step.
    pub(crate) fn tokens(&self) -> usize {
        self.output.exp().round() as usize
    }

    /// Learns from a step with so many prompt tokens that took so long.
    pub(crate) fn observe(&mut self, prompt_tokens: usize, took: Duration) {
        if prompt_tokens == 0 || took.is_zero() {
            return;
        }
        let error = (self.target.as_secs_f64() / took.as_secs_f64()).ln().clamp(-MOST_ERROR, MOST_ERROR);
        if prompt_tokens < self.tokens() {
            // That a step with fewer tokens was fast says nothing about one with more.
            if error >= 0.0 {
                return;
            }
            self.set((prompt_tokens as f64).ln());
        }
        let [last, before] = self.errors;
        let Gains { proportional, integral, derivative } = self.gains;
        let change =
            proportional * (error - last) + integral * error + derivative * (error - 2.0 * last + before);
        self.set(self.output + change);
        self.errors = [error, last];
        self.missed_by = self.target.as_secs_f64() - took.as_secs_f64();
    }

    fn set(&mut self, output: f64) {
        self.output = output.clamp(LEAST.min(self.most).ln(), self.most.ln());
    }
}

#[cfg(test)]
mod tests;
