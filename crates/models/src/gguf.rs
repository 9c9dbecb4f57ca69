//! GGUF files: one file in place of a folder.
//!
//! Metadata stand for config.json, tokenizer.json, the chat template and generation_config.json, under other names;
//! tensors have other names too, and all matrices are stored `[out, in]`. A family says its names in a [`Dialect`], and
//! everything behind that is what folders use. Names:
//! <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, and `gguf-py/gguf/constants.py` in llama.cpp.

pub(crate) mod chat;
mod settings;
pub(crate) mod tokens;
pub(crate) mod vocabulary;

use serde_json::Value as Json;
use tensor::gguf::{Gguf, List, Value};

use crate::checkpoint::describe;
use crate::{Family, ModelError, families};

pub(crate) use settings::config;

/// The key that names the family of a file.
pub(crate) const ARCHITECTURE: &str = "general.architecture";

/// How a family's checkpoints are written in GGUF files. Names of tensors are without `.weight` and `.bias`.
pub struct Dialect {
    /// Value of `general.architecture`, and first part of the keys of settings.
    pub architecture: &'static str,
    /// Keys of settings: in config.json, and behind the architecture in metadata.
    pub settings: &'static [(&'static str, &'static str)],
    /// Pairs of settings that must be equal where both are there: what the family cannot have different.
    pub equal: &'static [(&'static str, &'static str)],
    /// Names of tensors that the model has once: in folders, and in GGUF files.
    pub once: &'static [(&'static str, &'static str)],
    /// What stands before the number of a layer in the names of folders. In GGUF files it is `blk.`.
    pub layers: &'static str,
    /// Names of tensors behind the number of the layer: in folders, and in GGUF files.
    pub layered: &'static [(&'static str, &'static str)],
}

impl Dialect {
    /// The name in GGUF files of the tensor that folders call `name`; `None` for one that they do not have.
    pub(crate) fn stored_name(&self, name: &str) -> Option<String> {
        let (stem, kind) = name.rsplit_once('.')?;
        let find = |names: &[(&str, &'static str)], stem: &str| {
            names.iter().find(|(folder, _)| *folder == stem).map(|(_, stored)| *stored)
        };
        if let Some(stored) = find(self.once, stem) {
            return Some(format!("{stored}.{kind}"));
        }
        let (layer, stem) = stem.strip_prefix(self.layers)?.split_once('.')?;
        let stored = find(self.layered, stem)?;
        Some(format!("blk.{layer}.{stored}.{kind}"))
    }
}

/// The family that reads the file.
pub(crate) fn family(file: &Gguf) -> Result<(&'static Family, &'static Dialect), ModelError> {
    let found = text(file, ARCHITECTURE)?.unwrap_or_default();
    let read = families::FAMILIES.iter().filter_map(|family| Some((family, family.gguf?)));
    let mut matching = read.clone().filter(|(_, dialect)| dialect.architecture == found);
    matching.next().ok_or_else(|| ModelError::UnknownArchitecture {
        path: file.path().to_owned(),
        key: ARCHITECTURE,
        found: found.chars().take(60).collect(),
        known: read.map(|(_, dialect)| dialect.architecture).collect(),
    })
}

/// The text of a key, if it is there.
pub(crate) fn text<'f>(file: &'f Gguf, key: &str) -> Result<Option<&'f str>, ModelError> {
    match file.metadata().get(key) {
        None => Ok(None),
        Some(Value::Text(text)) => Ok(Some(text)),
        Some(other) => Err(wrong(file, key, "a text", other)),
    }
}

/// The list of a key, if it is there.
pub(crate) fn list<'f>(file: &'f Gguf, key: &str) -> Result<Option<&'f List>, ModelError> {
    match file.metadata().get(key) {
        None => Ok(None),
        Some(Value::List(list)) => Ok(Some(list)),
        Some(other) => Err(wrong(file, key, "a list", other)),
    }
}

/// The texts of a list, if it is there.
pub(crate) fn texts<'f>(file: &'f Gguf, key: &str) -> Result<Option<Vec<&'f str>>, ModelError> {
    let texts = |list: &'f List| {
        let found = Value::List(list.clone());
        list.texts().ok_or_else(|| wrong(file, key, "a list of texts", &found))
    };
    list(file, key)?.map(texts).transpose()
}

/// The token id of a key, if it is there; `count` is the number of tokens.
pub(crate) fn token_id(file: &Gguf, key: &str, count: usize) -> Result<Option<u32>, ModelError> {
    let Some(value) = file.metadata().get(key) else { return Ok(None) };
    let id = match value {
        Value::Unsigned(id) => u32::try_from(*id).ok(),
        Value::Signed(id) => u32::try_from(*id).ok(),
        _ => None,
    };
    match id.filter(|id| (*id as usize) < count) {
        Some(id) => Ok(Some(id)),
        None => Err(wrong(file, key, &format!("a token id below {count}, the number of tokens"), value)),
    }
}

/// The error for a value that is not as expected.
pub(crate) fn wrong(file: &Gguf, key: &str, expected: &str, found: &Value) -> ModelError {
    ModelError::Field {
        path: file.path().to_owned(),
        key: key.to_owned(),
        expected: expected.to_owned(),
        found: match found {
            Value::List(list) => format!("a list of {}", list.len()),
            other => describe(&settings::json(other)),
        },
    }
}

/// The error for a key that is not there.
pub(crate) fn missing(file: &Gguf, key: &str, expected: &str) -> ModelError {
    ModelError::Field {
        path: file.path().to_owned(),
        key: key.to_owned(),
        expected: expected.to_owned(),
        found: describe(&Json::Null),
    }
}
