//! Where a file keeps its chat templates, and the special tokens that they name.

use serde_json::{Map, Value as Json};
use tensor::gguf::Gguf;

use super::tokens::TOKENS;
use super::{missing, text, texts, token_id};
use crate::ModelError;

const ONLY: &str = "tokenizer.chat_template";
const NAMES: &str = "tokenizer.chat_templates";

/// Special tokens: as templates name them, and the keys of their ids.
const SPECIAL: [(&str, &str); 6] = [
    ("bos_token", "tokenizer.ggml.bos_token_id"),
    ("eos_token", "tokenizer.ggml.eos_token_id"),
    ("unk_token", "tokenizer.ggml.unknown_token_id"),
    ("sep_token", "tokenizer.ggml.seperator_token_id"),
    ("pad_token", "tokenizer.ggml.padding_token_id"),
    ("mask_token", "tokenizer.ggml.mask_token_id"),
];

/// Name and text of each template; the one without a name is called `default`. None where the file has none.
pub(crate) fn templates(file: &Gguf, default: &str) -> Result<Option<Vec<(String, String)>>, ModelError> {
    let Some(only) = text(file, ONLY)? else { return Ok(None) };
    let mut templates = vec![(default.to_owned(), only.to_owned())];
    for name in texts(file, NAMES)?.unwrap_or_default() {
        let key = format!("{ONLY}.{name}");
        let named =
            text(file, &key)?.ok_or_else(|| missing(file, &key, "the template that the file lists"))?;
        templates.push((name.to_owned(), named.to_owned()));
    }
    Ok(Some(templates))
}

/// Texts of the special tokens by the names that templates use.
pub(crate) fn special_tokens(file: &Gguf) -> Result<Map<String, Json>, ModelError> {
    let tokens = texts(file, TOKENS)?.unwrap_or_default();
    let mut named = Map::new();
    for (name, key) in SPECIAL {
        if let Some(id) = token_id(file, key, tokens.len())? {
            named.insert(name.to_owned(), tokens[id as usize].into());
        }
    }
    Ok(named)
}
