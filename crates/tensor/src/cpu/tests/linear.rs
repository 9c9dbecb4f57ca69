//! Linear layers.

use half::bf16;
use proptest::prelude::*;

use super::{all, near, noise, same_bits};
use crate::reference::Reference;
use crate::stored::TensorView;
use crate::{Activation, Dtype, Epilogue, Kernels, Linear, Packer, Scheme, Write};

fn layer(inputs: usize, outputs: usize, dtype: Dtype) -> Linear {
    let mut packer = Packer::new(inputs, outputs, dtype).unwrap();
    packer.rows(0, &TensorView::from_f32(&[outputs, inputs], &noise(inputs * outputs, 1)));
    if outputs % 2 == 1 {
        packer.bias(0, &TensorView::from_f32(&[outputs], &noise(outputs, 2)));
    }
    packer.finish()
}

fn epilogue() -> impl Strategy<Value = Epilogue> {
    use Activation::{GeluErf, GeluTanh, None, Silu};
    let activation = prop::sample::select(vec![None, GeluTanh, GeluErf, Silu]);
    let write = prop::sample::select(vec![Write::Replace, Write::Add]);
    (activation, write).prop_map(|(activation, write)| Epilogue { activation, write })
}

fn dtype() -> impl Strategy<Value = Dtype> {
    prop::sample::select(vec![Dtype::F32, Dtype::Bf16])
}

fn scheme() -> impl Strategy<Value = Option<Scheme>> {
    prop::sample::select(vec![None, Some(Scheme::INT8), Some(Scheme::INT4)])
}

