//! A model with everything that belongs to it.

use std::sync::Arc;

use tensor::packed::streamed::StreamedWeights;
use tensor::stored::BlockFormat;
use tensor::{Dtype, Kernels, KvDtype, Scheme};

use crate::cache::Key;
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::family::{Family, ModelKind, Seeing, Source};
use crate::layers::Packing;
use crate::progress::{Loading, Progress};
use crate::vision::Vision;
use crate::{
    CausalLm, Embedder, ModelError, Repository, chat_template::ChatTemplate, families,
    generation::GenerationDefaults, quantise, recipe, tokenizer::Tokenizer,
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

    /// Those that have names, by which quantised folders are marked.
    const NAMED: [(&str, Self); 3] =
        [("int8", Self::INT8), ("int4", Self::INT4), ("int4-g128", Self::INT4_G128)];

    /// The same for a model that only reads. 8 bits have a scale for every 128 inputs there instead of one for all: the
    /// errors of a vector are not averaged over tokens that follow, and many rows meet every weight, so reading the scales
    /// costs nothing. On all-MiniLM-L6-v2 it takes nearly half of the error away.
    pub(crate) fn of_encoder(self) -> Self {
        if self.blocks == Scheme::INT8 { Self { blocks: Scheme::INT8_G128, ..self } } else { self }
    }

    /// The one of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::NAMED.iter().find(|(known, _)| *known == name).map(|(_, quantisation)| *quantisation)
    }

    /// Its name, if it has one.
    pub(crate) fn name(self) -> Option<&'static str> {
        Self::NAMED.iter().find(|(_, known)| *known == self).map(|(name, _)| *name)
    }
}

/// How the matrices of a model are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelHolding {
    /// As floats.
    Floats,
    /// Quantised as they are loaded, or earlier in the same way.
    Quantised(Quantisation),
    /// Those that the file holds in blocks with the numbers and scales of the blocks, the others as floats.
    Stored {
        /// The format of most of them.
        format: BlockFormat,
    },
}

/// How one matrix is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holding {
    Floats,
    Quantised(Scheme),
    Stored,
}

impl ModelHolding {
    /// The matrices of the blocks.
    pub(crate) fn blocks(self) -> Holding {
        self.of(|quantisation| Some(quantisation.blocks))
    }

    /// The matrices of a vision tower: they are few beside those of the blocks, and small errors in them move every token
    /// of a picture the same way, so they keep 8 bits where the blocks have 4.
    pub(crate) fn tower(self) -> Holding {
        self.of(|_| Some(Scheme::INT8))
    }

    /// The projection to the vocabulary.
    pub(crate) fn head(self) -> Holding {
        self.of(|quantisation| quantisation.head)
    }

    fn of(self, scheme: impl FnOnce(Quantisation) -> Option<Scheme>) -> Holding {
        match self {
            Self::Floats => Holding::Floats,
            Self::Quantised(quantisation) => scheme(quantisation).map_or(Holding::Floats, Holding::Quantised),
            Self::Stored { .. } => Holding::Stored,
        }
    }
}

/// How to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Type of activations, and of weights that are not quantised; `None` is what the checkpoint says, and `F32`
    /// where it says `F16`, which `F32` holds exactly and `Bf16` does not. Matrices that a GGUF file holds in blocks of
    /// small numbers stay that where neither this nor `quantise` is given, and are widened first where one of them is.
    pub dtype: Option<Dtype>,
    /// How weights are quantised, if they are.
    pub quantise: Option<Quantisation>,
    /// How keys and values are held; `None` is as activations are.
    pub kv: Option<KvDtype>,
    /// The most rows that one batch will have.
    pub max_batch_tokens: usize,
    /// The most rows of one batch that will want logits.
    pub max_outputs: usize,
}

/// A model with its tokenizer, chat template and generation defaults.
pub struct LoadedModel {
    /// Name of the family: `qwen3`.
    pub family: &'static str,
    /// Type of activations, and of weights that are not quantised.
    pub dtype: Dtype,
    /// How matrices are held.
    pub holding: ModelHolding,
    /// What its keys and values follow from beside the kernels, as one digest, if the files tell: which files, and how they
    /// are held.
    pub identity: Option<String>,
    /// The decoder.
    pub model: Box<dyn CausalLm>,
    /// Its packed weights, where memory holds only some of them.
    pub streamed: Option<StreamedWeights>,
    /// What it sees pictures with, if it does.
    pub vision: Option<Vision>,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// Renders conversations, if the checkpoint has a template.
    pub chat_template: Option<ChatTemplate>,
    /// Sampling defaults and end-of-sequence tokens.
    pub generation: GenerationDefaults,
    /// How it makes vectors of texts.
    pub embedder: Embedder,
}

