//! A decoder: embed, then blocks of attention and feed-forward on a residual stream, then logits.

use std::sync::Arc;

use tensor::stored::TensorView;
use tensor::{Kernels, KvArena, KvLayout, Ragged};

use super::attention::Attention;
use super::feed_forward::FeedForward;
use super::head::Head;
use super::positions::Positions;
use super::workspace::{Widths, Workspace};
use crate::batch::{PictureRows, Position};
use crate::family::{CausalLm, ModelShape, Outputs, Source};
use crate::{Batch, LoadOptions};

/// What one forward pass works on.
pub(super) struct Step<'a> {
    pub(super) kernels: &'a dyn Kernels,
    pub(super) ragged: &'a Ragged,
    pub(super) positions: &'a [Position],
    pub(super) kv: &'a mut KvArena,
    pub(super) rows: usize,
}

/// One layer of a decoder.
pub(crate) struct Block {
    pub(crate) attention: Attention,
    pub(crate) feed_forward: FeedForward,
}

/// The weights of a decoder.
pub(crate) struct Trunk {
    /// `[vocabulary, hidden]`.
    pub(crate) embedding: TensorView,
    pub(crate) positions: Positions,
    /// At least one, all of the same shape.
    pub(crate) blocks: Vec<Block>,
    pub(crate) head: Head,
}

impl Trunk {
    /// Buffers for a forward pass within these limits.
    fn workspace(&self, limits: &LoadOptions) -> Workspace {
        let Block { attention, feed_forward } = &self.blocks[0];
        let widths = Widths {
            hidden: self.embedding.shape()[1],
            qkv: attention.qkv.outputs(),
            attended: attention.out.inputs(),
            inner: feed_forward.inner(),
            half: self.positions.half(),
            vocabulary: self.embedding.shape()[0],
        };
        Workspace::new(limits.max_batch_tokens, limits.max_outputs, &widths)
    }
}

/// A pre-norm decoder of any family whose blocks are made of these layers.
pub(crate) struct Decoder {
    kernels: Arc<dyn Kernels>,
    shape: ModelShape,
    limits: LoadOptions,
    /// Whether memory is short, so that the table leaves it after every pass but for what the page cache keeps.
    spares: bool,
    /// The same for all twins.
    trunk: Arc<Trunk>,
    work: Workspace,
}

impl Decoder {
    /// Puts the weights to work for sequences of up to `max_positions` tokens.
    pub(crate) fn new(source: &Source<'_>, trunk: Trunk, max_positions: usize) -> Self {
        let Trunk { embedding, positions, blocks, head } = &trunk;
        let block = &blocks[0];
        let heads = block.attention.heads;
        let weights: usize =
            blocks.iter().map(|block| block.attention.bytes() + block.feed_forward.bytes()).sum();
        let limits = *source.options;
        let work = trunk.workspace(&limits);
        let shape = ModelShape {
            vocabulary: embedding.shape()[0],
            hidden: embedding.shape()[1],
            max_positions,
            parameters: source.checkpoint.elements_read(),
            weight_bytes: weights + head.bytes() + positions.bytes(),
            workspace_bytes: work.bytes(),
            kv: KvLayout {
                layers: blocks.len(),
                heads: heads.kv,
                dim: heads.dim,
                dtype: limits.kv.unwrap_or(source.dtype.into()),
            },
        };
        let spares = source.packing.streams();
        Self { kernels: source.kernels.clone(), shape, limits, spares, trunk: Arc::new(trunk), work }
    }
}

impl CausalLm for Decoder {
    fn shape(&self) -> ModelShape {
        self.shape
    }

    fn twin(&self, kernels: Arc<dyn Kernels>) -> Box<dyn CausalLm> {
        let (trunk, limits) = (Arc::clone(&self.trunk), self.limits);
        let shape = ModelShape { weight_bytes: 0, ..self.shape };
        Box::new(Self { kernels, shape, limits, spares: self.spares, work: trunk.workspace(&limits), trunk })
    }

    fn forward(&mut self, batch: &Batch, kv: &mut KvArena) -> Outputs<'_> {
        let (rows, wanted) = (batch.tokens.len(), batch.outputs.len());
        assert_eq!(rows, batch.ragged.rows(), "every token of a batch belongs to one span");
        assert_eq!(rows, batch.positions.len(), "every token of a batch has a position");
        assert!(rows <= self.limits.max_batch_tokens, "{rows} rows exceed the limit given at load");
        assert!(wanted <= self.limits.max_outputs, "{wanted} outputs exceed the limit given at load");
        if rows == 0 {
            return Outputs::default();
        }
        let Self { kernels, spares, trunk, work, .. } = self;
        let Batch { ragged, positions, .. } = batch;
        let mut step = Step { kernels: &**kernels, ragged, positions, kv, rows };
        step.kernels.embed(&trunk.embedding, &batch.tokens, work.x.rows(rows));
        if *spares {
            trunk.embedding.release();
        }
        batch.pictures.iter().for_each(|part| replace(work, part));
        trunk.positions.apply(&step, work);
        for (layer, block) in trunk.blocks.iter().enumerate() {
            block.attention.forward(&mut step, layer, work);
            block.feed_forward.forward(&step, work);
            batch.pictures.iter().for_each(|part| add(work, part, layer));
        }
        let states = trunk.head.norm_states(&step, &batch.states, work);
        if wanted > 0 {
            trunk.head.forward(&step, &batch.outputs, work);
        }
        Outputs { logits: work.logits.rows(wanted), states: work.normed.rows(states), pool: kernels.pool() }
    }
}

/// Puts what a tower has made of a picture in place of its rows.
fn replace(work: &mut Workspace, part: &PictureRows) {
    let (first, rows) = (part.first_row, part.tokens.len());
    let (width, x) = (work.x.width(), work.x.rows(first + rows));
    x[first * width..].copy_from_slice(part.features.rows(0, part.tokens.clone()));
}

/// Adds what a tower has made of a picture on its way to the rows that leave `layer`, if it has made something for it
/// (DeepStack, arXiv 2406.04334).
fn add(work: &mut Workspace, part: &PictureRows, layer: usize) {
    if layer + 1 >= part.features.levels() {
        return;
    }
    let (first, rows) = (part.first_row, part.tokens.len());
    let (width, x) = (work.x.width(), work.x.rows(first + rows));
    let seen = part.features.rows(layer + 1, part.tokens.clone());
    x[first * width..].iter_mut().zip(seen).for_each(|(x, seen)| *x += seen);
}
