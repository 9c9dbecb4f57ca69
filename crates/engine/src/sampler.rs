//! From a row of logits to a token: penalties, filters and the draw, as pure functions.
//!
//! The order is repetition penalty, frequency and presence penalty, logit bias, temperature, top-k, top-p, min-p,
//! draw; it is the order of Hugging Face transformers where that library has the step. A sampled token depends only on
//! its row, its history, its settings and the three numbers that [`uniform`] takes, never on the rest of the batch.
//!
//! [`Sampler`] strings the parts together and owns the scratch memory; the parts are public so that they can be
//! compared with a reference one by one.

mod border;
mod candidates;
mod filter;
mod logprobs;
mod penalties;
mod random;
#[cfg(test)]
mod tests;

pub use candidates::{Candidates, argmax, draw};
pub use logprobs::Ranking;
pub use penalties::{History, penalise};
pub(crate) use random::mix;
pub use random::uniform;
use tensor::Pool;

/// How the next token is chosen, every value resolved. The default changes nothing and draws from the plain softmax.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Positive logits of tokens in prompt or output are divided by it and negative ones multiplied (1 = off).
    pub repetition_penalty: f32,
    /// Subtracted once per occurrence in the output.
    pub frequency_penalty: f32,
    /// Subtracted once if the token occurs in the output.
    pub presence_penalty: f32,
    /// Added to the logit of a token id.
    pub logit_bias: Vec<(u32, f32)>,
    /// Divides the logits; 0 is greedy.
    pub temperature: f32,
    /// Keep the `k` most probable tokens and all that tie with the last of them (0 = all).
    pub top_k: u32,
    /// Keep a token if the total probability of the more probable ones is below `p` (1 = all).
    pub top_p: f32,
    /// Drop tokens less probable than this share of the most probable one (0 = none).
    pub min_p: f32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
        }
    }
}

impl Settings {
    /// Whether the tokens seen so far matter, so that a [`History`] must be kept.
    pub fn needs_history(&self) -> bool {
        self.repetition_penalty != 1.0 || self.frequency_penalty != 0.0 || self.presence_penalty != 0.0
    }

    fn changes_logits(&self) -> bool {
        self.needs_history() || !self.logit_bias.is_empty()
    }
}

/// Where a token stands: its draw depends on nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Seed of the request.
    pub seed: u64,
    /// Which of the request's continuations.
    pub choice: u32,
    /// How many tokens of the continuation were sampled before this one.
    pub position: u64,
}

/// What a token is chosen by, beside its logits.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// How to choose.
    pub settings: &'a Settings,
    /// Tokens seen so far; empty if the settings do not need them.
    pub history: &'a History,
    /// Tokens that must not be chosen here.
    pub suppressed: &'a [u32],
    /// Tokens that may be chosen here, if not all: bit `id % 32` of word `id / 32` stands for token `id`.
    pub allowed: Option<&'a [u32]>,
    /// Where the token stands.
    pub place: Place,
}

/// Chooses tokens. Holds only scratch memory: two samplers give the same answers.
#[derive(Debug, Default)]
pub struct Sampler {
    row: Vec<f32>,
    candidates: Candidates,
}

impl Sampler {
    /// The next token, or `None` if no logit is a number above minus infinity.
    pub fn sample(&mut self, logits: &[f32], ask: &Ask<'_>) -> Option<u32> {
        let settings = ask.settings;
        let restricted = !ask.suppressed.is_empty() || ask.allowed.is_some();
        let logits = if settings.changes_logits() || restricted {
            self.row.clear();
            self.row.extend_from_slice(logits);
            penalise(&mut self.row, settings, ask.history);
            suppress(&mut self.row, ask.suppressed);
            restrict(&mut self.row, ask.allowed);
            &self.row
        } else {
            logits
        };
        if settings.temperature == 0.0 {
            return self.candidates.best(logits);
        }
        let u = uniform(ask.place.seed, ask.place.choice, ask.place.position);
        self.candidates.choose(logits, settings, u)
    }
}

/// The threads on which to choose from so many rows with so many logits in all; none where one does it sooner. Whose
/// sampler a row meets makes no difference to its token.
pub fn threads_for(pool: Option<&Pool>, rows: usize, logits: usize) -> Option<&Pool> {
    /// A row of 152,000 takes 20 µs at least, about as long as another thread takes to wake. Those of tests are short.
    const WORTH_WAKING: usize = if cfg!(test) { 1 << 10 } else { 1 << 18 };
    pool.filter(|_| rows > 1 && logits >= WORTH_WAKING)
}

/// Rules out every token whose bit is not set; tokens beyond the last word have none.
fn restrict(logits: &mut [f32], allowed: Option<&[u32]>) {
    let Some(words) = allowed else { return };
    let words = words.iter().copied().chain(std::iter::repeat(0));
    for (block, word) in logits.chunks_mut(32).zip(words) {
        match word {
            0 => block.fill(f32::NEG_INFINITY),
            u32::MAX => {}
            word => {
                let ruled_out = block.iter_mut().enumerate().filter(|(bit, _)| word >> bit & 1 == 0);
                ruled_out.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
            }
        }
    }
}

fn suppress(logits: &mut [f32], ids: &[u32]) {
    for &id in ids {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
}
