//! Choosing the tokens of a step: sequences side by side, on the threads that have just run the model.

use models::tokenizer::Tokenizer;
use protocol::TokenLogprob;
use tensor::{PerThread, Pool};

use crate::sampler::{Ranking, Sampler, threads_for};
use crate::sequence::Sequence;

/// A token chosen in a step.
pub(crate) struct Sampled {
    /// Of which running sequence.
    pub(crate) index: usize,
    /// How many tokens behind the known ones were tried with it.
    pub(crate) drafts: usize,
    /// Its id.
    pub(crate) token: u32,
    /// Its log-probability, if that was asked for.
    pub(crate) logprob: Option<TokenLogprob>,
}

/// A sequence that gets a token, or one more for each draft that it meets.
pub(crate) struct Draw<'a> {
    /// Which of the running sequences.
    pub(crate) index: usize,
    pub(crate) sequence: &'a Sequence,
    /// How many tokens were tried.
    pub(crate) drafts: usize,
    /// Logits: a row, and one for each draft.
    pub(crate) rows: &'a [f32],
}

/// What tokens are chosen with.
#[derive(Default)]
pub(crate) struct Choosers(PerThread<Chooser>);

impl Choosers {
    /// Appends the tokens of all draws to `sampled`, whose order is that of their indices in the end.
    ///
    /// # Errors
    /// A row has no number above minus infinity.
    pub(crate) fn choose(
        &mut self,
        draws: &[Draw<'_>],
        tokenizer: &Tokenizer,
        pool: Option<&Pool>,
        sampled: &mut Vec<Sampled>,
    ) -> Result<(), &'static str> {
        // A step before this one may have ended in a panic.
        self.0.iter_mut().for_each(Chooser::begin);
        let logits = draws.iter().map(|draw| draw.rows.len()).sum();
        let pool = threads_for(pool, draws.len(), logits);
        self.0.for_each(draws, pool, |chooser, draw| chooser.choose(draw, tokenizer));
        for chooser in self.0.iter_mut() {
            if chooser.has_failed {
                return Err("the model's logits leave no token to choose from");
            }
            sampled.append(&mut chooser.sampled);
        }
        sampled.sort_by_key(|sampled| sampled.index);
        Ok(())
    }
}

/// What one thread chooses tokens with, and those that it has chosen.
#[derive(Default)]
struct Chooser {
    sampler: Sampler,
    ranking: Ranking,
    sampled: Vec<Sampled>,
    has_failed: bool,
}

impl Chooser {
    fn begin(&mut self) {
        self.sampled.clear();
        self.has_failed = false;
    }

    fn choose(&mut self, draw: &Draw<'_>, tokenizer: &Tokenizer) {
        let &Draw { index, sequence, drafts, rows } = draw;
        let tried = &sequence.foresight().expected()[..drafts];
        for (ahead, row) in rows.chunks_exact(rows.len() / (1 + drafts)).enumerate() {
            let Some(token) = self.sampler.sample(row, &sequence.ask(ahead)) else {
                self.has_failed = true;
                return;
            };
            let logprob = sequence.logprobs().map(|k| logprob(&mut self.ranking, row, (token, k), tokenizer));
            self.sampled.push(Sampled { index, drafts, token, logprob });
            if tried.get(ahead) != Some(&token) || sequence.ends_with(token) {
                break;
            }
        }
    }
}

/// What the model thought of a token and of the `k` most probable ones.
fn logprob(
    ranking: &mut Ranking,
    row: &[f32],
    (token, k): (u32, u32),
    tokenizer: &Tokenizer,
) -> TokenLogprob {
    let (logprob, best) = ranking.read(row, token, k);
    let entry = |id, logprob, top| TokenLogprob { id, bytes: tokenizer.bytes(id).to_vec(), logprob, top };
    entry(token, logprob, best.iter().map(|&(id, logprob)| entry(id, logprob, Vec::new())).collect())
}
