//! Text to token ids and back, whole or incrementally.

use crate::ModelError;

/// What decoding does with tokens flagged special.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialTokens {
    /// Their text appears.
    Keep,
    /// They vanish.
    Skip,
}

/// A byte-level BPE tokenizer (tokenizer.json). Cheap to clone, usable from many threads at once.
#[derive(Clone)]
pub struct Tokenizer {}

impl Tokenizer {
    /// Token ids of `text`, nothing added around it; special tokens written in the text are parsed as such.
    ///
    /// # Errors
    /// When the tokenizer fails on the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let _ = text;
        todo!()
    }

    /// Text of `ids`; incomplete UTF-8 becomes U+FFFD.
    pub fn decode(&self, ids: &[u32], special: SpecialTokens) -> String {
        let _ = (ids, special);
        todo!()
    }

    /// The bytes that a token stands for; empty for an id outside the vocabulary.
    pub fn bytes(&self, id: u32) -> &[u8] {
        let _ = id;
        todo!()
    }

    /// Whether the id is an added token flagged special.
    pub fn is_special(&self, id: u32) -> bool {
        let _ = id;
        todo!()
    }

    /// The id of an added or ordinary token by its exact text.
    pub fn id(&self, token: &str) -> Option<u32> {
        let _ = token;
        todo!()
    }

    /// Number of ids the tokenizer knows.
    pub fn len(&self) -> usize {
        todo!()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Incremental decoding of one sequence: every call returns the whole characters that the new token completes.
/// Concatenated pieces plus [`Utf8Stream::finish`] equal [`Tokenizer::decode`] of all ids.
#[derive(Clone, Debug, Default)]
pub struct Utf8Stream {
    pending: Vec<u8>,
}

impl Utf8Stream {
    /// Takes the bytes of the next token and appends what is complete to `text`. Bytes that can never become valid
    /// become U+FFFD at once, as in lossy decoding of the whole.
    pub fn push(&mut self, bytes: &[u8], text: &mut String) {
        let _ = (&mut self.pending, bytes, text);
        todo!()
    }

    /// Appends U+FFFD for what stays incomplete.
    pub fn finish(&mut self, text: &mut String) {
        let _ = text;
        todo!()
    }
}
