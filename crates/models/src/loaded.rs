//! A model with everything that belongs to it.

use std::sync::Arc;

use tensor::{Dtype, Kernels, Scheme};

use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::family::{Family, LoadFamily, ModelKind, Source};
use crate::{
    CausalLm, ModelError, Repository, chat_template::ChatTemplate, families, generation::GenerationDefaults,
    tokenizer::Tokenizer,
};

/// How the weights of a model are quantised as they are loaded. Embeddings, norms and biases never are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantisation {
    /// Every matrix of the decoder blocks.
    pub blocks: Scheme,
    /// The projection to the vocabulary, whether it is tied to the embeddings or not; `None` leaves it as it is.
    pub head: Option<Scheme>,
}

impl Quantisation {
    /// 8 bits throughout.
    pub const INT8: Self = Self { blocks: Scheme::INT8, head: Some(Scheme::INT8) };

    /// 4 bits in groups of 32 in the blocks. The projection keeps 8: it is one matrix, and every token's choice hangs
    /// on it.
    pub const INT4: Self = Self { blocks: Scheme::INT4, head: Some(Scheme::INT8) };

    /// As [`Self::INT4`] in groups of 128.
    pub const INT4_G128: Self = Self { blocks: Scheme::INT4_G128, head: Some(Scheme::INT8) };
}

/// How to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Type of activations and KV, and of weights that are not quantised; `None` is what the checkpoint says, and `F32`
    /// where it says `F16`, which `F32` holds exactly and `Bf16` does not.
    pub dtype: Option<Dtype>,
    /// How weights are quantised, if they are.
    pub quantise: Option<Quantisation>,
    /// The most rows that one batch will have.
    pub max_batch_tokens: usize,
    /// The most rows of one batch that will want logits.
    pub max_outputs: usize,
}

/// A model with its tokenizer, chat template and generation defaults.
pub struct LoadedModel {
    /// Name of the family: `qwen3`.
    pub family: &'static str,
    /// Type of activations and KV, and of weights that are not quantised.
    pub dtype: Dtype,
    /// How weights are quantised, if they are.
    pub quantised: Option<Quantisation>,
    /// The decoder.
    pub model: Box<dyn CausalLm>,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// Renders conversations, if the checkpoint has a template.
    pub chat_template: Option<ChatTemplate>,
    /// Sampling defaults and end-of-sequence tokens.
    pub generation: GenerationDefaults,
}

impl LoadedModel {
    /// What the weights of the blocks are held as, for people: `bf16`, `int8`.
    pub fn precision(&self) -> String {
        match (self.quantised, self.dtype) {
            (None, dtype) => dtype.to_string(),
            (Some(quantised), Dtype::F32) => format!("{} with f32 activations", quantised.blocks),
            (Some(quantised), _) => quantised.blocks.to_string(),
        }
    }
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
    let config = Config::read(repository)?;
    let family = family(repository, &config)?;
    let LoadFamily::CausalLm(load) = family.load else {
        return Err(other_kind(repository, family, ModelKind::CausalLm));
    };
    let tokenizer = Tokenizer::read(repository)?;
    let chat_template = ChatTemplate::read(repository)?;

    let checkpoint = Checkpoint::open(repository)?;
    let dtype = arithmetic(options.dtype, config.dtype()?.unwrap_or_else(|| checkpoint.dtype()))?;
    let source = Source { config: &config, checkpoint: &checkpoint, dtype, options, kernels };
    let model = load(&source)?;
    let vocabulary = model.shape().vocabulary;
    tokenizer.require_below(vocabulary)?;
    let generation = GenerationDefaults::read(repository, &config, vocabulary)?;
    Ok(LoadedModel {
        family: family.name,
        dtype,
        quantised: options.quantise,
        model,
        tokenizer,
        chat_template,
        generation,
    })
}

/// What the model of a repository is for.
///
/// # Errors
/// When config.json is missing, or no family reads what it describes.
pub fn kind(repository: &Repository) -> Result<ModelKind, ModelError> {
    Ok(family(repository, &Config::read(repository)?)?.load.kind())
}

/// The family that reads the model.
pub(crate) fn family(repository: &Repository, config: &Config) -> Result<&'static Family, ModelError> {
    let model_type = config.text("model_type")?.unwrap_or_default();
    families::find(model_type).ok_or_else(|| ModelError::UnknownArchitecture {
        path: repository.path("config.json"),
        key: "model_type",
        found: model_type.to_owned(),
        known: families::known(),
    })
}

/// The error for a model that was asked for what it is not for.
pub(crate) fn other_kind(repository: &Repository, family: &Family, asked: ModelKind) -> ModelError {
    ModelError::OtherKind { path: repository.path("config.json"), is: family.load.kind(), asked }
}

/// The type that weights are held as.
pub(crate) fn arithmetic(asked: Option<Dtype>, stored: Dtype) -> Result<Dtype, ModelError> {
    match (asked, stored) {
        (Some(Dtype::F16), _) => Err(ModelError::Dtype { found: Dtype::F16 }),
        (Some(asked), _) => Ok(asked),
        (None, Dtype::Bf16) => Ok(Dtype::Bf16),
        (None, Dtype::F32 | Dtype::F16) => Ok(Dtype::F32),
    }
}
