//! The meaning of every kernel: plain loops, one thread, sums in plain order, no tricks.

mod attention;
pub(crate) mod erf;
#[cfg(test)]
mod tests;

use half::bf16;

use self::erf::erf;
use crate::kernels::{Place, Queries, Tap};
use crate::kv::{KvElement, Plane};
use crate::packed::{Grouping, Step};
use crate::quantised::activation_scale;
use crate::stored::TensorView;
use crate::{
    Activation, Angles, Dtype, Epilogue, Fused, Kernels, KvArena, KvDtype, Linear, Norm, PAGE_TOKENS, Ragged,
    Span, Write, shapes,
};

/// The scalar kernels. Slow on purpose: they are what the others are tested against.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

impl Kernels for Reference {
    fn describe(&self) -> String {
        "scalar, 1 thread".to_owned()
    }

    fn embed(&self, table: &TensorView, ids: &[u32], out: &mut [f32]) {
        let width = shapes::embed(table, ids, out);
        for (&id, row) in ids.iter().zip(out.chunks_mut(width)) {
            table.row_into(id as usize, row);
        }
    }

    fn interpolate(&self, table: &[f32], width: usize, taps: &[[Tap; 4]], out: &mut [f32]) {
        shapes::interpolate(table, width, taps, out);
        for (taps, out) in taps.iter().zip(out.chunks_mut(width)) {
            for tap in taps {
                let row = &table[tap.row as usize * width..][..width];
                out.iter_mut().zip(row).for_each(|(sum, value)| *sum += tap.weight * value);
            }
        }
    }

    fn linear(&self, x: &[f32], weight: &Linear, epilogue: Epilogue, out: &mut [f32]) {
        let rows = shapes::linear(x, weight, out);
        multiply((x, rows), weight, |row, output, sum| {
            let y = activate(sum, epilogue.activation);
            let out = &mut out[row * weight.outputs() + output];
            match epilogue.write {
                Write::Replace => *out = y,
                Write::Add => *out += y,
            }
        });
    }

