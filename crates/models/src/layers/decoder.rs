//! A decoder: embed, then blocks of attention and feed-forward on a residual stream, then logits.

use std::sync::Arc;

use tensor::stored::TensorView;
use tensor::{Kernels, KvArena, KvLayout, Ragged};

use super::attention::Attention;
use super::feed_forward::FeedForward;
use super::head::Head;
use super::positions::Positions;
use super::workspace::{Widths, Workspace};
use crate::family::{CausalLm, ModelShape, Source};
use crate::{Batch, LoadOptions};

/// What one forward pass works on.
pub(super) struct Step<'a> {
    pub(super) kernels: &'a dyn Kernels,
    pub(super) ragged: &'a Ragged,
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

/// A pre-norm decoder of any family whose blocks are made of these layers.
pub(crate) struct Decoder {
    kernels: Arc<dyn Kernels>,
    shape: ModelShape,
    limits: LoadOptions,
    trunk: Trunk,
    work: Workspace,
}

impl Decoder {
    /// Puts the weights to work for sequences of up to `max_positions` tokens.
    pub(crate) fn new(source: &Source<'_>, trunk: Trunk, max_positions: usize) -> Self {
        let Trunk { embedding, positions, blocks, head } = &trunk;
        let block = &blocks[0];
        let heads = block.attention.heads;
        let widths = Widths {
            hidden: embedding.shape()[1],
            qkv: block.attention.qkv.outputs(),
            attended: block.attention.out.inputs(),
            inner: block.feed_forward.inner(),
            gated: block.feed_forward.gated(),
            half: positions.half(),
            vocabulary: embedding.shape()[0],
        };
        let weights: usize =
            blocks.iter().map(|block| block.attention.bytes() + block.feed_forward.bytes()).sum();
        let limits = *source.options;
        let work = Workspace::new(limits.max_batch_tokens, limits.max_outputs, &widths);
        let shape = ModelShape {
            vocabulary: widths.vocabulary,
            max_positions,
            parameters: source.checkpoint.elements_read(),
            weight_bytes: weights + head.bytes() + positions.bytes(),
            workspace_bytes: work.bytes(),
            kv: KvLayout { layers: blocks.len(), heads: heads.kv, dim: heads.dim, dtype: source.dtype },
        };
        Self { kernels: source.kernels.clone(), shape, limits, trunk, work }
    }
}

impl CausalLm for Decoder {
    fn shape(&self) -> ModelShape {
        self.shape
    }

    fn forward(&mut self, batch: &Batch, kv: &mut KvArena) -> &[f32] {
        let (rows, wanted) = (batch.tokens.len(), batch.outputs.len());
        assert_eq!(rows, batch.ragged.rows(), "every token of a batch belongs to one span");
        assert!(rows <= self.limits.max_batch_tokens, "{rows} rows exceed the limit given at load");
        assert!(wanted <= self.limits.max_outputs, "{wanted} outputs exceed the limit given at load");
        if rows == 0 {
            return &[];
        }
        let Self { kernels, trunk, work, .. } = self;
        let mut step = Step { kernels: &**kernels, ragged: &batch.ragged, kv, rows };
        step.kernels.embed(&trunk.embedding, &batch.tokens, work.x.rows(rows));
        trunk.positions.apply(&step, work);
        for (layer, block) in trunk.blocks.iter().enumerate() {
            block.attention.forward(&mut step, layer, work);
            block.feed_forward.forward(&step, work);
        }
        if wanted == 0 {
            return &[];
        }
        trunk.head.forward(&step, &batch.outputs, work)
    }
}
