//! Operations that turn a row into a row.

use proptest::prelude::*;

use super::{all, near, noise, same_bits};
use crate::kernels::{Place, Tap};
use crate::reference::Reference;
use crate::stored::TensorView;
use crate::{Angles, Kernels, Norm};

/// The two norms of a width.
fn norms<'a>(weight: &'a [f32], bias: &'a [f32]) -> [Norm<'a>; 2] {
    [Norm::Rms { weight, eps: 1e-6 }, Norm::Layer { weight, bias, eps: 1e-5 }]
}

/// Few rows of any width, or enough to go to the pool.
fn rows_and_width() -> impl Strategy<Value = (usize, usize)> {
    prop_oneof![3 => (1usize..6, 1usize..200), 1 => (20usize..40, 500usize..1100)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn interpolate((rows, width) in rows_and_width()) {
        let (table, before, weights) = (noise(9 * width, 1), noise(rows * width, 2), noise(4 * rows, 3));
        let tap = |i: usize| Tap { row: (i * 5 % 9) as u32, weight: weights[i] };
        let taps: Vec<[Tap; 4]> = (0..rows).map(|row| std::array::from_fn(|i| tap(4 * row + i))).collect();
        let mut expected = before.clone();
        Reference.interpolate(&table, width, &taps, &mut expected);
        for cpu in all() {
            let mut found = before.clone();
            cpu.interpolate(&table, width, &taps, &mut found);
            near(cpu, &found, &expected, 1e-5);
            let mut last = before[(rows - 1) * width..].to_vec();
            cpu.interpolate(&table, width, &taps[rows - 1..], &mut last);
            same_bits(cpu, &found[(rows - 1) * width..], &last);
        }
    }

    #[test]
    fn norm((rows, width) in rows_and_width()) {
        let (weight, bias, x) = (noise(width, 1), noise(width, 2), noise(rows * width, 3));
        for norm in norms(&weight, &bias) {
            let mut expected = vec![0.0; x.len()];
            Reference.norm(&x, norm, &mut expected);
            for cpu in all() {
                let mut found = vec![0.0; x.len()];
                cpu.norm(&x, norm, &mut found);
                near(cpu, &found, &expected, 1e-5);
                for (x, found) in x.chunks(width).zip(found.chunks(width)) {
                    let mut alone = vec![0.0; width];
                    cpu.norm(x, norm, &mut alone);
                    same_bits(cpu, found, &alone);
                }
            }
        }
    }

    #[test]
    fn norm_rope(
        rows in 1usize..12, heads in 1usize..20, dim in 2usize..140, (offset, rest) in (0usize..40, 0usize..40),
    ) {
        let place = Place { stride: offset + heads * dim + rest, offset, heads, dim };
        let (weight, bias, x) = (noise(dim, 1), noise(dim, 2), noise(rows * place.stride, 3));
        for half in [0, dim / 3, dim / 2] {
            let (cos, sin) = (noise(rows * half, 4), noise(rows * half, 5));
            let angles = Angles { cos: &cos, sin: &sin, half };
            for norm in [None].into_iter().chain(norms(&weight, &bias).map(Some)) {
                let mut expected = x.clone();
                Reference.norm_rope(&mut expected, place, norm, angles);
                for cpu in all() {
                    let mut found = x.clone();
                    cpu.norm_rope(&mut found, place, norm, angles);
                    near(cpu, &found, &expected, 1e-5);
                    for row in 0..rows {
                        let mut alone = x[row * place.stride..(row + 1) * place.stride].to_vec();
                        cpu.norm_rope(&mut alone, place, norm, angles.rows(row..row + 1));
                        same_bits(cpu, &found[row * place.stride..(row + 1) * place.stride], &alone);
                    }
                }
            }
        }
    }

    #[test]
    fn mean_pool_normalize(segments in prop::collection::vec(0usize..30, 1..12), width in 1usize..150) {
        let x = noise(segments.iter().sum::<usize>() * width, 1);
        let mut expected = vec![0.0; segments.len() * width];
        Reference.mean_pool_normalize(&x, width, &segments, &mut expected);
        for cpu in all() {
            let mut found = vec![0.0; segments.len() * width];
            cpu.mean_pool_normalize(&x, width, &segments, &mut found);
            near(cpu, &found, &expected, 1e-5);
            let (&last, first) = segments.split_last().unwrap();
            let behind = &x[first.iter().sum::<usize>() * width..];
            let mut alone = vec![0.0; width];
            cpu.mean_pool_normalize(behind, width, &[last], &mut alone);
            same_bits(cpu, &found[first.len() * width..], &alone);
        }
    }

    #[test]
    fn log_sum_exp((rows, width) in rows_and_width(), spread in 0.1f32..100.0) {
        let x: Vec<f32> = noise(rows * width, 1).into_iter().map(|x| x * spread).collect();
        let mut expected = vec![0.0; rows];
        Reference.log_sum_exp(&x, width, &mut expected);
        for cpu in all() {
            let mut found = vec![0.0; rows];
            cpu.log_sum_exp(&x, width, &mut found);
            near(cpu, &found, &expected, 1e-5);
            let mut last = [0.0];
            cpu.log_sum_exp(&x[(rows - 1) * width..], width, &mut last);
            same_bits(cpu, &found[rows - 1..], &last);
        }
    }
}

#[test]
fn embeddings_are_widened_rows() {
    let (vocabulary, width) = (50, 600);
    let values = noise(vocabulary * width, 1);
    let shape = [vocabulary, width];
    let ids: Vec<u32> = (0..60).map(|i| i * 7 % 50).collect();
    for table in [
        TensorView::from_f32(&shape, &values),
        TensorView::from_bf16(&shape, &values),
        TensorView::from_f16(&shape, &values),
    ] {
        let all_rows = table.to_f32();
        for cpu in all() {
            let mut found = vec![0.0; ids.len() * width];
            cpu.embed(&table, &ids, &mut found);
            for (&id, found) in ids.iter().zip(found.chunks(width)) {
                same_bits(cpu, found, &all_rows[id as usize * width..][..width]);
            }
        }
    }
}

#[test]
fn log_sum_exp_of_scores_that_are_ruled_out() {
    for cpu in all() {
        let mut out = [0.0];
        cpu.log_sum_exp(&[f32::NEG_INFINITY, 3.0, f32::NEG_INFINITY], 3, &mut out);
        near(cpu, &out, &[3.0], 1e-6);
    }
}
