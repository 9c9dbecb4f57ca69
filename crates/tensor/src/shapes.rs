//! The shapes that every implementation of [`crate::Kernels`] demands, checked once per call.

use crate::kernels::{Heads, Place, Queries, Tap};
use crate::stored::TensorView;
use crate::{Angles, Fused, KvArena, Linear, Norm, PAGE_TOKENS, Ragged};

/// The width of a row of the table.
pub(crate) fn embed(table: &TensorView, ids: &[u32], out: &[f32]) -> usize {
    let [vocabulary, width] = *table.shape() else { panic!("a matrix, not {:?}", table.shape()) };
    assert_eq!(out.len(), ids.len() * width, "an embedding of {} ids, {width} wide", ids.len());
    assert!(ids.iter().all(|&id| (id as usize) < vocabulary), "ids are below {vocabulary}");
    width
}

pub(crate) fn interpolate(table: &[f32], width: usize, taps: &[[Tap; 4]], out: &[f32]) {
    let entries = rows(table, width);
    assert_eq!(out.len(), taps.len() * width, "{} rows, {width} wide", taps.len());
    assert!(taps.iter().flatten().all(|tap| (tap.row as usize) < entries), "rows are below {entries}");
}

/// The number of rows.
pub(crate) fn linear(x: &[f32], weight: &Linear, out: &[f32]) -> usize {
    let (inputs, outputs) = (weight.inputs(), weight.outputs());
    let rows = rows(x, inputs);
    assert!(!weight.is_gated(), "gates are finished together with what they are for");
    assert_eq!(out.len(), rows * outputs, "{rows} rows of {outputs} outputs");
    rows
}

/// The number of rows.
pub(crate) fn gated(x: &[f32], weight: &Linear, out: &[f32]) -> usize {
    let (inputs, outputs) = (weight.inputs(), weight.outputs() / 2);
    let rows = rows(x, inputs);
    assert!(weight.is_gated(), "a layer of gates and what they are for");
    assert_eq!(out.len(), rows * outputs, "{rows} rows of {outputs} outputs");
    rows
}

pub(crate) fn norm(x: &[f32], norm: Norm<'_>, out: &[f32]) {
    assert_eq!(x.len(), out.len(), "as many elements out as in");
    norm_width(norm);
    rows(x, norm.width());
}

/// The number of rows.
pub(crate) fn norm_rope(x: &[f32], place: Place, norm: Option<Norm<'_>>, angles: Angles<'_>) -> usize {
    let rows = rows(x, place.stride);
    assert!(place.offset + place.heads * place.dim <= place.stride, "{place:?} stays in its row");
    assert!(2 * angles.half <= place.dim, "twice {} angles in a head of {}", angles.half, place.dim);
    assert_eq!(angles.cos.len(), rows * angles.half, "cosines of {rows} rows");
    assert_eq!(angles.sin.len(), rows * angles.half, "sines of {rows} rows");
    if let Some(norm) = norm {
        norm_width(norm);
        assert_eq!(norm.width(), place.dim, "the norm is as wide as a head");
    }
    rows
}

pub(crate) fn kv_write(Fused { rows, heads }: Fused<'_>, batch: &Ragged, kv: (&KvArena, usize)) {
    assert_eq!(rows.len(), batch.rows() * heads.fused(), "a fused product of {} rows", batch.rows());
    pages(heads, batch, kv);
}

fn pages(heads: Heads, batch: &Ragged, kv: (&KvArena, usize)) {
    let layout = kv.0.layout();
    assert_eq!((layout.heads, layout.dim), (heads.kv, heads.dim), "pages are made for these heads");
    assert!(kv.1 < layout.layers, "layer {} of {}", kv.1, layout.layers);
    for span in &batch.spans {
        let needed = (span.context + span.rows).div_ceil(PAGE_TOKENS);
        assert!(span.pages.len() >= needed && span.pages.end <= batch.pages.len(), "{span:?} has its pages");
    }
    assert!(
        batch.pages.iter().all(|&page| (page as usize) < kv.0.pages()),
        "pages are below {}",
        kv.0.pages()
    );
}

pub(crate) fn attend(qkv: Fused<'_>, batch: &Ragged, kv: (&KvArena, usize), out: &[f32]) {
    kv_write(qkv, batch, kv);
    query_rows(qkv.heads, batch.rows(), out);
}

pub(crate) fn attend_all(queries: Queries<'_>, batch: &Ragged, kv: (&KvArena, usize), out: &[f32]) {
    pages(queries.heads, batch, kv);
    query_rows(queries.heads, batch.rows(), queries.rows);
    query_rows(queries.heads, batch.rows(), out);
}

pub(crate) fn attend_segments(qkv: Fused<'_>, segments: &[usize], out: &[f32]) {
    let rows = segments.iter().sum::<usize>();
    assert_eq!(qkv.rows.len(), rows * qkv.heads.fused(), "a fused product of {rows} rows");
    query_rows(qkv.heads, rows, out);
}

pub(crate) fn mean_pool(x: &[f32], width: usize, segments: &[usize], out: &[f32]) {
    assert_eq!(x.len(), segments.iter().sum::<usize>() * width, "segments cover the rows");
    assert_eq!(out.len(), segments.len() * width, "one row out per segment");
}

pub(crate) fn log_sum_exp(logits: &[f32], width: usize, out: &[f32]) {
    assert_eq!(rows(logits, width), out.len(), "one value out per row");
}

fn query_rows(heads: Heads, rows: usize, out: &[f32]) {
    assert!(heads.kv > 0 && heads.query.is_multiple_of(heads.kv), "{heads:?} divide evenly");
    assert_eq!(out.len(), rows * heads.query * heads.dim, "{rows} rows of query heads");
}

fn norm_width(norm: Norm<'_>) {
    if let Norm::Layer { weight, bias, .. } = norm {
        assert_eq!(weight.len(), bias.len(), "one shift per scale");
    }
}

fn rows(x: &[f32], width: usize) -> usize {
    assert!(width > 0 && x.len().is_multiple_of(width), "{} elements in rows of {width}", x.len());
    x.len() / width
}