    fn gated(&self, x: &[f32], gate_up: &Linear, out: &mut [f32]) {
        let (rows, width) = (shapes::gated(x, gate_up, out), gate_up.outputs() / 2);
        let mut both = vec![0.0; rows * 2 * width];
        multiply((x, rows), gate_up, |row, output, sum| both[row * 2 * width + output] = sum);
        for (both, out) in both.chunks(2 * width).zip(out.chunks_mut(width)) {
            let (gate, up) = both.split_at(width);
            for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
                *out = silu(gate) * up;
            }
        }
    }

    fn norm(&self, x: &[f32], norm: Norm<'_>, out: &mut [f32]) {
        shapes::norm(x, norm, out);
        out.copy_from_slice(x);
        out.chunks_mut(norm.width()).for_each(|row| normalize(row, norm));
    }

    fn norm_rope(&self, x: &mut [f32], place: Place, norm: Option<Norm<'_>>, angles: Angles<'_>) {
        let rows = shapes::norm_rope(x, place, norm, angles);
        for row in 0..rows {
            let table = row * angles.half..(row + 1) * angles.half;
            let (cos, sin) = (&angles.cos[table.clone()], &angles.sin[table]);
            let first = row * place.stride + place.offset;
            for head in x[first..first + place.heads * place.dim].chunks_mut(place.dim) {
                if let Some(norm) = norm {
                    normalize(head, norm);
                }
                rotate(head, cos, sin);
            }
        }
    }

    fn kv_write(&self, qkv: Fused<'_>, batch: &Ragged, (kv, layer): (&mut KvArena, usize)) {
        shapes::kv_write(qkv, batch, (kv, layer));
        match kv.layout().dtype {
            KvDtype::F32 => write_keys_and_values::<f32>(qkv, batch, (kv, layer)),
            KvDtype::Bf16 => write_keys_and_values::<bf16>(qkv, batch, (kv, layer)),
            KvDtype::Int8 => write_keys_and_values::<i8>(qkv, batch, (kv, layer)),
        }
    }

    fn attend(&self, qkv: Fused<'_>, batch: &Ragged, kv: (&KvArena, usize), out: &mut [f32]) {
        shapes::attend(qkv, batch, kv, out);
        let sees = |span: &Span, row: usize| span.context + row + 1;
        let Fused { rows, heads } = qkv;
        let asked = attention::Asked { rows, stride: heads.fused(), heads, sees };
        match kv.0.layout().dtype {
            KvDtype::F32 => attention::paged::<f32>(asked, batch, kv, out),
            KvDtype::Bf16 => attention::paged::<bf16>(asked, batch, kv, out),
            KvDtype::Int8 => attention::paged::<i8>(asked, batch, kv, out),
        }
    }

    fn attend_all(&self, queries: Queries<'_>, batch: &Ragged, kv: (&KvArena, usize), out: &mut [f32]) {
        shapes::attend_all(queries, batch, kv, out);
        let sees = |span: &Span, _: usize| span.context + span.rows;
        let Queries { rows, heads } = queries;
        let asked = attention::Asked { rows, stride: heads.query * heads.dim, heads, sees };
        match kv.0.layout().dtype {
            KvDtype::F32 => attention::paged::<f32>(asked, batch, kv, out),
            KvDtype::Bf16 => attention::paged::<bf16>(asked, batch, kv, out),
            KvDtype::Int8 => attention::paged::<i8>(asked, batch, kv, out),
        }
    }

    fn attend_segments(&self, qkv: Fused<'_>, segments: &[usize], _: Dtype, out: &mut [f32]) {
        shapes::attend_segments(qkv, segments, out);
        attention::segments(qkv, segments, out);
    }

    fn mean_pool_normalize(&self, x: &[f32], width: usize, segments: &[usize], out: &mut [f32]) {
        shapes::mean_pool(x, width, segments, out);
        let mut first = 0;
        for (&rows, out) in segments.iter().zip(out.chunks_mut(width)) {
            out.fill(0.0);
            for row in x[first * width..(first + rows) * width].chunks(width) {
                out.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
            out.iter_mut().for_each(|sum| *sum /= rows.max(1) as f32);
            let length = dot(out, out).sqrt().max(1e-12);
            out.iter_mut().for_each(|mean| *mean /= length);
            first += rows;
        }
    }

    fn log_sum_exp(&self, logits: &[f32], width: usize, out: &mut [f32]) {
        shapes::log_sum_exp(logits, width, out);
        for (row, out) in logits.chunks(width).zip(out) {
            let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            *out = highest + row.iter().map(|logit| (logit - highest).exp()).sum::<f32>().ln();
        }
    }
}

/// The products of rows with a layer and their biases: `each(row, output, sum)`.
fn multiply((x, rows): (&[f32], usize), weight: &Linear, mut each: impl FnMut(usize, usize, f32)) {
    let x: Vec<f32> = match (weight.dtype(), weight.grouping()) {
        (Dtype::F32, _) => x.to_vec(),
        (_, None) => x.iter().map(|&value| bf16::from_f32(value).to_f32()).collect(),
        (_, Some(grouping)) => x.chunks(grouping.inputs).flat_map(|row| rounded(row, grouping)).collect(),
    };
    let mut weights = vec![0.0; weight.inputs()];
    for strip in weight.strips() {
        for output in strip.outputs() {
            strip.row_into(output, &mut weights);
            for row in 0..rows {
                let x = &x[row * weight.inputs()..(row + 1) * weight.inputs()];
                each(row, output, dot(x, &weights) + weight.bias(output));
            }
        }
    }
}