/// Shapes on all sides of the sizes of registers, blocks, tiles and panels, and of going to the pool.
fn shape() -> impl Strategy<Value = (usize, usize, usize)> {
    let small = (1usize..40, 1usize..100, 1usize..150);
    let large = (1usize..70, 60usize..300, 100usize..330);
    prop_oneof![3 => small, 1 => large]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn near_the_reference_and_each_row_alone(
        (rows, inputs, outputs) in shape(), dtype in dtype(), epilogue in epilogue(),
    ) {
        let layer = layer(inputs, outputs, dtype);
        let x = noise(rows * inputs, 3);
        let before = noise(rows * outputs, 4);
        let mut expected = before.clone();
        Reference.linear(&x, &layer, epilogue, &mut expected);
        for cpu in all() {
            let mut found = before.clone();
            cpu.linear(&x, &layer, epilogue, &mut found);
            near(cpu, &found, &expected, 2e-5);
            for (row, found) in found.chunks(outputs).enumerate() {
                let mut alone = before[row * outputs..(row + 1) * outputs].to_vec();
                cpu.linear(&x[row * inputs..(row + 1) * inputs], &layer, epilogue, &mut alone);
                same_bits(cpu, found, &alone);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn gates_and_what_they_are_for_meet(
        (rows, inputs, width) in shape(), dtype in dtype(), scheme in scheme(), biased: bool,
    ) {
        let packer = || match scheme {
            None => Packer::new(inputs, 2 * width, dtype),
            Some(scheme) => Packer::quantising((inputs, 2 * width), scheme, dtype),
        };
        let stored = TensorView::from_f32(&[2 * width, inputs], &noise(2 * width * inputs, 1));
        let bias = TensorView::from_f32(&[2 * width], &noise(2 * width, 2));
        let filled = |mut packer: Packer| {
            packer.rows(0, &stored);
            if biased {
                packer.bias(0, &bias);
            }
            packer.finish()
        };
        let (gates, stacked) = (filled(packer().unwrap().gated()), filled(packer().unwrap()));
        let x = noise(rows * inputs, 3);
        let mut expected = vec![0.0; rows * width];
        Reference.gated(&x, &gates, &mut expected);
        let mut both = vec![0.0; rows * 2 * width];
        Reference.linear(&x, &stacked, Epilogue::default(), &mut both);
        for (both, expected) in both.chunks(2 * width).zip(expected.chunks(width)) {
            for (i, &expected) in expected.iter().enumerate() {
                assert_eq!(expected, both[i] / (1.0 + (-both[i]).exp()) * both[width + i]);
            }
        }
        for cpu in all() {
            let mut found = vec![0.0; rows * width];
            cpu.gated(&x, &gates, &mut found);
            near(cpu, &found, &expected, 1e-4);
            for (x, found) in x.chunks(inputs).zip(found.chunks(width)) {
                let mut alone = vec![0.0; width];
                cpu.gated(x, &gates, &mut alone);
                same_bits(cpu, found, &alone);
            }
        }
    }
}

#[test]
fn threads_do_not_change_bits() {
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let layer = layer(500, 401, dtype);
        let x = noise(9 * 500, 5);
        for pair in all().chunks(2) {
            let [one, two] = [0, 1].map(|i| {
                let mut out = vec![0.0; 9 * 401];
                pair[i].linear(&x, &layer, Epilogue::default(), &mut out);
                out
            });
            same_bits(&pair[1], &two, &one);
        }
    }
}

#[test]
fn activations_are_accurate_over_their_whole_range() {
    let mut packer = Packer::new(1, 1, Dtype::F32).unwrap();
    packer.rows(0, &TensorView::from_f32(&[1, 1], &[1.0]));
    let identity = packer.finish();
    let x: Vec<f32> = (-3000..=3000).map(|i| i as f32 * 0.01).collect();
    // One and the error function cancel out to the left, which leaves their roundings.
    for (activation, most) in
        [(Activation::Silu, 5e-7), (Activation::GeluTanh, 5e-7), (Activation::GeluErf, 1e-6)]
    {
        let epilogue = Epilogue { activation, write: Write::Replace };
        let mut expected = vec![0.0; x.len()];
        Reference.linear(&x, &identity, epilogue, &mut expected);
        for cpu in all() {
            let mut found = vec![0.0; x.len()];
            cpu.linear(&x, &identity, epilogue, &mut found);
            near(cpu, &found, &expected, most);
        }
    }
}

#[test]
fn what_is_not_a_number_stays_in_its_row() {
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let layer = layer(70, 67, dtype);
        let mut x = noise(3 * 70, 6);
        x[70 + 5] = f32::NAN;
        x[2 * 70 + 69] = f32::INFINITY;
        for cpu in all() {
            let mut out = vec![0.0; 3 * 67];
            cpu.linear(&x, &layer, Epilogue::default(), &mut out);
            assert!(out[..67].iter().all(|y| y.is_finite()));
            assert!(out[67..2 * 67].iter().all(|y| y.is_nan()), "{}", cpu.describe());
            assert!(out[2 * 67..].iter().all(|y| y.is_infinite()), "{}", cpu.describe());
        }
    }
}

#[test]
fn no_rows_are_no_work() {
    for cpu in all() {
        cpu.linear(&[], &layer(5, 7, Dtype::Bf16), Epilogue::default(), &mut []);
    }
}

#[test]
fn activations_are_rounded_to_nearest_and_ties_to_even() {
    let mut packer = Packer::new(1, 1, Dtype::Bf16).unwrap();
    packer.rows(0, &TensorView::from_f32(&[1, 1], &[1.0]));
    let identity = packer.finish();
    // Every pattern of the bits that are cut off that matters, below and above an even and an odd last bit.
    let cut = [0x0000, 0x0001, 0x7fff, 0x8000, 0x8001, 0xffff];
    let kept = [0x3f80, 0x3f81, 0xbf80, 0xc2ff, 0x7f7f, 0x0100];
    let x: Vec<f32> =
        kept.iter().flat_map(|&k| cut.iter().map(move |&c| f32::from_bits(k << 16 | c))).collect();
    let rounded: Vec<f32> = x.iter().map(|&x| bf16::from_f32(x).to_f32()).collect();
    for cpu in all() {
        let mut found = vec![0.0; x.len()];
        cpu.linear(&x, &identity, Epilogue::default(), &mut found);
        same_bits(cpu, &found, &rounded);
        cpu.linear(&[f32::from_bits(0x7f80_0001)], &identity, Epilogue::default(), &mut found[..1]);
        assert!(found[0].is_nan(), "{}", cpu.describe());
    }
}
