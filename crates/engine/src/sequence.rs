//! One running continuation.

use std::sync::Arc;
use std::time::Duration;

use memory::{PageId, PagePool};
use models::tokenizer::{Tokenizer, Utf8Stream};
use protocol::FinishReason;
use tensor::PAGE_TOKENS;

use crate::parameters::Parameters;
use crate::plan::{Head, Rank, Slot};
use crate::sampler::{Ask, History, Place};
use crate::stop_text::{StopText, Verdict};

/// A continuation of a request's prompt: what is known of it, what is computed of it, and where.
///
/// Three numbers are its whole state: `tokens.len()` tokens are known, `computed` of them have keys and values in
/// `pages`, and the first `prompt` of them were given. It samples when everything known is computed.
#[derive(Debug)]
pub(crate) struct Sequence {
    /// Its place among all others; names its request too.
    pub(crate) rank: Rank,
    /// When its last token was sampled.
    pub(crate) last_token_at: Option<Duration>,
    /// Whether it will sample no more.
    pub(crate) ended: bool,
    parameters: Arc<Parameters>,
    tokens: Vec<u32>,
    computed: usize,
    pages: Vec<PageId>,
    history: History,
    decoder: Utf8Stream,
    stop: StopText,
    piece: String,
}

impl Sequence {
    /// A continuation of which nothing is computed.
    pub(crate) fn new(rank: Rank, parameters: Arc<Parameters>) -> Self {
        let history = match parameters.settings.needs_history() {
            true => History::of_prompt(&parameters.prompt),
            false => History::default(),
        };
        Self {
            rank,
            last_token_at: None,
            ended: false,
            tokens: parameters.prompt.clone(),
            computed: 0,
            pages: Vec::new(),
            history,
            decoder: Utf8Stream::default(),
            stop: StopText::new(parameters.stops.clone()),
            piece: String::new(),
            parameters,
        }
    }

    /// What the plan needs to know while it runs.
    pub(crate) fn slot(&self, pool: &PagePool) -> Slot {
        let shareable = match self.parameters.choices {
            1 => &[],
            _ => &self.pages[..self.pages.len().min(self.parameters.prompt.len() / PAGE_TOKENS)],
        };
        let shared = shareable.iter().filter(|&&page| pool.owners(page) > 1).count();
        let pages = self.pages.len();
        let (known, computed) = (self.tokens.len(), self.computed);
        Slot { band: self.rank.band, known, computed, pages, own_pages: pages - shared }
    }

    /// What the plan needs to know while it waits; `sibling` runs for the same request.
    pub(crate) fn head(&self, sibling: Option<&Self>) -> Head {
        let lent_pages = sibling.map_or(0, |sibling| self.common_pages(sibling));
        Head { band: self.rank.band, known: self.tokens.len(), lent_pages }
    }

    /// Shares the full pages of the prompt that a running continuation of the same request has computed.
    pub(crate) fn borrow_pages(&mut self, sibling: &Self, pool: &mut PagePool) {
        for &page in &sibling.pages[..self.common_pages(sibling)] {
            pool.share(page);
            self.pages.push(page);
        }
        self.computed = self.pages.len() * PAGE_TOKENS;
    }

    /// Full pages of the common prompt, but never the last token: it is computed for its logits.
    fn common_pages(&self, sibling: &Self) -> usize {
        let common = self.parameters.prompt.len().min(self.tokens.len() - 1);
        common.min(sibling.computed) / PAGE_TOKENS
    }

    /// The next `rows` tokens to compute.
    pub(crate) fn chunk(&self, rows: usize) -> &[u32] {
        &self.tokens[self.computed..self.computed + rows]
    }

    /// Tokens that are in the pages.
    pub(crate) fn computed(&self) -> usize {
        self.computed
    }

    /// The pages that hold the computed tokens, and room for those last reserved.
    pub(crate) fn pages(&self) -> &[PageId] {
        &self.pages
    }

    /// Takes the pages that `rows` more tokens need.
    ///
    /// # Panics
    /// If the pool has too few: the plan has counted them.
    pub(crate) fn reserve(&mut self, rows: usize, pool: &mut PagePool) {
        while self.pages.len() * PAGE_TOKENS < self.computed + rows {
            self.pages.push(pool.allocate().expect("the plan promises no more pages than are free"));
        }
    }

    /// Notes that `rows` more tokens are computed.
    pub(crate) fn advance(&mut self, rows: usize) {
        self.computed += rows;
    }

    /// Whether everything known is computed after `rows` more tokens, so that the next one can be sampled.
    pub(crate) fn samples_after(&self, rows: usize) -> bool {
        self.computed + rows == self.tokens.len()
    }

    /// How many of the next `rows` tokens belong to the prompt.
    pub(crate) fn prompt_rows(&self, rows: usize) -> usize {
        let prompt = self.parameters.prompt.len();
        prompt.min(self.computed + rows).saturating_sub(self.computed)
    }

    /// Gives all pages back; what was computed will be computed again.
    pub(crate) fn release(&mut self, pool: &mut PagePool) {
        self.computed = 0;
        while let Some(page) = self.pages.pop() {
            pool.release(page);
        }
    }

    /// What its next token is chosen by.
    pub(crate) fn ask(&self) -> Ask<'_> {
        let parameters = &*self.parameters;
        let sampled = self.sampled();
        let suppressed = if sampled < parameters.min_tokens { &parameters.held_off[..] } else { &[] };
        Ask {
            settings: &parameters.settings,
            history: &self.history,
            suppressed,
            place: Place { seed: parameters.seed, choice: self.rank.choice, position: sampled as u64 },
        }
    }

    /// Alternatives to report per token, if log-probabilities were asked for.
    pub(crate) fn logprobs(&self) -> Option<u32> {
        self.parameters.logprobs
    }

    /// Whether it has sampled nothing yet.
    pub(crate) fn is_reading(&self) -> bool {
        self.sampled() == 0
    }

    /// Takes a sampled token, appends the text that it settles to `text`, and says whether it was the last one.
    pub(crate) fn accept(
        &mut self,
        token: u32,
        tokenizer: &Tokenizer,
        text: &mut String,
    ) -> Option<FinishReason> {
        let may_stop = self.sampled() >= self.parameters.min_tokens;
        self.tokens.push(token);
        if self.parameters.settings.needs_history() {
            self.history.push_output(token);
        }
        if self.parameters.ends.contains(&token) {
            self.finish(text);
            return Some(FinishReason::Stop);
        }
        if !tokenizer.is_special(token) {
            self.piece.clear();
            self.decoder.push(tokenizer.bytes(token), &mut self.piece);
            if !may_stop {
                text.push_str(&self.piece);
            } else if self.stop.push(&self.piece, text) == Verdict::Stop {
                return Some(FinishReason::Stop);
            }
        }
        if self.sampled() < self.parameters.max_tokens {
            return None;
        }
        match self.finish(text) {
            Verdict::Stop => Some(FinishReason::Stop),
            Verdict::Continue => Some(FinishReason::Length),
        }
    }

    /// Appends what was held back, unless a stop text appears in it.
    fn finish(&mut self, text: &mut String) -> Verdict {
        self.piece.clear();
        self.decoder.finish(&mut self.piece);
        let verdict = self.stop.push(&self.piece, text);
        self.stop.finish(text);
        verdict
    }

    fn sampled(&self) -> usize {
        self.tokens.len() - self.parameters.prompt.len()
    }
}
