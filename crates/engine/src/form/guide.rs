//! A compiled form, and one continuation's way through it.
//!
//! What a lexer has learnt about one text is of use to the next, and learning it is most of what a mask costs. So the
//! continuations of a form share a lexer, as long as it is small and sound. One whose lexer fails begins again with one of
//! its own, where it fails only by its own doing: what others have been through shows in nothing but time.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use llguidance::{Matcher, TokenParser};
use toktrie::SimpleVob;

use super::remembered::remember;

/// A lexer that has learnt so many bytes is not shared with continuations that begin.
const SHARED_BYTES: usize = 4 << 20;

/// A compiled form that no continuation has begun. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Template {
    compiled: Arc<Mutex<Compiled>>,
}

/// What a grammar is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Makeup {
    /// One lexeme: what may come next depends on the state of the lexer alone.
    Lexeme,
    /// Rules over lexemes.
    Rules,
}

/// Two copies of the form at its beginning.
struct Compiled {
    /// Its lexer knows nothing but the form.
    fresh: TokenParser,
    /// Its lexer is that of the continuations.
    shared: TokenParser,
    makeup: Makeup,
}

impl Compiled {
    fn new(fresh: TokenParser, makeup: Makeup) -> Self {
        let mut shared = fresh.deep_clone();
        if makeup == Makeup::Lexeme {
            remember(&mut shared);
        }
        Self { fresh, shared, makeup }
    }

    fn is_worn(&self) -> bool {
        // Asking panics if a continuation has panicked with the lexer in its hands.
        let stats = catch_unwind(AssertUnwindSafe(|| self.shared.parser.lexer_stats()));
        stats.map_or(true, |stats| stats.error || stats.num_bytes > SHARED_BYTES)
    }
}

impl Template {
    /// Of a parser that has not begun.
    pub(super) fn new(fresh: TokenParser, makeup: Makeup) -> Self {
        Self { compiled: Arc::new(Mutex::new(Compiled::new(fresh, makeup))) }
    }

    /// The beginning of a continuation.
    pub(crate) fn guide(&self) -> Guide {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if compiled.is_worn() {
            *compiled = Compiled::new(compiled.fresh.deep_clone(), compiled.makeup);
        }
        let matcher = Matcher::new(Ok(compiled.shared.clone()));
        Guide {
            template: self.clone(),
            matcher,
            is_alone: false,
            accepted: Vec::new(),
            forced: VecDeque::new(),
            mask: None,
        }
    }

    /// The same, which shares nothing.
    fn alone(&self) -> Matcher {
        let compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        Matcher::new(Ok(compiled.fresh.deep_clone()))
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template").finish_non_exhaustive()
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.compiled, &other.compiled)
    }
}

/// How a guide looks where it can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stride {
    /// One token ahead: the model is asked about each.
    Step,
    /// As many tokens ahead as there is only one way to go.
    Leap,
}

/// Where a continuation stands in its form.
pub(crate) struct Guide {
    template: Template,
    matcher: Matcher,
    /// Whether its lexer is its own.
    is_alone: bool,
    /// The tokens so far.
    accepted: Vec<u32>,
    /// The tokens that have to come next, if there are such; the matcher has been through them.
    forced: VecDeque<u32>,
    /// What may come next, once it is computed.
    mask: Option<SimpleVob>,
}

impl Guide {
    /// Finds out which tokens may come next, or have to.
    ///
    /// # Errors
    /// When the form is too involved at this place; the message is for the client.
    pub(super) fn look(&mut self, stride: Stride) -> Result<(), String> {
        match self.find(stride) {
            Err(_) if !self.is_alone => self.begin_again(stride),
            found => found,
        }
    }

    fn find(&mut self, stride: Stride) -> Result<(), String> {
        if self.mask.is_some() || !self.forced.is_empty() {
            return Ok(());
        }
        if stride == Stride::Leap {
            let forced = self.matcher.compute_ff_tokens();
            if !forced.is_empty() {
                self.matcher.consume_tokens(&forced).map_err(|error| plain(&error))?;
                self.forced.extend(forced);
            }
        }
        if self.forced.is_empty() {
            self.mask = Some(self.matcher.compute_mask_or_eos().map_err(|error| plain(&error))?);
        }
        Ok(())
    }

