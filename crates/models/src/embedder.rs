//! How a model that generates makes vectors of texts: from the hidden states of its last layer, behind the last norm.
//!
//! Sentence-Transformers folders of such models (Qwen3-Embedding is one) say how. For others, the last token's state is what
//! there is of a text: in a causal model it alone has seen all of it.

use std::sync::Arc;

use crate::head::{Pooling, Scaling};
use crate::loaded_encoder::SentenceReader;
use crate::sentence::{Prompts, SentenceSettings};
use crate::tokenizer::{SentenceTokenizer, Tokenizer};
use crate::{ModelError, ModelShape, Repository};

/// How texts are read to be embedded, and what becomes of their hidden states.
#[derive(Clone)]
pub struct Embedder {
    /// Text to tokens.
    pub reader: SentenceReader,
    /// What the model's files say; `None` if they say nothing of it, so that the model was not made for this.
    pub pooling: Option<Pooling>,
    /// What happens to a pooled vector.
    pub scaling: Scaling,
}

impl Embedder {
    /// Goes by the files of a model of this shape.
    ///
    /// # Errors
    /// When one of its Sentence-Transformers files says what cannot be done.
    pub(crate) fn read(
        repository: &Repository,
        tokenizer: &Tokenizer,
        shape: ModelShape,
    ) -> Result<Self, ModelError> {
        if repository.gguf().is_some() {
            return Self::plain(tokenizer, shape.max_positions);
        }
        let mut settings = SentenceSettings::plain(repository, shape.max_positions)?;
        let is_made_for_it = settings.read_modules(repository, shape.hidden)?;
        let sentences = SentenceTokenizer::of(tokenizer, settings.max_tokens)?;
        Ok(Self {
            reader: SentenceReader::new(sentences, Arc::new(settings.prompts), settings.case),
            pooling: is_made_for_it.then_some(settings.pooling),
            scaling: settings.scaling,
        })
    }

    /// That of a model whose files say nothing of it.
    ///
    /// # Errors
    /// When so many tokens have no room for the special ones that the tokenizer puts around texts.
    pub fn plain(tokenizer: &Tokenizer, max_tokens: usize) -> Result<Self, ModelError> {
        let sentences = SentenceTokenizer::of(tokenizer, max_tokens)?;
        let reader = SentenceReader::new(sentences, Arc::new(Prompts::default()), Default::default());
        Ok(Self { reader, pooling: None, scaling: Scaling::Unit })
    }

    /// The same, for texts of at most so many tokens.
    #[must_use]
    pub fn within(mut self, max_tokens: usize) -> Self {
        self.reader.tokenizer = self.reader.tokenizer.within(max_tokens);
        self
    }
}
