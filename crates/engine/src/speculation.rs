//! Speculative decoding by prompt lookup: what the text goes on like is looked up in the text itself, and where trying
//! it pays, the model computes the tokens found together with the last known one.
//!
//! The idea is Saxena's (Prompt Lookup Decoding, 2023), the shape that of speculative decoding by Leviathan et al. (2023) with a
//! drafter that is certain. Every row of a step is computed from its own text alone, so a tried token that turns out
//! to be the sampled one leaves the keys, values and logits that it would have got later, bit for bit. What was tried
//! in vain is overwritten. Outputs therefore never depend on what is tried; only their time does.
//!
//! Whether it pays is measured: [`StepTime`] knows what one more row costs, [`Foresight`] how often what was found
//! comes true. It learns that also while nothing is tried, from what is sampled anyway.

#[cfg(test)]
mod tests;

use crate::plan::Work;
use crate::run_loop::RunLoop;
use crate::step_time::StepTime;

/// A text must repeat so many tokens for its going on to be foreseen. With fewer, almost any text repeats itself.
const LEAST_MATCH: usize = 3;
/// Longer repetitions are not told apart.
const MOST_MATCH: usize = 8;
/// The most tokens of one sequence that a step tries.
const MOST_DRAFTS: usize = 15;

/// What `tokens` went on with where they were last as they end now. The place with the longest repetition counts, of
/// equally long ones the latest. Where that leads to the end of the text, the text is taken to go in a circle.
pub(crate) fn look_up(tokens: &[u32]) -> impl Iterator<Item = u32> {
    let (&last, before) = tokens.split_last().unwrap_or((&0, &[]));
    let mut best = (LEAST_MATCH - 1, before.len());
    for (end, _) in before.iter().enumerate().rev().filter(|(_, token)| **token == last) {
        let pairs = before[..end].iter().rev().zip(before.iter().rev());
        let length = 1 + pairs.take(MOST_MATCH - 1).take_while(|(one, other)| one == other).count();
        if length > best.0 {
            best = (length, end);
        }
        if length == MOST_MATCH {
            break;
        }
    }
    tokens[(best.1 + 1).min(tokens.len())..].iter().copied().cycle()
}

/// What a sequence is expected to go on with, and how far that can be relied on.
#[derive(Clone, Debug)]
pub(crate) struct Foresight {
    expected: Vec<u32>,
    met: usize,
    trust: f64,
}

impl Default for Foresight {
    fn default() -> Self {
        Self { expected: Vec::new(), met: 0, trust: 0.5 }
    }
}

impl Foresight {
    /// How much one token changes the trust.
    const PACE: f64 = 0.1;

    /// Looks up what `tokens` go on with.
    pub(crate) fn look(&mut self, tokens: &[u32], most: usize) {
        self.expected.clear();
        self.met = 0;
        self.expected.extend(look_up(tokens).take(most.min(MOST_DRAFTS)));
    }

    /// Expects no more than so many tokens.
    pub(crate) fn limit(&mut self, tokens: usize) {
        self.expected.truncate(tokens);
    }

    /// The tokens that are expected.
    pub(crate) fn expected(&self) -> &[u32] {
        &self.expected
    }

    /// How many of these have come true.
    pub(crate) fn met(&self) -> usize {
        self.met
    }

    /// Compares a sampled token with the expected one, and returns whether they are the same.
    pub(crate) fn meet(&mut self, token: u32) -> bool {
        let Some(expected) = self.expected.get(self.met) else { return false };
        let hit = *expected == token;
        self.trust += (f64::from(u8::from(hit)) - self.trust) * Self::PACE;
        self.met = if hit { self.met + 1 } else { usize::MAX };
        hit
    }
}

/// A step in the making: the tokens that it will bring, and how long it will take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prospect {
    tokens: f64,
    seconds: f64,
    row: f64,
}

impl Prospect {
    /// A step that takes `seconds` and samples so many tokens, where one more row costs what it does in steps in which
    /// every row is sampled: one of a prompt costs less.
    pub(crate) fn new(seconds: f64, sampled: &StepTime, tokens: usize) -> Self {
        Self { tokens: tokens as f64, seconds, row: sampled.row() }
    }

    /// How many expected tokens the step tries of a sequence: as long as one more row brings more tokens for its time
    /// than the step does without it.
    pub(crate) fn drafts(&mut self, foresight: &Foresight, most: usize) -> usize {
        let mut chance = 1.0;
        for tried in 0..most.min(foresight.expected.len()) {
            chance *= foresight.trust;
            if chance * self.seconds < self.row * self.tokens {
                return tried;
            }
            self.tokens += chance;
            self.seconds += self.row;
        }
        most.min(foresight.expected.len())
    }
}

impl RunLoop {
    /// Adds to the plan what is worth trying. It takes rows and pages that nobody else has use for.
    pub(crate) fn speculate(&mut self) {
        if self.width.drafts == 0 {
            return;
        }
        let (work, running) = (&mut self.plan.work, &mut self.running);
        let samples = |work: &Work| running[work.index].samples_after(work.rows);
        let sampling = work.iter().filter(|work| samples(work)).count();
        let rows: usize = work.iter().map(|work| work.rows).sum();
        let budget = self.width.tokens.saturating_sub(rows);
        let mut left = self.width.drafts.min(budget);
        let seconds = self.step_time.step(rows);
        let mut prospect = Prospect::new(seconds, &self.sampled_time, sampling);
        for work in work.iter_mut().filter(|work| work.rows == 1) {
            let sequence = &mut running[work.index];
            if sequence.foresee(&self.tokenizer) {
                let wanted = prospect.drafts(sequence.foresight(), left);
                work.drafts = sequence.reserve_drafts(wanted, &mut self.pages);
                left -= work.drafts;
            }
        }
    }
}
