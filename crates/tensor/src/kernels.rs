//! The seam between models and machines: about 15 fused operations over row-major `f32` activations.
//!
//! For the implementer:
//! - Activations are `f32`, row-major, `rows × width`; the number of rows is `x.len() / width`.
//! - **Row independence.** An output row is a function of its own input row (and, in attention, of its own sequence's
//!   keys and values) with an order of additions fixed by shapes and absolute positions alone. Not by the number of
//!   rows, the chunk boundaries, the other rows, or the number of threads. Tests compare bits.
//! - Shapes are the caller's duty and are checked with `assert!` once per call, never per element.
//! - Steady state allocates nothing: scratch memory grows to the largest call and is kept.
//! - [`crate::reference::Reference`] is the meaning of every operation; an implementation agrees within tolerance.

use std::ops::Range;

use crate::{Dtype, KvArena, Linear, Pool, Ragged, stored::TensorView};

/// Point-wise function applied by a linear layer to its output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// The identity.
    #[default]
    None,
    /// GELU in its tanh approximation (GPT-2's `gelu_new`).
    GeluTanh,
    /// The exact GELU, by the error function.
    GeluErf,
    /// x · sigmoid(x).
    Silu,
}

/// How a linear layer writes its output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Write {
    /// `out = f(x Wᵀ + b)`.
    #[default]
    Replace,
    /// `out += f(x Wᵀ + b)`: the residual stream is `out` itself.
    Add,
}

/// What a linear layer does after the product: add its bias (held by the [`Linear`]), activate, write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epilogue {
    /// Applied after the bias.
    pub activation: Activation,
    /// Applied last.
    pub write: Write,
}

/// Cosines and sines of rotary angles, `rows × half` each, where `half` is half the rotated width.
/// Multimodal rope differs from plain rope only in how this table is filled.
#[derive(Clone, Copy, Debug)]
pub struct Angles<'a> {
    /// Cosines, row-major.
    pub cos: &'a [f32],
    /// Sines, row-major.
    pub sin: &'a [f32],
    /// Entries per row.
    pub half: usize,
}

impl Angles<'_> {
    /// The angles of some rows.
    pub(crate) fn rows(self, rows: Range<usize>) -> Self {
        let part = rows.start * self.half..rows.end * self.half;
        Self { cos: &self.cos[part.clone()], sin: &self.sin[part], half: self.half }
    }
}

/// A row of a table and its share in an interpolated row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tap {
    /// Which row.
    pub row: u32,
    /// Its weight; the four weights of a bilinear interpolation sum to 1.
    pub weight: f32,
}

/// Normalisation over the last axis.
#[derive(Clone, Copy, Debug)]
pub enum Norm<'a> {
    /// x · rsqrt(mean(x²) + eps) · weight.
    Rms {
        /// Scale, one per column.
        weight: &'a [f32],
        /// Added to the mean square.
        eps: f32,
    },
    /// (x − mean) · rsqrt(var + eps) · weight + bias.
    Layer {
        /// Scale, one per column.
        weight: &'a [f32],
        /// Shift, one per column.
        bias: &'a [f32],
        /// Added to the variance.
        eps: f32,
    },
}

impl Norm<'_> {
    /// Width of the rows that the norm is for.
    pub fn width(&self) -> usize {
        let (Self::Rms { weight, .. } | Self::Layer { weight, .. }) = self;
        weight.len()
    }
}

/// Head geometry of an attention call. Query head `h` uses key head `h / (heads / kv_heads)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub query: usize,
    /// Key and value heads; divides `query`.
    pub kv: usize,
    /// Width of one head.
    pub dim: usize,
}

impl Heads {
    /// Width of a row of [`Fused`].
    pub const fn fused(&self) -> usize {
        (self.query + 2 * self.kv) * self.dim
    }
}

/// The queries, keys and values of some rows, every row `[q | k | v]`.
#[derive(Clone, Copy, Debug)]
pub struct Fused<'a> {
    /// Row-major, [`Heads::fused`] wide.
    pub rows: &'a [f32],
    /// What a row consists of.
    pub heads: Heads,
}

/// The queries of some rows whose keys and values are in pages already.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'a> {
    /// Row-major, query heads times head width wide.
    pub rows: &'a [f32],
    /// What the keys and values consist of.
    pub heads: Heads,
}

/// The matrix products of a forward pass, told apart for those who measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Product {
    /// Queries, keys and values.
    Qkv,
    /// What follows attention.
    Out,
    /// The first product of a feed-forward part: gate and up, or up alone.
    Up,
    /// Its last product.
    Down,
    /// The projection to the vocabulary.
    Head,
    /// Any other.
    #[default]
    Other,
}

