//! Kernels that take notes: how long every part of a forward pass takes, what it reads, and what it computes.
//!
//! [`Timed`] stands around other kernels and costs two clock readings a call. Where nobody measures it is not there.

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::kernels::{Place, Queries, Tap};
use crate::peak::Arithmetic;
use crate::stored::TensorView;
use crate::{
    Angles, Dtype, Epilogue, Fused, Kernels, KvArena, KvDtype, Linear, Norm, PAGE_TOKENS, Pool, Product,
    Ragged,
};

/// A part of a forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A matrix product.
    Product(Product),
    /// Writing keys and values to pages, and attention.
    Attention,
    /// Norms, rotary positions, gates: everything that turns a row into a row.
    Rows,
    /// Reading rows of an embedding table.
    Embedding,
}

impl Stage {
    /// All stages, in the order of a forward pass.
    pub const ALL: [Self; 9] = [
        Self::Embedding,
        Self::Rows,
        Self::Product(Product::Qkv),
        Self::Attention,
        Self::Product(Product::Out),
        Self::Product(Product::Up),
        Self::Product(Product::Down),
        Self::Product(Product::Head),
        Self::Product(Product::Other),
    ];

    fn index(self) -> usize {
        Self::ALL.iter().position(|&stage| stage == self).unwrap_or(Self::ALL.len() - 1)
    }
}

/// What the calls of a stage took together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// How many calls.
    pub calls: u64,
    /// From their beginnings to their ends.
    pub time: Duration,
    /// Weights, keys and values that had to be read, or the rows that were read and written where there are none: each
    /// byte counted once a call.
    pub bytes: u64,
    /// Multiplications and additions of products, by what multiplies such operands fastest, in the order of
    /// [`Arithmetic::ALL`]. Norms and the like count none: memory is their limit.
    pub operations: [u64; Arithmetic::ALL.len()],
}

/// The costs of all stages, in the order of [`Stage::ALL`].
pub type Costs = [Cost; Stage::ALL.len()];

#[derive(Default)]
struct Notes {
    /// What the next call of `linear` was said to be.
    next: Product,
    costs: Costs,
}

/// Kernels around other kernels, whose results they pass on and whose time they take.
pub struct Timed {
    kernels: Arc<dyn Kernels>,
    notes: Mutex<Notes>,
}

/// The work of a call.
#[derive(Clone, Copy)]
struct Work {
    bytes: usize,
    operations: (Arithmetic, usize),
}

impl Work {
    /// A call that only moves rows.
    fn of_bytes(bytes: usize) -> Self {
        Self { bytes, operations: (Arithmetic::F32, 0) }
    }
}

impl Timed {
    /// Around `kernels`, with nothing noted.
    pub fn new(kernels: Arc<dyn Kernels>) -> Self {
        Self { kernels, notes: Mutex::default() }
    }

    /// What was noted since the last call of this, which forgets it.
    pub fn take(&self) -> Costs {
        std::mem::take(&mut self.notes().costs)
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        // A panic in the middle of a note loses that note alone.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, stage: Stage, work: Work, run: impl FnOnce(&dyn Kernels)) {
        let start = Instant::now();
        run(&*self.kernels);
        let time = start.elapsed();
        let cost = &mut self.notes().costs[stage.index()];
        let (arithmetic, operations) = work.operations;
        cost.calls += 1;
        cost.time += time;
        cost.bytes += work.bytes as u64;
        cost.operations[arithmetic.index()] += operations as u64;
    }

    fn product(&self, x: &[f32], weight: &Linear, run: impl FnOnce(&dyn Kernels)) {
        let product = std::mem::take(&mut self.notes().next);
        let operations = 2 * (x.len() / weight.inputs()) * weight.inputs() * weight.outputs();
        let work = Work { bytes: weight.bytes(), operations: (Arithmetic::of(weight), operations) };
        self.note(Stage::Product(product), work, run);
    }

    fn rows(&self, elements: usize, run: impl FnOnce(&dyn Kernels)) {
        self.note(Stage::Rows, Work::of_bytes(elements * size_of::<f32>()), run);
    }
}

