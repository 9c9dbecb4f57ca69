//! A post-norm bidirectional encoder: embed, then blocks whose norm follows each residual.

use std::sync::Arc;

use tensor::kernels::Heads;
use tensor::stored::TensorView;
use tensor::{Activation, Epilogue, Fused, Kernels, Linear, Write};

use super::norm::NormWeights;
use super::workspace::Buffer;
use crate::encoder::{Encoder, EncoderBatch, EncoderShape};
use crate::family::Source;

/// The tables whose rows are added up to make the first hidden state, and the norm after that.
pub(crate) struct Embeddings {
    /// `[vocabulary, hidden]`.
    pub(crate) words: TensorView,
    /// `[types, hidden]`.
    pub(crate) types: TensorView,
    /// `[rows, hidden]`.
    pub(crate) positions: TensorView,
    /// Row of the position of a text's first token.
    pub(crate) first_position: u32,
    pub(crate) norm: NormWeights,
}

/// `x = norm(x + out(attention(qkv(x))))`, then `x = norm(x + down(activation(up(x))))`.
pub(crate) struct EncoderBlock {
    /// Queries, keys and values fused.
    pub(crate) qkv: Linear,
    pub(crate) out: Linear,
    pub(crate) attended: NormWeights,
    pub(crate) up: Linear,
    pub(crate) activation: Activation,
    pub(crate) down: Linear,
    pub(crate) fed: NormWeights,
}

/// An encoder of any family whose blocks are made of these layers.
pub(crate) struct PostNormEncoder {
    kernels: Arc<dyn Kernels>,
    shape: EncoderShape,
    max_rows: usize,
    heads: Heads,
    /// The same for all twins.
    weights: Arc<EncoderWeights>,
    work: Workspace,
}

/// The weights of an encoder.
struct EncoderWeights {
    embeddings: Embeddings,
    blocks: Vec<EncoderBlock>,
}

/// The buffers of one forward pass.
struct Workspace {
    /// The residual stream between blocks.
    x: Buffer,
    /// The residual stream inside of a block, and rows to be added.
    y: Buffer,
    qkv: Buffer,
    attended: Buffer,
    inner: Buffer,
    /// Rows of the table of positions.
    positions: Vec<u32>,
}

impl EncoderWeights {
    /// Buffers for so many rows.
    fn workspace(&self, heads: Heads, rows: usize) -> Workspace {
        let hidden = self.embeddings.words.shape()[1];
        Workspace {
            x: Buffer::new(rows, hidden),
            y: Buffer::new(rows, hidden),
            qkv: Buffer::new(rows, heads.fused()),
            attended: Buffer::new(rows, heads.query * heads.dim),
            inner: Buffer::new(rows, self.blocks.first().map_or(0, |block| block.up.outputs())),
            positions: Vec::with_capacity(rows),
        }
    }
}

impl PostNormEncoder {
    /// Puts the weights to work; `blocks` has at least one.
    pub(crate) fn new(
        source: &Source<'_>,
        embeddings: Embeddings,
        (heads, blocks): (Heads, Vec<EncoderBlock>),
    ) -> Self {
        let hidden = embeddings.words.shape()[1];
        let rows = source.options.max_batch_tokens;
        let weights = EncoderWeights { embeddings, blocks };
        let work = weights.workspace(heads, rows);
        let EncoderWeights { embeddings, blocks } = &weights;
        let buffers = [&work.x, &work.y, &work.qkv, &work.attended, &work.inner];
        let shape = EncoderShape {
            vocabulary: embeddings.words.shape()[0],
            types: embeddings.types.shape()[0],
            max_positions: embeddings.positions.shape()[0] - embeddings.first_position as usize,
            hidden,
            parameters: source.checkpoint.elements_read(),
            weight_bytes: embeddings.norm.bytes() + blocks.iter().map(EncoderBlock::bytes).sum::<usize>(),
            workspace_bytes: buffers.iter().map(|buffer| buffer.bytes()).sum(),
        };
        let kernels = Arc::clone(&source.kernels);
        Self { kernels, shape, max_rows: rows, heads, weights: Arc::new(weights), work }
    }

    fn embed(&mut self, batch: &EncoderBatch) {
        let (rows, tables) = (batch.tokens.len(), &self.weights.embeddings);
        let (x, y) = (self.work.x.rows(rows), self.work.y.rows(rows));
        self.kernels.embed(&tables.words, &batch.tokens, y);
        let positions = &mut self.work.positions;
        positions.clear();
        positions.extend(batch.positions.iter().map(|position| position + tables.first_position));
        for (table, ids) in [(&tables.types, &batch.types), (&tables.positions, &*positions)] {
            self.kernels.embed(table, ids, x);
            y.iter_mut().zip(&*x).for_each(|(y, x)| *y += x);
        }
        self.kernels.norm(y, tables.norm.view(), x);
    }
}

impl Encoder for PostNormEncoder {
    fn shape(&self) -> EncoderShape {
        self.shape
    }

    fn twin(&self, kernels: Arc<dyn Kernels>) -> Box<dyn Encoder> {
        let Self { shape, max_rows, heads, ref weights, .. } = *self;
        let shape = EncoderShape { weight_bytes: 0, ..shape };
        let work = weights.workspace(heads, max_rows);
        Box::new(Self { kernels, shape, max_rows, heads, weights: Arc::clone(weights), work })
    }

    fn forward(&mut self, batch: &EncoderBatch) -> &[f32] {
        let rows = batch.tokens.len();
        assert_eq!(rows, batch.lengths.iter().sum::<usize>(), "every token of a batch belongs to one text");
        assert!(rows <= self.max_rows, "{rows} rows exceed the {} given at load", self.max_rows);
        if rows == 0 {
            return &[];
        }
        self.embed(batch);
        for block in &self.weights.blocks {
            block.forward(&*self.kernels, (self.heads, &batch.lengths), &mut self.work);
        }
        self.work.x.rows(rows)
    }
}

impl EncoderBlock {
    /// Turns the residual stream `x` into that of the next block.
    fn forward(&self, kernels: &dyn Kernels, (heads, lengths): (Heads, &[usize]), work: &mut Workspace) {
        let rows = lengths.iter().sum();
        let (x, y) = (work.x.rows(rows), work.y.rows(rows));
        let (qkv, attended, inner) = (work.qkv.rows(rows), work.attended.rows(rows), work.inner.rows(rows));
        let residual = Epilogue { write: Write::Add, ..Epilogue::default() };
        kernels.linear(x, &self.qkv, Epilogue::default(), qkv);
        kernels.attend_segments(Fused { rows: qkv, heads }, lengths, self.qkv.dtype(), attended);
        kernels.linear(attended, &self.out, residual, x);
        kernels.norm(x, self.attended.view(), y);
        kernels.linear(y, &self.up, Epilogue { activation: self.activation, write: Write::Replace }, inner);
        kernels.linear(inner, &self.down, residual, y);
        kernels.norm(y, self.fed.view(), x);
    }

    fn bytes(&self) -> usize {
        let linears = [&self.qkv, &self.out, &self.up, &self.down];
        let norms = self.attended.bytes() + self.fed.bytes();
        linears.iter().map(|linear| linear.bytes()).sum::<usize>() + norms
    }
}
