//! Attention, one query at a time.

use crate::kernels::Heads;
use crate::kv::{KvElement, Plane};
use crate::{Fused, KvArena, PAGE_TOKENS, Ragged, Span};

/// Replaces scores by their softmax.
fn softmax(scores: &mut [f32]) {
    let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    scores.iter_mut().for_each(|score| *score = (*score - highest).exp());
    let sum: f32 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= sum);
}

/// Rows that begin with queries, as wide as `stride`, and how many tokens of its sequence each of them sees.
pub(super) struct Asked<'a, S> {
    pub(super) rows: &'a [f32],
    pub(super) stride: usize,
    pub(super) heads: Heads,
    pub(super) sees: S,
}

/// Attention against pages.
pub(super) fn paged<E: KvElement>(
    Asked { rows: queries, stride, heads, sees }: Asked<'_, impl Fn(&Span, usize) -> usize>,
    batch: &Ragged,
    (kv, layer): (&KvArena, usize),
    out: &mut [f32],
) {
    let dim = heads.dim;
    let mut scores = Vec::new();
    for span in &batch.spans {
        let pages = &batch.pages[span.pages.clone()];
        for row in 0..span.rows {
            let keys = sees(span, row);
            let row = span.first_row + row;
            for head in 0..heads.query {
                let kv_head = head / (heads.query / heads.kv);
                let held = |plane: &Plane, place: usize, token: usize| {
                    let scale =
                        kv.scales(plane).get(kv_head * PAGE_TOKENS + token).map_or(1.0, |scale| *scale);
                    kv.numbers::<E>(plane)[place].widened() * scale
                };
                let key = |t: usize, d: usize| {
                    let (keys, _) = kv.planes(pages[t / PAGE_TOKENS], layer);
                    let token = t % PAGE_TOKENS;
                    held(&keys, (kv_head * dim + d) * PAGE_TOKENS + token, token)
                };
                let value = |t: usize, d: usize| {
                    let (_, values) = kv.planes(pages[t / PAGE_TOKENS], layer);
                    let token = t % PAGE_TOKENS;
                    held(&values, (kv_head * PAGE_TOKENS + token) * dim + d, token)
                };
                scores.resize(keys, 0.0);
                let query = &queries[row * stride + head * dim..][..dim];
                let out = &mut out[(row * heads.query + head) * dim..][..dim];
                one_query(query, &mut scores, (key, value), out);
            }
        }
    }
}

/// Bidirectional attention inside each segment.
pub(super) fn segments(Fused { rows: qkv, heads }: Fused<'_>, segments: &[usize], out: &mut [f32]) {
    let (dim, fused) = (heads.dim, heads.fused());
    let mut scores = Vec::new();
    let mut first = 0;
    for &rows in segments {
        scores.resize(rows, 0.0);
        for row in first..first + rows {
            for head in 0..heads.query {
                let kv_head = head / (heads.query / heads.kv);
                let at = |t: usize, head: usize, d: usize| qkv[(first + t) * fused + head * dim + d];
                let key = |t, d| at(t, heads.query + kv_head, d);
                let value = |t, d| at(t, heads.query + heads.kv + kv_head, d);
                let query = &qkv[row * fused + head * dim..][..dim];
                let out = &mut out[(row * heads.query + head) * dim..][..dim];
                one_query(query, &mut scores, (key, value), out);
            }
        }
        first += rows;
    }
}

/// `softmax(q · K / √dim) · V` over `scores.len()` keys.
fn one_query(
    query: &[f32],
    scores: &mut [f32],
    (key, value): (impl Fn(usize, usize) -> f32, impl Fn(usize, usize) -> f32),
    out: &mut [f32],
) {
    let scale = 1.0 / (query.len() as f32).sqrt();
    for (t, score) in scores.iter_mut().enumerate() {
        let product = query.iter().enumerate().fold(0.0, |sum, (d, q)| sum + q * key(t, d));
        *score = product * scale;
    }
    softmax(scores);
    for (d, out) in out.iter_mut().enumerate() {
        *out = scores.iter().enumerate().fold(0.0, |sum, (t, p)| sum + p * value(t, d));
    }
}
