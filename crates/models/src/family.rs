//! The seam of model architectures.

use std::fmt;
use std::sync::Arc;

use tensor::{Dtype, Kernels, KvArena, KvLayout, Pool};

use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::encoder::Encoder;
use crate::layers::Packing;
use crate::loaded::ModelHolding;
use crate::progress::Progress;
use crate::vision::{Marks, Tower};
use crate::{Batch, Dialect, LoadOptions, ModelError};

/// What an engine must know about a model to plan for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelShape {
    /// Rows of the embedding table and width of a row of logits.
    pub vocabulary: usize,
    /// Width of a hidden state.
    pub hidden: usize,
    /// Positions that the model can represent.
    pub max_positions: usize,
    /// Parameters, for people.
    pub parameters: u64,
    /// Bytes of packed weights in memory, for the memory plan: 0 of a twin, which has none of its own. Embedding tables stay
    /// mapped files and do not count.
    pub weight_bytes: usize,
    /// Bytes of activations and logits, sized at load for the largest batch.
    pub workspace_bytes: usize,
    /// Shape of a KV page.
    pub kv: KvLayout,
}

/// What a model says of the rows of a batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outputs<'m> {
    /// `outputs × vocabulary`, row-major, in the order of [`Batch::outputs`].
    pub logits: &'m [f32],
    /// Hidden states behind the last norm, from which logits are made: `rows × hidden`, row-major, in the order of
    /// [`Batch::states`].
    pub states: &'m [f32],
    /// The threads that computed this, where there are several: they are idle until the model runs again, so whoever reads
    /// logits may have them do it.
    pub pool: Option<&'m Pool>,
}

/// A decoder that continues token sequences.
///
/// For the implementer: `forward` reads the batch, writes the keys and values of its rows into their pages and returns what is
/// wanted of them. The slices live until the next call.
/// Working memory is sized at load for [`LoadOptions::max_batch_tokens`] rows and never grows. Ids and positions are
/// the caller's duty; they are below `vocabulary` and `max_positions`.
pub trait CausalLm: Send {
    /// What an engine must know to plan.
    fn shape(&self) -> ModelShape;

    /// The same model once more: with the same weights, which are in memory once, and working memory of its own. It computes
    /// with other kernels, and gives the same logits if these are of the same instruction set.
    fn twin(&self, kernels: Arc<dyn Kernels>) -> Box<dyn CausalLm>;

    /// Runs one ragged batch.
    fn forward(&mut self, batch: &Batch, kv: &mut KvArena) -> Outputs<'_>;
}

/// An architecture: which checkpoints it reads and how.
pub struct Family {
    /// Short name: `qwen3`.
    pub name: &'static str,
    /// Values of `model_type` in config.json that it reads.
    pub model_types: &'static [&'static str],
    /// Names in GGUF files, where the family is read from them.
    pub gguf: Option<&'static Dialect>,
    /// Reads a checkpoint of the family.
    pub load: LoadFamily,
}

/// What the models of a family are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelKind {
    /// They continue texts: [`CausalLm`].
    CausalLm,
    /// They read texts and generate nothing: [`Encoder`].
    Encoder,
}

impl fmt::Display for ModelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CausalLm => "generates text",
            Self::Encoder => "embeds or scores texts",
        })
    }
}

/// A decoder and what it sees with.
pub struct Seeing {
    /// Continues texts.
    pub model: Box<dyn CausalLm>,
    /// Reads pictures, where the family does that; and which tokens stand for them.
    pub tower: Option<(Box<dyn Tower>, Marks)>,
}

impl LoadFamily {
    /// What comes of it.
    pub fn kind(&self) -> ModelKind {
        match self {
            Self::CausalLm(_) | Self::Seeing(_) => ModelKind::CausalLm,
            Self::Encoder { .. } => ModelKind::Encoder,
        }
    }

    /// Loads a model that continues texts; `None` if the family has none.
    pub(crate) fn decoder(&self, source: &Source<'_>) -> Option<Result<Seeing, ModelError>> {
        match self {
            Self::CausalLm(load) => Some(load(source).map(|model| Seeing { model, tower: None })),
            Self::Seeing(load) => Some(load(source)),
            Self::Encoder { .. } => None,
        }
    }
}

/// Reads a checkpoint of one family and packs its weights.
#[derive(Clone, Copy, Debug)]
pub enum LoadFamily {
    /// Into a model that continues texts.
    CausalLm(fn(&Source<'_>) -> Result<Box<dyn CausalLm>, ModelError>),
    /// Into a model that continues texts and sees pictures in them.
    Seeing(fn(&Source<'_>) -> Result<Seeing, ModelError>),
    /// Into a model that reads texts.
    Encoder {
        /// The longest text by the settings, in tokens.
        positions: fn(&Config) -> Result<usize, ModelError>,
        /// Makes the model.
        load: fn(&Source<'_>) -> Result<Box<dyn Encoder>, ModelError>,
    },
}

/// What a model is made from.
pub struct Source<'a> {
    /// Settings of the architecture.
    pub config: &'a Config,
    /// The stored tensors.
    pub checkpoint: &'a Checkpoint,
    /// Type of activations, and of weights that are not quantised: `F32` or `Bf16`.
    pub dtype: Dtype,
    /// How the matrices are held.
    pub holding: ModelHolding,
    /// Packs the matrices.
    pub packing: Packing<'a>,
    /// Who is told how far loading is.
    pub progress: Progress<'a>,
    /// Sizes of the working memory.
    pub options: &'a LoadOptions,
    /// What the model computes with.
    pub kernels: Arc<dyn Kernels>,
}
