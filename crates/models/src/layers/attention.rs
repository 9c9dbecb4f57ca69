//! Pre-norm causal self-attention with its residual.

use tensor::kernels::{Heads, Place};
use tensor::{Epilogue, Fused, Linear, Product, Write};

use super::decoder::Step;
use super::norm::NormWeights;
use super::workspace::Workspace;

/// `x += out(attention(qkv(norm(x))))`.
pub(crate) struct Attention {
    pub(crate) norm: NormWeights,
    /// Queries, keys and values fused.
    pub(crate) qkv: Linear,
    pub(crate) out: Linear,
    pub(crate) heads: Heads,
    /// Norms of query and key heads before they are rotated; where absent, nothing is rotated either.
    pub(crate) rotation: Option<HeadNorms>,
}

/// Norms over the width of a head, shared by all heads.
pub(crate) struct HeadNorms {
    pub(crate) query: NormWeights,
    pub(crate) key: NormWeights,
}

impl Attention {
    /// Updates the residual stream and writes keys and values of `layer`.
    pub(super) fn forward(&self, step: &mut Step<'_>, layer: usize, work: &mut Workspace) {
        let (kernels, rows, heads) = (step.kernels, step.rows, self.heads);
        kernels.norm(work.x.rows(rows), self.norm.view(), work.normed.rows(rows));
        kernels.next_product(Product::Qkv);
        kernels.linear(work.normed.rows(rows), &self.qkv, Epilogue::default(), work.qkv.rows(rows));
        if let Some(norms) = &self.rotation {
            self.rotate(step, norms, work);
        }
        let qkv = Fused { rows: work.qkv.rows(rows), heads };
        kernels.kv_write(qkv, step.ragged, (&mut *step.kv, layer));
        let attended = work.attended.rows(rows);
        kernels.attend(qkv, step.ragged, (step.kv, layer), attended);
        let residual = Epilogue { write: Write::Add, ..Epilogue::default() };
        kernels.next_product(Product::Out);
        kernels.linear(attended, &self.out, residual, work.x.rows(rows));
    }

    fn rotate(&self, step: &Step<'_>, norms: &HeadNorms, work: &mut Workspace) {
        let Heads { query, kv, dim } = self.heads;
        let (qkv, angles) = work.rotated(step.rows);
        let queries = Place { stride: self.qkv.outputs(), offset: 0, heads: query, dim };
        let keys = Place { offset: query * dim, heads: kv, ..queries };
        step.kernels.norm_rope(qkv, queries, Some(norms.query.view()), angles);
        step.kernels.norm_rope(qkv, keys, Some(norms.key.view()), angles);
    }

    pub(super) fn bytes(&self) -> usize {
        let norms = self.rotation.as_ref().map_or(0, |norms| norms.query.bytes() + norms.key.bytes());
        self.norm.bytes() + self.qkv.bytes() + self.out.bytes() + norms
    }
}
