//! One running continuation.

use std::sync::Arc;
use std::time::Duration;

use memory::PageId;
use models::tokenizer::{Tokenizer, Utf8Stream};
use models::vision::Features;
use models::{Batch, Gathering, Pooling};
use protocol::FinishReason;
use tensor::PAGE_TOKENS;

use crate::form::{Guide, Stride, Template};
use crate::parameters::Parameters;
use crate::plan::{Rank, Slot};
use crate::prefix::{PrefixCache, Scope};
use crate::reasoning::Reasoning;
use crate::sampler::{Ask, History, Place};
use crate::speculation::Foresight;
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
    /// Tokens with which it reasoned.
    pub(crate) reasoned: u32,
    /// Whether it will sample no more.
    pub(crate) ended: bool,
    /// How often it had to give its pages back.
    pub(crate) preemptions: u32,
    parameters: Arc<Parameters>,
    tokens: Vec<u32>,
    /// What its tokens are for the prefix cache, where that differs from their ids.
    keys: Option<Vec<u32>>,
    features: Arc<[Arc<Features>]>,
    computed: usize,
    pages: Vec<PageId>,
    history: History,
    decoder: Utf8Stream,
    stop: StopText,
    piece: String,
    /// Where it stands in its form; away while the next tokens are looked for.
    guide: Option<Guide>,
    reasoning: Reasoning,
    foresight: Foresight,
    /// What the hidden states of its tokens come to, where they are wanted and no more tokens.
    gathering: Option<Gathering>,
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
            reasoned: 0,
            ended: false,
            preemptions: 0,
            tokens: parameters.prompt.clone(),
            keys: parameters.view.as_ref().map(|view| view.keys.clone()),
            features: Arc::default(),
            computed: 0,
            pages: Vec::new(),
            history,
            decoder: Utf8Stream::default(),
            stop: StopText::new(parameters.stops.clone()),
            piece: String::new(),
            guide: parameters.form.as_ref().map(Template::guide),
            reasoning: parameters.reasoning,
            foresight: Foresight::default(),
            gathering: parameters.pooling.map(Gathering::new),
            parameters,
        }
    }

    /// What the plan needs to know while it runs, but for the pages that come free with it.
    pub(crate) fn slot(&self) -> Slot {
        Slot {
            band: self.rank.band,
            known: self.tokens.len(),
            computed: self.computed,
            pages: self.pages.len(),
            own_pages: 0,
            sees: self.parameters.view.is_some(),
        }
    }

    /// The same, which has seen its pictures.
    pub(crate) fn seeing(self, features: &Arc<[Arc<Features>]>) -> Self {
        Self { features: Arc::clone(features), ..self }
    }

    /// Tokens that are known.
    pub(crate) fn known(&self) -> usize {
        self.tokens.len()
    }

    /// What its known tokens are for the prefix cache, as far as they need not be computed if it holds them.
    pub(crate) fn wanted_keys(&self) -> &[u32] {
        if self.parameters.may_skip() { self.keys() } else { &[] }
    }

    /// The same, as far as others may share them.
    fn keys(&self) -> &[u32] {
        let keys = self.keys.as_ref().unwrap_or(&self.tokens);
        let shareable = self.parameters.view.as_ref().map_or(usize::MAX, |view| view.shareable);
        &keys[..keys.len().min(shareable)]
    }

    /// With whom it shares pages.
    pub(crate) fn scope(&self) -> &Arc<Scope> {
        &self.parameters.scope
    }

    /// Shares the pages that hold its next tokens already, and returns how many tokens need not be computed for that.
    /// The last token is never among them: it is computed for its logits.
    pub(crate) fn adopt(&mut self, cache: &mut PrefixCache) -> usize {
        let before = self.computed;
        while let Some(page) = self.next_held(cache) {
            let full = self.computed / PAGE_TOKENS;
            cache.share(page);
            // A page that it has begun to fill itself is not needed any more.
            self.pages.drain(full..).for_each(|begun| cache.release(begun));
            self.pages.push(page);
            self.computed = self.pages.len() * PAGE_TOKENS;
        }
        self.computed - before
    }

    fn next_held(&self, cache: &PrefixCache) -> Option<PageId> {
        let full = self.computed / PAGE_TOKENS;
        let end = (full + 1) * PAGE_TOKENS;
        let keys = self.wanted_keys().get(full * PAGE_TOKENS..end).filter(|_| end < self.tokens.len())?;
        cache.find(self.scope(), self.page_before(full), keys)
    }

    fn page_before(&self, index: usize) -> Option<PageId> {
        index.checked_sub(1).map(|before| self.pages[before])
    }

    /// The next `rows` tokens to compute.
    pub(crate) fn chunk(&self, rows: usize) -> &[u32] {
        &self.tokens[self.computed..self.computed + rows]
    }

    /// Appends tokens that follow the computed ones to a batch.
    pub(crate) fn push_to(&self, batch: &mut Batch, tokens: &[u32]) {
        match &self.parameters.view {
            None => batch.push(tokens, self.computed, &self.pages),
            Some(view) => {
                let features = |picture: usize| Arc::clone(&self.features[picture]);
                batch.push_seen((tokens, &view.layout), features, self.computed, &self.pages);
            }
        }
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
    pub(crate) fn reserve(&mut self, rows: usize, cache: &mut PrefixCache) {
        while self.pages.len() * PAGE_TOKENS < self.computed + rows {
            self.pages.push(cache.allocate().expect("the plan promises no more pages than are free"));
        }
    }

    /// Notes that `rows` more tokens are computed, and offers the pages that they fill to others.
    pub(crate) fn advance(&mut self, rows: usize, cache: &mut PrefixCache) {
        let full = self.computed / PAGE_TOKENS;
        self.computed += rows;
        for index in full..self.computed / PAGE_TOKENS {
            let Some(keys) = self.keys().get(index * PAGE_TOKENS..(index + 1) * PAGE_TOKENS) else { break };
            let place = (self.page_before(index), self.pages[index]);
            self.pages[index] = cache.offer(&self.parameters.scope, place, keys);
        }
    }

    /// Whether everything known is computed after `rows` more tokens, so that the next one is sampled.
    pub(crate) fn samples_after(&self, rows: usize) -> bool {
        self.gathering.is_none() && self.is_whole_after(rows)
    }

    fn is_whole_after(&self, rows: usize) -> bool {
        self.computed + rows == self.tokens.len()
    }

    /// Of how many of the next `rows` tokens, the last ones of them, hidden states are needed.
    pub(crate) fn states_of(&self, rows: usize) -> usize {
        match self.gathering.as_ref().map(Gathering::pooling) {
            None => 0,
            Some(Pooling::Last) => usize::from(self.is_whole_after(rows)),
            Some(_) => rows,
        }
    }

    /// Takes the hidden states that were needed of the next `rows` tokens, and returns what all have come to behind the last
    /// of them.
    pub(crate) fn gather(&mut self, states: &[f32], width: usize, rows: usize) -> Option<Vec<f32>> {
        let is_whole = self.is_whole_after(rows);
        let gathering = self.gathering.as_mut()?;
        gathering.add(states, width);
        is_whole.then(|| gathering.vector().collect())
    }

    /// How many of the next `rows` tokens belong to the prompt.
    pub(crate) fn prompt_rows(&self, rows: usize) -> usize {
        let prompt = self.parameters.prompt.len();
        prompt.min(self.computed + rows).saturating_sub(self.computed)
    }

    /// Gives all pages back; what is not held any more when it goes on will be computed again. The last page goes
    /// first: what stands before others is of use to more.
    pub(crate) fn release(&mut self, cache: &mut PrefixCache) {
        self.computed = 0;
        self.gathering.iter_mut().for_each(Gathering::clear);
        while let Some(page) = self.pages.pop() {
            cache.release(page);
        }
    }

    /// Looks up what it may go on with, if that can be tried: a form has to look at every token before the next one,
    /// and so have penalties.
    pub(crate) fn foresee(&mut self, tokenizer: &Tokenizer) -> bool {
        let parameters = &*self.parameters;
        if parameters.form.is_some() || parameters.settings.needs_history() || !self.samples_after(1) {
            return false;
        }
        let more = parameters.max_tokens.saturating_sub(self.sampled() + 1);
        self.foresight.look(&self.tokens, more);
        // A special token does not stand for itself alone.
        let plain =
            self.foresight.expected().iter().take_while(|token| !tokenizer.is_special(**token)).count();
        self.foresight.limit(plain);
        plain > 0
    }

    /// What it is expected to go on with.
    pub(crate) fn foresight(&self) -> &Foresight {
        &self.foresight
    }

    /// Takes the pages that so many tokens behind its last one need, and returns for how many there were pages.
    pub(crate) fn reserve_drafts(&mut self, drafts: usize, cache: &mut PrefixCache) -> usize {
        let room = |pages: usize, known: usize| pages * PAGE_TOKENS - known;
        while room(self.pages.len(), self.tokens.len()) < drafts {
            match cache.allocate() {
                Some(page) => self.pages.push(page),
                None => break,
            }
        }
        drafts.min(room(self.pages.len(), self.tokens.len()))
    }

    /// Gives back the pages that were taken for tokens that did not come true.
    pub(crate) fn put_back(&mut self, cache: &mut PrefixCache) {
        while self.pages.len() > self.computed.div_ceil(PAGE_TOKENS) {
            self.pages.pop().into_iter().for_each(|page| cache.release(page));
        }
    }

    /// What its next token is chosen by, or the one `ahead` of it if what is expected comes true until there.
    pub(crate) fn ask(&self, ahead: usize) -> Ask<'_> {
        let parameters = &*self.parameters;
        let sampled = self.sampled() + ahead;
        let unfinished = parameters.form.is_some() && self.reasoning.is_inside();
        let suppressed =
            if unfinished || sampled < parameters.min_tokens { &parameters.held_off[..] } else { &[] };
        let allowed = self.guide.as_ref().filter(|_| !self.reasoning.is_inside()).and_then(Guide::allowed);
        Ask {
            settings: &parameters.settings,
            history: &self.history,
            suppressed,
            allowed,
            place: Place { seed: parameters.seed, choice: self.rank.choice, position: sampled as u64 },
        }
    }

    /// Its guide, if the form has a say in its next token. The token that opens a reasoning is allowed beside it.
    /// What the model thinks of a token is only known if it is asked.
    pub(crate) fn lend_guide(&mut self) -> Option<(Guide, Stride)> {
        if self.reasoning.is_inside() {
            return None;
        }
        let asks = self.logprobs().is_some() || self.reasoning.opening().is_some();
        let stride = if asks { Stride::Step } else { Stride::Leap };
        self.guide.take().map(|guide| (guide, stride))
    }

    /// The tokens that have to come next, whatever the model says.
    pub(crate) fn forced(&self) -> impl Iterator<Item = u32> {
        self.guide.iter().flat_map(Guide::forced)
    }

    /// Takes its guide back.
    pub(crate) fn return_guide(&mut self, mut guide: Guide) {
        if let Some(opening) = self.reasoning.opening() {
            guide.allow(opening);
        }
        self.guide = Some(guide);
    }

    /// Whether the form that it is kept to cannot be followed.
    pub(crate) fn is_lost(&self) -> bool {
        self.parameters.form.is_some() && self.guide.is_none()
    }

    /// Alternatives to report per token, if log-probabilities were asked for.
    pub(crate) fn logprobs(&self) -> Option<u32> {
        self.parameters.logprobs
    }

    /// Whether it has sampled nothing yet.
    pub(crate) fn is_reading(&self) -> bool {
        self.sampled() == 0
    }

    /// Whether it ends with that token, whatever its text says.
    pub(crate) fn ends_with(&self, token: u32) -> bool {
        self.parameters.ends.contains(&token)
    }

    /// Notes that its last token was expected and has been tried, so that it is computed already; tells whether it was.
    pub(crate) fn confirm(&mut self, drafts: usize, cache: &mut PrefixCache) -> bool {
        let tried = self.foresight.met() < drafts;
        let Some(&last) = self.tokens.last() else { return false };
        if !self.foresight.meet(last) || !tried || self.computed + 1 != self.tokens.len() {
            return false;
        }
        self.advance(1, cache);
        true
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
        self.keys.iter_mut().for_each(|keys| keys.push(token));
        if self.parameters.settings.needs_history() {
            self.history.push_output(token);
        }
        if self.parameters.ends.contains(&token) {
            self.finish(text);
            return Some(FinishReason::Stop);
        }
        let reasons = self.reasoning.accept(token);
        self.reasoned += u32::from(reasons);
        let complete = !reasons && self.guide.as_mut().is_some_and(|guide| guide.accept(token));
        if !tokenizer.is_special(token) {
            self.piece.clear();
            self.decoder.push(tokenizer.bytes(token), &mut self.piece);
            if !may_stop {
                text.push_str(&self.piece);
            } else if self.stop.push(&self.piece, text) == Verdict::Stop {
                return Some(FinishReason::Stop);
            }
        }
        if !complete && self.sampled() < self.parameters.max_tokens {
            return None;
        }
        match self.finish(text) {
            Verdict::Continue if !complete => Some(FinishReason::Length),
            _ => Some(FinishReason::Stop),
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
