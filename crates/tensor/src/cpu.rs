//! The kernels of this machine: one body per operation, instantiated per instruction set, split over the pool.

mod attention;
mod dispatch;
mod kv_write;
mod lanes;
mod linear;
mod math;
mod peak;
mod rows;
mod scan;
mod split;
#[cfg(test)]
mod tests;
mod tiles;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::kernels::{Place, Queries, Tap};
use crate::stored::TensorView;
use crate::{Angles, Dtype, Epilogue, Fused, Isa, Kernels, KvArena, Linear, Norm, Pool, Ragged, shapes};

pub(crate) use dispatch::Level;
pub(crate) use peak::multiply_in_registers;
pub(crate) use scan::scan;

/// Elements of output below which a row-wise operation stays on the calling thread.
const ALONE: usize = 1 << 14;

/// Kernels for x86-64 at a given instruction set level.
pub struct Cpu {
    level: Level,
    pool: Arc<Pool>,
    /// Working memory of one call; a second caller waits, as it would for the pool.
    scratch: Mutex<Scratch>,
}

/// Memory that grows to the largest call and is kept.
#[derive(Default)]
struct Scratch {
    linear: linear::Workspace,
    attention: attention::Workspace,
}

impl Cpu {
    /// Kernels of `isa`, split over `pool`. Panics unless the machine runs `isa` and it is not the scalar one.
    pub fn new(isa: Isa, pool: Arc<Pool>) -> Self {
        Self { level: Level::new(isa), pool, scratch: Mutex::default() }
    }

    fn scratch(&self) -> MutexGuard<'_, Scratch> {
        // What a panicking call left behind is overwritten by the next one before it is read.
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kernels for Cpu {
    fn describe(&self) -> String {
        let threads = self.pool.threads();
        format!("{}, {threads} thread{}", self.level.isa(), if threads == 1 { "" } else { "s" })
    }

    fn pool(&self) -> Option<&Pool> {
        Some(&self.pool)
    }

    fn embed(&self, table: &TensorView, ids: &[u32], out: &mut [f32]) {
        let width = shapes::embed(table, ids, out);
        split::rows(&self.pool, out, (width, ALONE), |rows, out| {
            for (&id, row) in ids[rows].iter().zip(out.chunks_exact_mut(width)) {
                table.row_into(id as usize, row);
            }
        });
    }

    fn interpolate(&self, table: &[f32], width: usize, taps: &[[Tap; 4]], out: &mut [f32]) {
        shapes::interpolate(table, width, taps, out);
        split::rows(&self.pool, out, (width, ALONE), |rows, out| {
            self.level.run(rows::Interpolate { table, width, taps: &taps[rows], out });
        });
    }

    fn linear(&self, x: &[f32], weight: &Linear, epilogue: Epilogue, out: &mut [f32]) {
        let rows = shapes::linear(x, weight, out);
        let finish = linear::Finish::Each(epilogue);
        let call = linear::Call { x, rows, weight, finish, out };
        call.run(self.level, &self.pool, &mut self.scratch().linear);
    }

    fn gated(&self, x: &[f32], gate_up: &Linear, out: &mut [f32]) {
        let rows = shapes::gated(x, gate_up, out);
        let call = linear::Call { x, rows, weight: gate_up, finish: linear::Finish::Gated, out };
        call.run(self.level, &self.pool, &mut self.scratch().linear);
    }

    fn norm(&self, x: &[f32], norm: Norm<'_>, out: &mut [f32]) {
        shapes::norm(x, norm, out);
        let width = norm.width();
        split::rows(&self.pool, out, (width, ALONE), |rows, out| {
            self.level.run(rows::Normalize { x: &x[rows.start * width..rows.end * width], norm, out });
        });
    }

    fn norm_rope(&self, x: &mut [f32], place: Place, norm: Option<Norm<'_>>, angles: Angles<'_>) {
        shapes::norm_rope(x, place, norm, angles);
        split::rows(&self.pool, x, (place.stride, ALONE), |rows, x| {
            let angles = angles.rows(rows);
            self.level.run(rows::NormRope { x, place, norm, angles });
        });
    }

    fn kv_write(&self, qkv: Fused<'_>, batch: &Ragged, (kv, layer): (&mut KvArena, usize)) {
        shapes::kv_write(qkv, batch, (kv, layer));
        kv_write::kv_write(qkv, batch, (kv, layer), &self.pool);
    }

    fn attend(&self, qkv: Fused<'_>, batch: &Ragged, kv: (&KvArena, usize), out: &mut [f32]) {
        shapes::attend(qkv, batch, kv, out);
        let workspace = &mut self.scratch().attention;
        attention::attend((qkv, batch), kv, (self.level, &self.pool), workspace, out);
    }

    fn attend_all(&self, queries: Queries<'_>, batch: &Ragged, kv: (&KvArena, usize), out: &mut [f32]) {
        shapes::attend_all(queries, batch, kv, out);
        let workspace = &mut self.scratch().attention;
        attention::attend_all((queries, batch), kv, (self.level, &self.pool), workspace, out);
    }

    fn attend_segments(&self, qkv: Fused<'_>, segments: &[usize], dtype: Dtype, out: &mut [f32]) {
        shapes::attend_segments(qkv, segments, out);
        let workspace = &mut self.scratch().attention;
        attention::attend_segments((qkv, segments, dtype), (self.level, &self.pool), workspace, out);
    }

    fn mean_pool_normalize(&self, x: &[f32], width: usize, segments: &[usize], out: &mut [f32]) {
        shapes::mean_pool(x, width, segments, out);
        // Reading the rows is the work, so they decide whether it is worth a second thread.
        let alone = ALONE * segments.len() / (x.len() / width).max(1);
        split::rows(&self.pool, out, (width, alone), |rows, out| {
            let first = segments[..rows.start].iter().sum::<usize>() * width;
            self.level.run(rows::MeanPool { x: &x[first..], width, segments: &segments[rows], out });
        });
    }

    fn log_sum_exp(&self, logits: &[f32], width: usize, out: &mut [f32]) {
        shapes::log_sum_exp(logits, width, out);
        split::rows(&self.pool, out, (1, ALONE / width), |rows, out| {
            let logits = &logits[rows.start * width..rows.end * width];
            self.level.run(rows::LogSumExp { logits, width, out });
        });
    }
}