impl LoadedModel {
    /// The same model once more, with the same weights and working memory of its own; see [`CausalLm::twin`]. `None` where
    /// memory holds only some of the weights: they are read as the steps of one model need them.
    pub fn twin(&self, kernels: Arc<dyn Kernels>) -> Option<Self> {
        if self.streamed.is_some() {
            return None;
        }
        Some(Self {
            identity: self.identity.clone(),
            model: self.model.twin(Arc::clone(&kernels)),
            streamed: None,
            vision: self.vision.as_ref().map(|vision| vision.twin(kernels)),
            tokenizer: self.tokenizer.clone(),
            chat_template: self.chat_template.clone(),
            generation: self.generation.clone(),
            embedder: self.embedder.clone(),
            ..*self
        })
    }

    /// What the weights of the blocks are held as, for people: `bf16`, `int8`, `q4_k`.
    pub fn precision(&self) -> String {
        precision((self.dtype, self.holding))
    }
}

/// What weights are held as, for people.
pub(crate) fn precision((dtype, holding): (Dtype, ModelHolding)) -> String {
    let held = match holding {
        ModelHolding::Floats => return dtype.to_string(),
        ModelHolding::Quantised(quantised) => quantised.blocks.to_string(),
        ModelHolding::Stored { format } => format.to_string(),
    };
    if dtype == Dtype::F32 { format!("{held} with f32 activations") } else { held }
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
    load_with(repository, options, kernels, Loading::default())
}

/// As [`load`], with someone who watches and a cache.
///
/// # Errors
/// As `load`, and [`ModelError::Stopped`].
pub fn load_with(
    repository: &Repository,
    options: &LoadOptions,
    kernels: Arc<dyn Kernels>,
    loading: Loading<'_>,
) -> Result<LoadedModel, ModelError> {
    let config = Config::read(repository)?;
    let family = family(repository, &config)?;
    if family.load.kind() != ModelKind::CausalLm {
        return Err(other_kind(repository, family, ModelKind::CausalLm));
    }
    let tokenizer = Tokenizer::read(repository)?;
    let chat_template = ChatTemplate::read(repository)?;

    let stored = quantise::stored(&config)?;
    require_as_stored(repository, options, stored)?;
    let checkpoint = Checkpoint::open(repository)?;
    let checkpoint = if stored.is_some() { checkpoint.quantised() } else { checkpoint };
    let dtype = match stored {
        Some(_) => Dtype::Bf16,
        None => arithmetic(options.dtype, config.dtype()?.unwrap_or_else(|| checkpoint.dtype()))?,
    };
    let holding = match (stored.or(options.quantise), options.dtype, checkpoint.block_format()) {
        (Some(quantisation), ..) => ModelHolding::Quantised(quantisation),
        (None, None, Some(format)) => ModelHolding::Stored { format },
        _ => ModelHolding::Floats,
    };
    let key = key(repository, &checkpoint, (dtype, holding));
    let identity = key.as_ref().map(|key| key.digest().to_owned()).or_else(|| {
        let weights = repository.embedded_digest()?;
        Some(format!("{weights} {dtype} {holding:?}"))
    });
    let source = Source {
        config: &config,
        checkpoint: &checkpoint,
        dtype,
        holding,
        packing: Packing::new(loading, key, &*kernels)?,
        progress: Progress::new(loading.watch, checkpoint.bytes()),
        options,
        kernels,
    };
    let loaded = family.load.decoder(&source);
    let Seeing { model, tower } =
        loaded.ok_or_else(|| other_kind(repository, family, ModelKind::CausalLm))??;
    let streamed = source.packing.finish()?;
    let vision = tower.map(|(tower, marks)| recipe::vision(repository, tower, marks)).transpose()?;
    let vocabulary = model.shape().vocabulary;
    tokenizer.require_below(vocabulary)?;
    let embedder = Embedder::read(repository, &tokenizer, model.shape())?;
    let generation = GenerationDefaults::read(repository, &config, vocabulary)?;
    Ok(LoadedModel {
        family: family.name,
        dtype,
        holding,
        identity,
        model,
        streamed,
        vision,
        tokenizer,
        chat_template,
        generation,
        embedder,
    })
}

/// Refuses to hold a quantised folder as anything but what it is: to quantise what was quantised adds one error to the
/// other.
fn require_as_stored(
    repository: &Repository,
    options: &LoadOptions,
    stored: Option<Quantisation>,
) -> Result<(), ModelError> {
    let Some(stored) = stored else { return Ok(()) };
    let is_free = options.dtype.is_none() && options.quantise.is_none();
    if is_free || options.quantise == Some(stored) {
        return Ok(());
    }
    let found = stored.name().unwrap_or_default().to_owned();
    Err(ModelError::QuantisedAlready { path: repository.path(""), found })
}

/// What the packed weights follow from, if the model is on a disk.
pub(crate) fn key(
    repository: &Repository,
    checkpoint: &Checkpoint,
    held: (Dtype, ModelHolding),
) -> Option<Key> {
    let mut files = checkpoint.files();
    let config = repository.path("config.json");
    files.push(&config);
    let label = format!("{}-{}", repository.name(), precision(held));
    Key::new(&label, &files, &format!("{held:?}"))
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
