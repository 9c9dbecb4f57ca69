//! The model's tokens as the grammar library wants them.

use std::sync::Arc;

use models::tokenizer::Tokenizer;
use toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

/// Every token by its bytes.
struct Vocabulary {
    tokenizer: Tokenizer,
    trie: TokTrie,
}

/// The environment of a model whose logits have `vocabulary` columns and whose texts end with one of `ends`. `None`
/// if there is no such token: then no grammar could ever end.
pub(super) fn environment(tokenizer: &Tokenizer, vocabulary: usize, ends: &[u32]) -> Option<TokEnv> {
    let ends: Vec<u32> = ends.iter().copied().filter(|id| (*id as usize) < vocabulary).collect();
    let info = TokRxInfo::new(u32::try_from(vocabulary).ok()?, *ends.first()?);
    let words: Vec<Vec<u8>> = (0..info.vocab_size).map(|id| word(tokenizer, id)).collect();
    let trie = TokTrie::from(&info, &words).with_eos_tokens(&ends);
    Some(Arc::new(Vocabulary { tokenizer: tokenizer.clone(), trie }))
}

/// A special token has no bytes that a grammar could ask for, only a name.
fn word(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let bytes = tokenizer.bytes(id);
    match tokenizer.is_special(id) {
        true => [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat(),
        false => bytes.to_vec(),
    }
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let encode = |text: &str| {
            self.tokenizer.encode(text).unwrap_or_else(|_| self.trie.greedy_tokenize(text.as_bytes()))
        };
        self.trie.tokenize_with_greedy_fallback(bytes, encode)
    }
}