/// What an attention call reads of the pages, and what it computes.
fn attention(heads: crate::kernels::Heads, batch: &Ragged, kv: &KvArena) -> Work {
    let layout = kv.layout();
    let pages = batch.spans.iter().map(|span| (span.context + span.rows).div_ceil(PAGE_TOKENS));
    let seen = batch.spans.iter().map(|span| span.rows * span.context + span.rows * (span.rows + 1) / 2);
    let operations = 4 * seen.sum::<usize>() * heads.query * heads.dim;
    let arithmetic = if layout.dtype == KvDtype::F32 { Arithmetic::F32 } else { Arithmetic::Bf16 };
    Work {
        bytes: pages.sum::<usize>() * layout.page_bytes() / layout.layers,
        operations: (arithmetic, operations),
    }
}

impl Kernels for Timed {
    fn next_product(&self, product: Product) {
        self.notes().next = product;
    }

    fn describe(&self) -> String {
        self.kernels.describe()
    }

    fn pool(&self) -> Option<&Pool> {
        self.kernels.pool()
    }

    fn embed(&self, table: &TensorView, ids: &[u32], out: &mut [f32]) {
        let bytes = 2 * size_of_val(out);
        self.note(Stage::Embedding, Work::of_bytes(bytes), |kernels| kernels.embed(table, ids, out));
    }

    fn interpolate(&self, table: &[f32], width: usize, taps: &[[Tap; 4]], out: &mut [f32]) {
        self.rows(5 * out.len(), |kernels| kernels.interpolate(table, width, taps, out));
    }

    fn linear(&self, x: &[f32], weight: &Linear, epilogue: Epilogue, out: &mut [f32]) {
        self.product(x, weight, |kernels| kernels.linear(x, weight, epilogue, out));
    }

    fn gated(&self, x: &[f32], gate_up: &Linear, out: &mut [f32]) {
        self.product(x, gate_up, |kernels| kernels.gated(x, gate_up, out));
    }

    fn norm(&self, x: &[f32], norm: Norm<'_>, out: &mut [f32]) {
        self.rows(x.len() + out.len(), |kernels| kernels.norm(x, norm, out));
    }

    fn norm_rope(&self, x: &mut [f32], place: Place, norm: Option<Norm<'_>>, angles: Angles<'_>) {
        let touched = x.len() / place.stride * place.heads * place.dim;
        self.rows(2 * touched, |kernels| kernels.norm_rope(x, place, norm, angles));
    }

    fn kv_write(&self, qkv: Fused<'_>, batch: &Ragged, (kv, layer): (&mut KvArena, usize)) {
        let elements = 2 * batch.rows() * qkv.heads.kv * qkv.heads.dim;
        let work = Work::of_bytes(elements * size_of::<f32>());
        self.note(Stage::Attention, work, |kernels| kernels.kv_write(qkv, batch, (kv, layer)));
    }

    fn attend(&self, qkv: Fused<'_>, batch: &Ragged, kv: (&KvArena, usize), out: &mut [f32]) {
        let work = attention(qkv.heads, batch, kv.0);
        self.note(Stage::Attention, work, |kernels| kernels.attend(qkv, batch, kv, out));
    }

    fn attend_all(&self, queries: Queries<'_>, batch: &Ragged, kv: (&KvArena, usize), out: &mut [f32]) {
        let mut work = attention(queries.heads, batch, kv.0);
        let seen: usize = batch.spans.iter().map(|span| span.rows * (span.context + span.rows)).sum();
        work.operations.1 = 4 * seen * queries.heads.query * queries.heads.dim;
        self.note(Stage::Attention, work, |kernels| kernels.attend_all(queries, batch, kv, out));
    }

    fn attend_segments(&self, qkv: Fused<'_>, segments: &[usize], dtype: Dtype, out: &mut [f32]) {
        let products: usize = segments.iter().map(|rows| rows * rows).sum();
        let operations = (Arithmetic::F32, 4 * products * qkv.heads.query * qkv.heads.dim);
        let work = Work { bytes: size_of_val(qkv.rows), operations };
        self.note(Stage::Attention, work, |kernels| kernels.attend_segments(qkv, segments, dtype, out));
    }

    fn mean_pool_normalize(&self, x: &[f32], width: usize, segments: &[usize], out: &mut [f32]) {
        self.rows(x.len() + out.len(), |kernels| kernels.mean_pool_normalize(x, width, segments, out));
    }

    fn log_sum_exp(&self, logits: &[f32], width: usize, out: &mut [f32]) {
        self.rows(logits.len(), |kernels| kernels.log_sum_exp(logits, width, out));
    }
}
