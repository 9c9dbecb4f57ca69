//! Masks that are found again.
//!
//! A regular expression is a single lexeme, so what may come next depends on the state of its lexer alone, and the states
//! of a lexer that continuations share come up again and again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use llguidance::TokenParser;
use llguidance::derivre::StateID;
use llguidance::earley::{BiasComputer, ParserRecognizer};
use toktrie::{SimpleVob, TokTrie};

/// Masks of so many bytes are kept for a lexer; the first ones, as every text goes through the beginning.
const KEPT_BYTES: usize = 4 << 20;

/// The library gives a mask up that takes too many items of its parser, and says so after it was computed here. One that
/// took more than so few, which is far from that, is not kept.
const MOST_ITEMS: usize = 1000;

/// Computes masks and keeps them, for the copies of one lexer.
struct Remembering {
    computer: Arc<dyn BiasComputer>,
    masks: Mutex<HashMap<StateID, SimpleVob>>,
    most: usize,
}

/// Lets all copies of a parser that share its lexer share their masks. Its grammar has to be a single lexeme.
pub(super) fn remember(parser: &mut TokenParser) {
    let computer = Arc::clone(&parser.bias_computer);
    let most = KEPT_BYTES / (computer.trie().vocab_size() / 8).max(1);
    parser.bias_computer = Arc::new(Remembering { computer, masks: Mutex::default(), most });
}

impl Remembering {
    fn masks(&self) -> MutexGuard<'_, HashMap<StateID, SimpleVob>> {
        self.masks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BiasComputer for Remembering {
    fn compute_bias(&self, parser: &mut ParserRecognizer<'_>, start: &[u8]) -> SimpleVob {
        let state = parser.lexer_state();
        // Bytes that a token has yet to be found for are not part of the state.
        if !start.is_empty() {
            return self.computer.compute_bias(parser, start);
        }
        if let Some(mask) = self.masks().get(&state) {
            return mask.clone();
        }
        let before = parser.stats_mut().all_items;
        let mask = self.computer.compute_bias(parser, start);
        // A lexer that has failed says so to all who ask for a mask with it: what is kept of it then is given to nobody.
        let is_whole = parser.stats_mut().all_items <= before + MOST_ITEMS;
        let mut masks = self.masks();
        if is_whole && masks.len() < self.most {
            masks.insert(state, mask.clone());
        }
        mask
    }

    fn trie(&self) -> &TokTrie {
        self.computer.trie()
    }
}