    /// Goes the same way once more with a lexer of its own. It looks at every place, so that whether the lexer suffices does
    /// not depend on when it was not shared any more.
    fn begin_again(&mut self, stride: Stride) -> Result<(), String> {
        (self.matcher, self.is_alone, self.mask) = (self.template.alone(), true, None);
        for token in std::mem::take(&mut self.accepted) {
            self.find(stride)?;
            self.accept(token);
        }
        self.find(stride)
    }

    /// Bit `id % 32` of word `id / 32` says whether token `id` may come next; there once it was looked for, and nothing is
    /// forced.
    pub(crate) fn allowed(&self) -> Option<&[u32]> {
        self.mask.as_ref().map(SimpleVob::as_slice)
    }

    /// The tokens that have to come next, if it was looked for and there are such.
    pub(crate) fn forced(&self) -> impl ExactSizeIterator<Item = u32> {
        self.forced.iter().copied()
    }

    /// Allows one more token next.
    pub(crate) fn allow(&mut self, token: u32) {
        if let Some(mask) = &mut self.mask {
            mask.allow_token(token);
        }
    }

    /// Goes on by one token; whether the text is complete and nothing can follow.
    pub(crate) fn accept(&mut self, token: u32) -> bool {
        self.mask = None;
        self.accepted.push(token);
        // A token that was allowed can be consumed; if it cannot, the next look says so.
        let is_sound = self.forced.pop_front().is_some() || self.matcher.consume_token(token).is_ok();
        is_sound && self.forced.is_empty() && self.matcher.is_stopped()
    }
}

impl fmt::Debug for Guide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guide").finish_non_exhaustive()
    }
}

/// A message without the library's state, which it adds in further lines; but with the reason that a regular expression
/// is wrong, which comes behind a drawing of it.
pub(super) fn plain(error: &impl fmt::Display) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default().trim_end_matches(['.', ':']);
    let reason = text.lines().skip(1).find_map(|line| line.strip_prefix("error: "));
    reason.map_or_else(|| first.to_owned(), |reason| format!("{first}: {reason}"))
}

