//! The reference against results worked out by hand or by a second, slower road.

use super::*;
use crate::kernels::Heads;
use crate::{Dtype, KvDtype, KvLayout, Packer};

const HEADS: Heads = Heads { query: 2, kv: 1, dim: 2 };

fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
    }
}

fn layer(dtype: Dtype) -> Linear {
    let mut packer = Packer::new(2, 3, dtype).unwrap();
    packer.rows(0, &TensorView::from_f32(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    packer.bias(0, &TensorView::from_f32(&[3], &[0.0, 0.5, -100.0]));
    packer.finish()
}

#[test]
fn linear_adds_bias_activates_and_writes() {
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let layer = layer(dtype);
        let mut out = [0.0; 6];
        Reference.linear(&[1.0, 1.0, 0.5, 0.0], &layer, Epilogue::default(), &mut out);
        close(&out, &[3.0, 7.5, -89.0, 0.5, 2.0, -97.5]);
        let epilogue = Epilogue { activation: Activation::Silu, write: Write::Add };
        Reference.linear(&[1.0, 1.0, 0.5, 0.0], &layer, epilogue, &mut out);
        let silu = |x: f32| x / (1.0 + (-x).exp());
        close(&out, &[3.0 + silu(3.0), 7.5 + silu(7.5), -89.0, 0.5 + silu(0.5), 2.0 + silu(2.0), -97.5]);
    }
}

#[test]
fn bf16_weights_round_the_activations() {
    let mut out = [0.0; 3];
    Reference.linear(&[1.001, 0.0], &layer(Dtype::Bf16), Epilogue::default(), &mut out);
    close(&out, &[1.0, 3.5, -95.0]);
}

#[test]
fn gelu_is_the_published_one() {
    // torch.nn.functional.gelu(1.5), and the same with approximate="tanh".
    close(&[activate(1.5, Activation::GeluErf)], &[1.399_789_2]);
    close(&[activate(1.5, Activation::GeluTanh)], &[1.399_571_7]);
    close(&[activate(-1.5, Activation::GeluErf)], &[-0.100_210_8]);
}

#[test]
fn norms() {
    let mut out = [0.0; 2];
    Reference.norm(&[3.0, 4.0], Norm::Rms { weight: &[1.0, 2.0], eps: 0.0 }, &mut out);
    let root = 12.5f32.sqrt();
    close(&out, &[3.0 / root, 8.0 / root]);
    Reference.norm(&[3.0, 5.0], Norm::Layer { weight: &[1.0, 2.0], bias: &[0.5, 0.0], eps: 0.0 }, &mut out);
    close(&out, &[-0.5, 2.0]);
}

#[test]
fn rope_rotates_the_heads_of_its_place_and_nothing_else() {
    let mut x = [9.0, 1.0, 0.0, 0.0, 2.0, 9.0];
    let place = Place { stride: 6, offset: 1, heads: 2, dim: 2 };
    Reference.norm_rope(&mut x, place, None, Angles { cos: &[0.0], sin: &[1.0], half: 1 });
    close(&x, &[9.0, 0.0, 1.0, -2.0, 0.0, 9.0]);
}

#[test]
fn pooling_and_log_sum_exp() {
    let mut out = [0.0; 4];
    Reference.mean_pool_normalize(&[1.0, 0.0, 5.0, 8.0, 0.0, 0.0], 2, &[2, 1], &mut out);
    close(&out, &[0.6, 0.8, 0.0, 0.0]);
    let mut out = [0.0; 1];
    Reference.log_sum_exp(&[100.0, 100.0], 2, &mut out);
    close(&out, &[100.0 + 2f32.ln()]);
}

/// Row `i`'s fused `[q | k | v]`.
fn qkv(rows: std::ops::Range<usize>) -> Vec<f32> {
    rows.flat_map(|row| (0..HEADS.fused()).map(move |i| ((row * 31 + i * 17) % 23) as f32 / 11.0 - 1.0))
        .collect()
}

#[test]
fn causal_attention_of_the_last_row_is_attention_over_the_segment() {
    let rows = 70;
    let layout = KvLayout { layers: 2, heads: 1, dim: 2, dtype: KvDtype::F32 };
    let mut kv = KvArena::new(layout, 5).unwrap();
    let (pages, layer) = ([4, 0, 2], 1);
    let mut found = Vec::new();
    for (context, chunk) in [(0, 40), (40, 29), (69, 1)] {
        let mut batch = Ragged::default();
        batch.push(context, chunk, &pages);
        let rows = qkv(context..context + chunk);
        let qkv = Fused { rows: &rows, heads: HEADS };
        Reference.kv_write(qkv, &batch, (&mut kv, layer));
        let mut out = vec![0.0; chunk * 4];
        Reference.attend(qkv, &batch, (&kv, layer), &mut out);
        found.extend(out);
    }
    for last in [0, 31, 32, 69] {
        let mut all = vec![0.0; (last + 1) * 4];
        let qkv = Fused { rows: &qkv(0..last + 1), heads: HEADS };
        Reference.attend_segments(qkv, &[last + 1], Dtype::F32, &mut all);
        assert_eq!(found[last * 4..(last + 1) * 4], all[last * 4..]);
    }
    assert_eq!(found.len(), rows * 4);
}

#[test]
fn attention_to_all_is_attention_inside_of_a_segment() {
    let (rows, pages) = (45, [1, 0]);
    let layout = KvLayout { layers: 1, heads: 1, dim: 2, dtype: KvDtype::F32 };
    let (mut kv, fused) = (KvArena::new(layout, 2).unwrap(), qkv(0..rows));
    let mut batch = Ragged::default();
    batch.push(0, rows, &pages);
    Reference.kv_write(Fused { rows: &fused, heads: HEADS }, &batch, (&mut kv, 0));
    let mut expected = vec![0.0; rows * 4];
    Reference.attend_segments(Fused { rows: &fused, heads: HEADS }, &[rows], Dtype::F32, &mut expected);
    let queries: Vec<f32> = fused.chunks(HEADS.fused()).flat_map(|row| &row[..4]).copied().collect();
    for part in [7..20, 0..45] {
        let mut batch = Ragged::default();
        batch.push(rows - part.len(), part.len(), &pages);
        let mut found = vec![0.0; part.len() * 4];
        let (queries, heads) = (&queries[part.start * 4..part.end * 4], HEADS);
        Reference.attend_all(Queries { rows: queries, heads }, &batch, (&kv, 0), &mut found);
        assert_eq!(found, expected[part.start * 4..part.end * 4]);
    }
}

#[test]
fn attention_weighs_values_by_softmax() {
    let heads = Heads { query: 1, kv: 1, dim: 1 };
    let mut out = [0.0; 2];
    // q = 1 and 0; k = 0 and ln 3; v = 4 and 8.
    let qkv = Fused { rows: &[1.0, 0.0, 4.0, 0.0, 3f32.ln(), 8.0], heads };
    Reference.attend_segments(qkv, &[2], Dtype::F32, &mut out);
    close(&out, &[7.0, 6.0]);
}
