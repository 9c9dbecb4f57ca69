//! Text to token ids and back, whole or incrementally.

mod alphabet;
mod sentence;
mod stream;

#[cfg(test)]
mod tests;

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use tokenizers::{ModelWrapper, Tokenizer as Inner};

use crate::{ModelError, Repository, gguf};

pub use sentence::{Sentence, SentenceTokenizer};
pub use stream::Utf8Stream;

const FILE: &str = "tokenizer.json";

/// The largest id that is believed; a table has an entry for every id up to the largest.
const LARGEST_ID: u32 = 1 << 22;

/// What decoding does with tokens flagged special.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialTokens {
    /// Their text appears.
    Keep,
    /// They vanish.
    Skip,
}

/// A byte-level BPE tokenizer (tokenizer.json or GGUF). Cheap to clone, usable from many threads at once.
#[derive(Clone)]
pub struct Tokenizer {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Arc<Inner>,
    path: PathBuf,
    /// Bytes of all tokens, end to end.
    bytes: Vec<u8>,
    /// Where the bytes of each id start, and after the last id the end.
    starts: Vec<u32>,
    /// Ascending.
    special: Vec<u32>,
    count: usize,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, or the tokenizer of a GGUF file. Truncation, padding and merge dropout that the file may
    /// ask for are turned off.
    ///
    /// # Errors
    /// When the file is missing, broken, or not a byte-level BPE tokenizer.
    pub fn read(repository: &Repository) -> Result<Self, ModelError> {
        if let Some(file) = repository.gguf() {
            return Self::finish(file.path(), gguf::vocabulary::tokenizer(file)?);
        }
        Self::parse(&repository.path(FILE), &repository.read(FILE)?)
    }

    /// Parses the content of a tokenizer.json; `path` stands for it in messages.
    ///
    /// # Errors
    /// As `read`.
    pub fn parse(path: &Path, json: &[u8]) -> Result<Self, ModelError> {
        let wrong = |reason: String| ModelError::Tokenizer { path: path.to_owned(), reason };
        let outline = serde_json::from_slice::<Outline>(json);
        let outline = outline.map_err(|source| ModelError::Json { path: path.to_owned(), source })?;
        outline.require_byte_level().map_err(&wrong)?;
        let mut inner = library(json).map_err(&wrong)?;
        settle(&mut inner).map_err(&wrong)?;
        Self::finish(path, inner)
    }

    /// Lays out the bytes of all tokens.
    fn finish(path: &Path, inner: Inner) -> Result<Self, ModelError> {
        let largest = inner.get_vocab(true).into_values().max();
        if let Some(id) = largest.filter(|id| *id > LARGEST_ID) {
            let reason = format!("expected ids up to {LARGEST_ID}, found {id}");
            return Err(ModelError::Tokenizer { path: path.to_owned(), reason });
        }
        let (mut bytes, mut starts) = (Vec::new(), vec![0]);
        for id in 0..largest.map_or(0, |id| id + 1) {
            if let Some(token) = inner.id_to_token(id) {
                alphabet::append_bytes(&token, &mut bytes);
            }
            starts.push(bytes.len() as u32);
        }
        let added = inner.get_added_tokens_decoder();
        let mut special: Vec<u32> =
            added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id).collect();
        special.sort_unstable();
        let count = inner.get_vocab_size(true);
        let (inner, path) = (Arc::new(inner), path.to_owned());
        Ok(Self { shared: Arc::new(Shared { inner, path, bytes, starts, special, count }) })
    }

    /// Token ids of `text`, nothing added around it; special tokens written in the text are parsed as such.
    ///
    /// # Errors
    /// When the tokenizer fails on the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let encoding = self.shared.inner.encode_fast(text, false);
        let encoding = encoding.map_err(|error| ModelError::Encode { reason: error.to_string() })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of `ids`; incomplete UTF-8 becomes U+FFFD.
    pub fn decode(&self, ids: &[u32], special: SpecialTokens) -> String {
        let shown = ids.iter().filter(|id| special == SpecialTokens::Keep || !self.is_special(**id));
        let bytes: Vec<u8> = shown.flat_map(|id| self.bytes(*id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The bytes that a token stands for; empty for an id outside the vocabulary.
    pub fn bytes(&self, id: u32) -> &[u8] {
        let Shared { bytes, starts, .. } = &*self.shared;
        match starts.get(id as usize..).unwrap_or_default() {
            [start, end, ..] => &bytes[*start as usize..*end as usize],
            _ => &[],
        }
    }

    /// Whether the id is an added token flagged special.
    pub fn is_special(&self, id: u32) -> bool {
        self.shared.special.binary_search(&id).is_ok()
    }

    /// The id of an added or ordinary token by its exact text.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.shared.inner.token_to_id(token)
    }

    /// Number of ids the tokenizer knows.
    pub fn len(&self) -> usize {
        self.shared.count
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Refuses a tokenizer that knows ids for which a model has no embedding.
    pub(crate) fn require_below(&self, vocabulary: usize) -> Result<(), ModelError> {
        match self.shared.starts.len().checked_sub(2) {
            Some(largest) if largest >= vocabulary => Err(ModelError::Vocabulary {
                path: self.shared.path.clone(),
                largest: largest as u32,
                vocabulary,
            }),
            _ => Ok(()),
        }
    }
}

/// What the library makes of a tokenizer.json. It panics on some files that it cannot read.
fn library(json: &[u8]) -> Result<Inner, String> {
    let read = catch_unwind(|| Inner::from_bytes(json).map_err(|error| error.to_string()));
    let read = read.unwrap_or_else(|_| Err("it has unknown parts".to_owned()));
    read.map_err(|reason| format!("not a tokenizer file: {reason}"))
}

/// As much of a tokenizer.json as says of what kind it is.
#[derive(Deserialize)]
struct Outline {
    model: Option<Part>,
    decoder: Option<Part>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: Option<String>,
}

impl Outline {
    fn require_byte_level(&self) -> Result<(), String> {
        let kind = |part: &Option<Part>| part.as_ref().map(|part| part.kind.clone().unwrap_or_default());
        for (name, part, wanted) in [("model", &self.model, "BPE"), ("decoder", &self.decoder, "ByteLevel")] {
            let found = match kind(part).as_deref() {
                Some(kind) if kind == wanted => continue,
                Some(kind) => format!("'{}'", kind.chars().take(40).collect::<String>()),
                None => "none".to_owned(),
            };
            return Err(format!("expected a byte-level BPE tokenizer with {name} '{wanted}', found {found}"));
        }
        Ok(())
    }
}

/// Turns off what would make encoding lossy or random.
fn settle(inner: &mut Inner) -> Result<(), String> {
    inner.with_truncation(None).map_err(|error| error.to_string())?;
    inner.with_padding(None);
    let ModelWrapper::BPE(model) = inner.get_model() else { return Ok(()) };
    if model.dropout.is_some() {
        let mut model = model.clone();
        model.dropout = None;
        inner.with_model(model);
    }
    Ok(())
}