/// The fused operations that models are written in.
pub trait Kernels: Send + Sync {
    /// Says which product the next call of [`Kernels::linear`] is. Only kernels that measure listen.
    fn next_product(&self, _product: Product) {}

    /// Names the instruction set and threads, for people: `avx512bf16, 2 threads`.
    fn describe(&self) -> String;

    /// The threads that compute, for work beside the operations such as packing weights; none where all is done on the
    /// calling thread.
    fn pool(&self) -> Option<&Pool> {
        None
    }

    /// `out[i] = table[ids[i]]`, widened to `f32`. `table` is `[vocabulary, width]`, `out` is `ids × width`.
    fn embed(&self, table: &TensorView, ids: &[u32], out: &mut [f32]);

    /// `out[i] += Σ weight · table[row]` over the four taps of row `i`: learned positions, interpolated bilinearly.
    /// `table` is row-major and `width` wide, `out` is `taps × width`.
    fn interpolate(&self, table: &[f32], width: usize, taps: &[[Tap; 4]], out: &mut [f32]);

    /// `out = f(x Wᵀ + b)` or `out += …`. With bf16 weights the activations are rounded to bf16 (nearest, ties to
    /// even) before the product and sums are kept in `f32`. With quantised weights in a layer of [`crate::Dtype::Bf16`]
    /// they are rounded to whole numbers of 8 bits, of a scale for each row and each group of inputs (of at most 128
    /// inputs): `max|x| / 127`. `x` is `rows × in`, `out` is `rows × out`.
    fn linear(&self, x: &[f32], weight: &Linear, epilogue: Epilogue, out: &mut [f32]);

    /// `out = silu(gate(x)) · up(x)`, where `gate` is the first half of the outputs of a layer of gates
    /// ([`crate::Packer::gated`]) and `up` the second; activations are rounded as by [`Kernels::linear`], which takes no such
    /// layer. `x` is `rows × in`, `out` is `rows × out / 2`.
    fn gated(&self, x: &[f32], gate_up: &Linear, out: &mut [f32]);

    /// Normalises every row of `x` (of the width of the norm's weight) into `out`.
    fn norm(&self, x: &[f32], norm: Norm<'_>, out: &mut [f32]);

    /// Normalises (if `norm` is given) every head of `x` in place and then rotates it: element `i` pairs with
    /// `i + half`. `x` has `rows` rows of `stride` elements of which `heads · dim` starting at `offset` are touched,
    /// so that q and k can be rotated inside a fused qkv product.
    fn norm_rope(&self, x: &mut [f32], place: Place, norm: Option<Norm<'_>>, angles: Angles<'_>);

    /// Writes the keys and values of the batch into the pages of a layer: `kv` is the arena and the layer's number.
    fn kv_write(&self, qkv: Fused<'_>, batch: &Ragged, kv: (&mut KvArena, usize));

    /// Causal attention of the queries against the pages of a layer, scaled by `dim^-0.5`, softmax in `f32`. Walks
    /// absolute blocks of [`crate::PAGE_TOKENS`] keys. Where the machine has tiles and pages hold less than `f32`, queries
    /// and weights are rounded to bf16. `out` is `rows × query heads · dim`.
    fn attend(&self, qkv: Fused<'_>, batch: &Ragged, kv: (&KvArena, usize), out: &mut [f32]);

    /// As [`Kernels::attend`] without the mask: every row of a span sees all of its `context + rows` tokens, which have been
    /// written before. So a long sequence that sees itself whole is read in parts. `out` has the shape of the queries.
    fn attend_all(&self, queries: Queries<'_>, batch: &Ragged, kv: (&KvArena, usize), out: &mut [f32]);

    /// Bidirectional attention inside each segment; `segments` are row counts. With [`Dtype::Bf16`], queries, keys, values and
    /// weights may be rounded to bf16, as they are where the machine has tiles.
    fn attend_segments(&self, qkv: Fused<'_>, segments: &[usize], dtype: Dtype, out: &mut [f32]);

    /// Mean over the rows of each segment, then division by the L2 norm (floored at 1e-12).
    fn mean_pool_normalize(&self, x: &[f32], width: usize, segments: &[usize], out: &mut [f32]);

    /// Logarithm of the sum of exponentials of each row of `logits`.
    fn log_sum_exp(&self, logits: &[f32], width: usize, out: &mut [f32]);
}

/// Where the heads to be rotated stand inside each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Elements from one row to the next.
    pub stride: usize,
    /// First element of the first head.
    pub offset: usize,
    /// Number of heads.
    pub heads: usize,
    /// Width of one head.
    pub dim: usize,
}
