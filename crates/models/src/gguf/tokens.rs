//! The tokens of a file: their texts, what they are for, and those with a meaning of their own.

use tensor::gguf::{Gguf, Value};

use super::{list, missing, texts, token_id, wrong};
use crate::ModelError;

pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
const KINDS: &str = "tokenizer.ggml.token_type";
const FIRST: &str = "tokenizer.ggml.bos_token_id";

/// Keys of tokens that end a text.
const ENDS: [&str; 3] =
    ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

/// Control tokens that end a text under any key. Files name one end, where the model's makers may have named several
/// (Qwen: the end of a turn and the end of a text); llama.cpp goes by these texts too.
const END_TEXTS: [&str; 5] = ["<|endoftext|>", "<|im_end|>", "<|end|>", "<|eot_id|>", "<|end_of_text|>"];

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Part of the vocabulary that text is made of.
    Plain,
    /// Has a meaning, and stands for itself in text.
    Control,
    /// Stands for itself in text.
    Added,
    /// Fills a row of the embedding.
    Unused,
}

/// Texts of all tokens with their uses, by id.
pub(crate) fn all(file: &Gguf) -> Result<Vec<(&str, Use)>, ModelError> {
    let tokens = texts(file, TOKENS)?.ok_or_else(|| missing(file, TOKENS, "a list of texts"))?;
    let Some(kinds) = list(file, KINDS)? else {
        return Ok(tokens.into_iter().map(|token| (token, Use::Plain)).collect());
    };
    let expected = format!("a list of {} kinds from 1 to 6, one per token", tokens.len());
    let refused = || wrong(file, KINDS, &expected, &Value::List(kinds.clone()));
    let uses = kinds.numbers().filter(|kinds| kinds.len() == tokens.len()).ok_or_else(refused)?;
    let uses: Option<Vec<Use>> = uses.iter().map(use_of).collect();
    Ok(tokens.into_iter().zip(uses.ok_or_else(refused)?).collect())
}

/// The use that files number so.
fn use_of(kind: &Value) -> Option<Use> {
    Some(match kind {
        Value::Signed(1 | 2 | 6) | Value::Unsigned(1 | 2 | 6) => Use::Plain,
        Value::Signed(3) | Value::Unsigned(3) => Use::Control,
        Value::Signed(4) | Value::Unsigned(4) => Use::Added,
        Value::Signed(5) | Value::Unsigned(5) => Use::Unused,
        _ => return None,
    })
}

/// The number of tokens, unused ones included.
pub(super) fn count(file: &Gguf) -> Result<usize, ModelError> {
    Ok(list(file, TOKENS)?.ok_or_else(|| missing(file, TOKENS, "a list of texts"))?.len())
}

/// The tokens that end a text, the one that the file calls so first.
pub(super) fn ends(file: &Gguf) -> Result<Vec<u32>, ModelError> {
    let tokens = all(file)?;
    let mut ends = Vec::new();
    for key in ENDS {
        ends.extend(token_id(file, key, tokens.len())?);
    }
    let known =
        (0u32..).zip(&tokens).filter(|(_, (text, used))| *used == Use::Control && END_TEXTS.contains(text));
    ends.extend(known.map(|(id, _)| id));
    let mut seen = Vec::new();
    ends.retain(|id| {
        !seen.contains(id) && {
            seen.push(*id);
            true
        }
    });
    Ok(ends)
}

/// The token that begins a text.
pub(super) fn first(file: &Gguf) -> Result<Option<u32>, ModelError> {
    token_id(file, FIRST, count(file)?)
}
