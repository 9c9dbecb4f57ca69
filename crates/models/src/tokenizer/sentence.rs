//! Whole texts, and pairs of them, as encoders read them: with the special tokens of the model, and cut to its length.

use std::path::PathBuf;
use std::sync::Arc;

use tokenizers::Tokenizer as Inner;
use tokenizers::tokenizer::{
    Encoding, PostProcessor, TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings,
};

use super::{FILE, LARGEST_ID, Tokenizer, library};
use crate::{ModelError, Repository};

/// A text, or a pair of texts, as an encoder reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sentence {
    /// Token ids, special ones included.
    pub ids: Vec<u32>,
    /// The type of each token: which text of a pair it is of.
    pub types: Vec<u32>,
    /// Tokens that there would have been if the text had not been cut.
    pub full_length: usize,
}

impl Sentence {
    /// Whether something was cut off.
    pub fn is_truncated(&self) -> bool {
        self.ids.len() < self.full_length
    }
}

/// The tokenizer of an encoder: any kind that tokenizer.json can describe. Cheap to clone, usable from many threads at
/// once.
#[derive(Clone)]
pub struct SentenceTokenizer {
    shared: Arc<Shared>,
}

#[derive(Clone)]
struct Shared {
    inner: Arc<Inner>,
    path: PathBuf,
    /// Tokens of a text, special ones included.
    max_tokens: usize,
    /// Special tokens that are put around one text.
    around: Vec<u32>,
    largest: Option<u32>,
}

impl SentenceTokenizer {
    /// Reads `tokenizer.json`. Truncation and padding that the file may ask for are turned off; texts are cut at
    /// `max_tokens` instead.
    ///
    /// # Errors
    /// When the file is missing or broken, or so many tokens have no room for the special ones.
    pub fn read(repository: &Repository, max_tokens: usize) -> Result<Self, ModelError> {
        let path = repository.path(FILE);
        let wrong = |reason: String| ModelError::Tokenizer { path: path.clone(), reason };
        let mut inner = library(&repository.read(FILE)?).map_err(wrong)?;
        inner.with_truncation(None).map_err(|error| wrong(error.to_string()))?;
        inner.with_padding(None);
        let largest = inner.get_vocab(true).into_values().max();
        if let Some(id) = largest.filter(|id| *id > LARGEST_ID) {
            return Err(wrong(format!("expected ids up to {LARGEST_ID}, found {id}")));
        }
        Self::new((Arc::new(inner), path.clone()), max_tokens, largest)
    }

    /// The tokenizer of a model that generates, put to reading whole texts.
    ///
    /// # Errors
    /// When so many tokens have no room for the special ones that it puts around texts.
    pub fn of(tokenizer: &Tokenizer, max_tokens: usize) -> Result<Self, ModelError> {
        let super::Shared { inner, path, starts, .. } = &*tokenizer.shared;
        let largest = starts.len().checked_sub(2).and_then(|largest| u32::try_from(largest).ok());
        Self::new((Arc::clone(inner), path.clone()), max_tokens, largest)
    }

    fn new(
        (inner, path): (Arc<Inner>, PathBuf),
        max_tokens: usize,
        largest: Option<u32>,
    ) -> Result<Self, ModelError> {
        let special = |pair| inner.get_post_processor().map_or(0, |post| post.added_tokens(pair));
        let wrong = |reason: String| ModelError::Tokenizer { path: path.clone(), reason };
        if special(true).max(special(false)) >= max_tokens {
            let reason = format!("its special tokens leave no room in texts of at most {max_tokens} tokens");
            return Err(wrong(reason));
        }
        let around =
            inner.encode_fast("", true).map_err(|error| wrong(error.to_string()))?.get_ids().to_vec();
        Ok(Self { shared: Arc::new(Shared { inner, path, max_tokens, around, largest }) })
    }

    /// The same, for texts of at most so many tokens.
    #[must_use]
    pub fn within(self, max_tokens: usize) -> Self {
        let max_tokens = self.shared.max_tokens.min(max_tokens);
        Self { shared: Arc::new(Shared { max_tokens, ..(*self.shared).clone() }) }
    }

    /// The longest text, in tokens.
    pub fn max_tokens(&self) -> usize {
        self.shared.max_tokens
    }

    /// Token ids of one text. What does not fit is cut off its end.
    ///
    /// # Errors
    /// When the tokenizer fails on the text.
    pub fn encode(&self, text: &str) -> Result<Sentence, ModelError> {
        self.finish(self.plain(text)?, None)
    }

    /// Token ids of a pair of texts, of which the longer one is cut until both fit.
    ///
    /// # Errors
    /// When the tokenizer fails on one of the texts.
    pub fn encode_pair(&self, first: &str, second: &str) -> Result<Sentence, ModelError> {
        self.finish(self.plain(first)?, Some(self.plain(second)?))
    }

    /// A text given as ids of this tokenizer, which gets the special tokens around it unless it has them. `None` if
    /// there is no such id.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn encode_ids(&self, ids: &[u32]) -> Result<Option<Sentence>, ModelError> {
        let Shared { largest, around, .. } = &*self.shared;
        if ids.iter().any(|id| Some(*id) > *largest) {
            return Ok(None);
        }
        let bare = match (around.as_slice(), ids) {
            ([first, .., last], [start, inside @ .., end]) if first == start && last == end => inside,
            // Texts that are only ended, or only begun.
            ([last], [inside @ .., end]) if last == end => inside,
            ([first], [start, inside @ ..]) if first == start => inside,
            _ => ids,
        };
        let count = bare.len();
        let encoding = Encoding::new(
            bare.to_vec(),
            vec![0; count],
            vec![String::new(); count],
            vec![None; count],
            vec![(0, 0); count],
            vec![0; count],
            vec![1; count],
            Vec::new(),
            std::iter::empty().collect(),
        );
        self.finish(encoding, None).map(Some)
    }

    fn plain(&self, text: &str) -> Result<Encoding, ModelError> {
        self.shared.inner.encode_fast(text, false).map_err(encode_error)
    }

    /// Cuts to length and adds the special tokens.
    fn finish(&self, first: Encoding, second: Option<Encoding>) -> Result<Sentence, ModelError> {
        let Shared { inner, max_tokens, .. } = &*self.shared;
        let special = inner.get_post_processor().map_or(0, |post| post.added_tokens(second.is_some()));
        let full_length = first.len() + second.as_ref().map_or(0, Encoding::len) + special;
        let cut = TruncationParams {
            max_length: max_tokens.saturating_sub(special),
            stride: 0,
            strategy: TruncationStrategy::LongestFirst,
            direction: TruncationDirection::Right,
        };
        let (first, second) = truncate_encodings(first, second, &cut).map_err(encode_error)?;
        let encoding = inner.post_process(first, second, true).map_err(encode_error)?;
        Ok(Sentence {
            ids: encoding.get_ids().to_vec(),
            types: encoding.get_type_ids().to_vec(),
            full_length,
        })
    }

    /// Refuses a tokenizer that knows ids for which a model has no embedding.
    pub(crate) fn require_below(&self, vocabulary: usize) -> Result<(), ModelError> {
        match self.shared.largest {
            Some(largest) if largest as usize >= vocabulary => {
                Err(ModelError::Vocabulary { path: self.shared.path.clone(), largest, vocabulary })
            }
            _ => Ok(()),
        }
    }
}

fn encode_error(error: tokenizers::Error) -> ModelError {
    ModelError::Encode { reason: error.to_string() }
}