#[cfg(test)]
pub(in crate::form) mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::time::Duration;

    use futures::executor::block_on;
    use llguidance::earley::{BiasComputer, ParserRecognizer};
    use protocol::Form;
    use serde_json::json;
    use toktrie::TokTrie;

    use super::*;
    use crate::form::Forms;
    use crate::sampler::mix;
    use crate::tests::bench::tokenizer;
    use crate::tests::model::{END, VOCABULARY};

    pub(in crate::form) fn template(form: &Form) -> Template {
        let forms = Forms::new(tokenizer(), VOCABULARY, vec![END], Duration::from_secs(3600));
        block_on(forms.template(form)).unwrap()
    }

    fn forms() -> [Form; 3] {
        let item = json!({"type": "object", "properties": {"name": {"type": "string", "maxLength": 20}},
            "required": ["name"], "additionalProperties": false});
        [
            Form::JsonSchema(json!({"type": "array", "items": item, "minItems": 100})),
            Form::JsonSchema(json!({"type": "array", "minItems": 1000})),
            Form::Regex("([a-z]{1,5}[ ,.]){90,100}".to_owned()),
        ]
    }

    /// What came next in a walk: all that was allowed, or all that had to come.
    type Place = Result<Vec<u32>, Vec<u32>>;

    fn next(guide: &mut Guide, stride: Stride) -> Place {
        guide.look(stride).unwrap();
        let forced: Vec<u32> = guide.forced().collect();
        if forced.is_empty() { Ok(guide.allowed().unwrap().to_vec()) } else { Err(forced) }
    }

    fn one_of(words: &[u32], chance: u64) -> u32 {
        let allowed = (0..VOCABULARY as u32).filter(|id| words[*id as usize / 32] >> (id % 32) & 1 == 1);
        let allowed: Vec<u32> = allowed.filter(|id| *id != END).collect();
        allowed[chance as usize % allowed.len()]
    }

    /// Goes on by at least so many tokens, by chance, and tells all places that it passed.
    fn walk(guide: &mut Guide, seed: u64, steps: u64) -> Vec<Place> {
        (0..steps)
            .map(|step| {
                let place = next(guide, Stride::Leap);
                let tokens = match &place {
                    Ok(words) => vec![one_of(words, mix(seed ^ step << 20))],
                    Err(forced) => forced.clone(),
                };
                tokens.into_iter().for_each(|token| assert!(!guide.accept(token)));
                place
            })
            .collect()
    }

    #[test]
    fn what_others_have_been_through_changes_no_mask() {
        for form in forms() {
            let shared = template(&form);
            for seed in 0..6 {
                let found = walk(&mut shared.guide(), seed, 40);
                assert_eq!(found, walk(&mut template(&form).guide(), seed, 40), "{} {seed}", form.kind());
            }
        }
    }

    #[test]
    fn what_has_to_come_is_what_single_steps_find() {
        let mut leaps = 0;
        for (form, seed) in forms().iter().flat_map(|form| (0..5u64).map(move |seed| (form, seed))) {
            let template = template(form);
            let (mut leaping, mut stepping) = (template.guide(), template.guide());
            for step in 0..60 {
                let tokens = match next(&mut leaping, Stride::Leap) {
                    Ok(words) => {
                        assert_eq!(next(&mut stepping, Stride::Step), Ok(words.clone()));
                        vec![one_of(&words, mix(seed << 32 | step))]
                    }
                    Err(forced) => forced,
                };
                leaps += usize::from(tokens.len() > 1);
                for token in tokens {
                    let words = next(&mut stepping, Stride::Step).unwrap();
                    assert_eq!(words[token as usize / 32] >> (token % 32) & 1, 1, "token {token}");
                    assert_eq!(leaping.accept(token), stepping.accept(token));
                }
            }
        }
        assert!(leaps > 5, "only {leaps} times there was but one way for more than a token");
    }

    #[test]
    fn a_lexer_that_fails_is_left_behind_by_all_who_shared_it_and_not_given_to_others() {
        for form in forms() {
            let shared = template(&form);
            let (mut hurt, mut beside) = (shared.guide(), shared.guide());
            let (before, before_beside) = (walk(&mut hurt, 1, 20), walk(&mut beside, 2, 20));
            hurt.matcher.test_trigger_lexer_error().unwrap_err();
            let (after, after_beside) = (walk(&mut hurt, 3, 20), walk(&mut beside, 4, 20));
            assert!(hurt.is_alone && beside.is_alone);
            let mut whole = template(&form).guide();
            assert_eq!(before, walk(&mut whole, 1, 20));
            assert_eq!(after, walk(&mut whole, 3, 20));
            let mut whole = template(&form).guide();
            assert_eq!(before_beside, walk(&mut whole, 2, 20));
            assert_eq!(after_beside, walk(&mut whole, 4, 20));
            let mut next = shared.guide();
            assert_eq!(walk(&mut next, 1, 20), before);
            assert!(!next.is_alone);
        }
    }

    /// Counts how often a mask is computed.
    struct Counting(Arc<dyn BiasComputer>, AtomicUsize);

    impl BiasComputer for Counting {
        fn compute_bias(&self, parser: &mut ParserRecognizer<'_>, start: &[u8]) -> SimpleVob {
            self.1.fetch_add(1, Relaxed);
            self.0.compute_bias(parser, start)
        }

        fn trie(&self) -> &TokTrie {
            self.0.trie()
        }
    }

    #[test]
    fn the_mask_of_a_place_in_a_regular_expression_is_computed_once() {
        for (form, is_lexeme) in forms().iter().zip([false, false, true]) {
            let template = template(form);
            let counting = {
                let mut compiled = template.compiled.lock().unwrap();
                let mut fresh = compiled.fresh.deep_clone();
                let counting = Arc::new(Counting(Arc::clone(&fresh.bias_computer), AtomicUsize::new(0)));
                fresh.bias_computer = Arc::clone(&counting) as Arc<dyn BiasComputer>;
                *compiled = Compiled::new(fresh, compiled.makeup);
                counting
            };
            let computed = |seed| {
                let before = counting.1.load(Relaxed);
                let places = walk(&mut template.guide(), seed, 30);
                (places, counting.1.load(Relaxed) - before)
            };
            let ((first, fresh), (second, again)) = (computed(1), computed(1));
            assert_eq!(first, second);
            assert!(fresh > 0 && again == if is_lexeme { 0 } else { fresh }, "{}: {again}", form.kind());
        }
    }
}