/// A row of activations rounded to whole numbers of a scale for each step of inputs.
fn rounded(row: &[f32], grouping: Grouping) -> Vec<f32> {
    let mut rounded = Vec::with_capacity(row.len());
    for number in 0..grouping.steps() {
        let Step { first, inputs } = grouping.step(number);
        let x = &row[first..(first + inputs).min(row.len())];
        let (scale, inverse) = activation_scale(x.iter().fold(0.0, |largest, x| x.abs().max(largest)));
        // A number that is none makes none of the whole step.
        let scale = scale + x.iter().map(|x| x * 0.0).sum::<f32>();
        rounded.extend(x.iter().map(|x| scale * (x * inverse).round_ties_even()));
    }
    rounded
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).fold(0.0, |sum, (a, b)| sum + a * b)
}

/// The point-wise function of a linear layer's epilogue.
fn activate(x: f32, activation: Activation) -> f32 {
    match activation {
        Activation::None => x,
        Activation::GeluTanh => {
            let inner = (2.0 / std::f32::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::GeluErf => {
            let x = f64::from(x);
            (0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2))) as f32
        }
        Activation::Silu => silu(x),
    }
}

fn silu(x: f32) -> f32 {
    x / (1.0 + (-x).exp())
}

fn normalize(row: &mut [f32], norm: Norm<'_>) {
    let count = row.len() as f32;
    match norm {
        Norm::Rms { weight, eps } => {
            let scale = 1.0 / (dot(row, row) / count + eps).sqrt();
            row.iter_mut().zip(weight).for_each(|(x, weight)| *x = *x * scale * weight);
        }
        Norm::Layer { weight, bias, eps } => {
            let mean = row.iter().sum::<f32>() / count;
            row.iter_mut().for_each(|x| *x -= mean);
            let scale = 1.0 / (dot(row, row) / count + eps).sqrt();
            for ((x, weight), bias) in row.iter_mut().zip(weight).zip(bias) {
                *x = *x * scale * weight + bias;
            }
        }
    }
}

fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let half = cos.len();
    for i in 0..half {
        let (x, y) = (head[i], head[i + half]);
        head[i] = x * cos[i] - y * sin[i];
        head[i + half] = y * cos[i] + x * sin[i];
    }
}

fn write_keys_and_values<E: KvElement>(
    Fused { rows, heads }: Fused<'_>,
    batch: &Ragged,
    (kv, layer): (&mut KvArena, usize),
) {
    let dim = heads.dim;
    for span in &batch.spans {
        for row in 0..span.rows {
            let fused = &rows[(span.first_row + row) * heads.fused()..][..heads.fused()];
            let (keys, values) = fused[heads.query * dim..].split_at(heads.kv * dim);
            let position = span.context + row;
            let token = position % PAGE_TOKENS;
            let (key_plane, value_plane) =
                kv.planes(batch.pages[span.pages.start + position / PAGE_TOKENS], layer);
            for head in 0..heads.kv {
                let place = |d: usize| (head * dim + d) * PAGE_TOKENS + token;
                hold::<E>(&keys[head * dim..][..dim], (kv, &key_plane), (head, token), place);
                let place = |d: usize| (head * PAGE_TOKENS + token) * dim + d;
                hold::<E>(&values[head * dim..][..dim], (kv, &value_plane), (head, token), place);
            }
        }
    }
}

/// Writes one head of a token into a plane, coordinate `d` at `place(d)`.
fn hold<E: KvElement>(
    row: &[f32],
    (kv, plane): (&mut KvArena, &Plane),
    (head, token): (usize, usize),
    place: impl Fn(usize) -> usize,
) {
    let scale = E::scale(row);
    let numbers: &mut [E] = bytemuck::cast_slice_mut(&mut kv.bytes_mut()[plane.numbers.clone()]);
    for (d, &value) in row.iter().enumerate() {
        numbers[place(d)] = E::hold(value, 1.0 / scale);
    }
    let scales: &mut [f32] = bytemuck::cast_slice_mut(&mut kv.bytes_mut()[plane.scales.clone()]);
    if E::SCALED {
        scales[head * PAGE_TOKENS + token] = scale;
    }
}
