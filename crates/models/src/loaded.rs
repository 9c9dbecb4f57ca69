//! A model with everything that belongs to it.

use std::sync::Arc;

use tensor::{Dtype, Kernels};

use crate::{
    CausalLm, ModelError, Repository, chat_template::ChatTemplate, generation::GenerationDefaults,
    tokenizer::Tokenizer,
};

/// How to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Type of weights and KV; `None` is what the checkpoint says.
    pub dtype: Option<Dtype>,
    /// The most rows that one batch will have.
    pub max_batch_tokens: usize,
    /// The most rows of one batch that will want logits.
    pub max_outputs: usize,
}

/// A model with its tokenizer, chat template and generation defaults.
pub struct LoadedModel {
    /// Name of the family: `qwen3`.
    pub family: &'static str,
    /// Arithmetic type of weights and KV.
    pub dtype: Dtype,
    /// The decoder.
    pub model: Box<dyn CausalLm>,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// Renders conversations, if the checkpoint has a template.
    pub chat_template: Option<ChatTemplate>,
    /// Sampling defaults and end-of-sequence tokens.
    pub generation: GenerationDefaults,
}

/// Reads a model from its files.
///
/// # Errors
/// Names the file, what was expected and what was found.
pub fn load(
    repository: &Repository,
    options: &LoadOptions,
    kernels: Arc<dyn Kernels>,
) -> Result<LoadedModel, ModelError> {
    let _ = (repository, options, kernels);
    todo!()
}
