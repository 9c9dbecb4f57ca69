//! Linear layers of quantised weights.

use proptest::prelude::*;

use super::{all, near, noise, same_bits};
use crate::reference::Reference;
use crate::stored::TensorView;
use crate::{Activation, Bits, Dtype, Epilogue, Kernels, Linear, Packer, Quantised, Scheme, Write};

/// How a layer comes to be.
#[derive(Clone, Copy, Debug)]
enum Made {
    /// Quantised as it is packed.
    Here(Scheme),
    /// Quantised by someone else, with offsets.
    Elsewhere(Scheme),
}

fn layer((inputs, outputs): (usize, usize), made: Made, dtype: Dtype) -> Linear {
    let mut packer = match made {
        Made::Here(scheme) => {
            let mut packer = Packer::quantising((inputs, outputs), scheme, dtype).unwrap();
            packer.rows(0, &TensorView::from_f32(&[outputs, inputs], &noise(inputs * outputs, 1)));
            packer
        }
        Made::Elsewhere(scheme) => {
            let matrix = with_offsets((inputs, outputs), scheme);
            let mut packer = Packer::of_quantised(outputs, &matrix, dtype).unwrap();
            packer.quantised(0, &matrix);
            packer
        }
    };
    if outputs % 2 == 1 {
        packer.bias(0, &TensorView::from_f32(&[outputs], &noise(outputs, 2)));
    }
    packer.finish()
}

/// A matrix with numbers over their whole range and offsets of the size of the weights.
fn with_offsets((inputs, outputs): (usize, usize), scheme: Scheme) -> Quantised {
    let (group, range) = (scheme.group_of(inputs), if scheme.bits == Bits::Four { 16.0 } else { 256.0 });
    let groups = outputs * inputs.div_ceil(group);
    let lowest = if scheme.bits == Bits::Four { 0.0 } else { -128.0 };
    let number = |x: f32| (((x + 1.0) / 2.0 * range).floor() + lowest) as i8;
    Quantised {
        rows: outputs,
        columns: inputs,
        bits: scheme.bits,
        group,
        q: noise(inputs * outputs, 7).into_iter().map(number).collect(),
        scales: noise(groups, 8).into_iter().map(|x| x / range).collect(),
        offsets: Some(noise(groups, 9)),
    }
}

fn made() -> impl Strategy<Value = Made> {
    let bits = prop::sample::select(vec![Bits::Four, Bits::Eight]);
    let group =
        prop::sample::select(vec![None, Some(16), Some(32), Some(48), Some(128), Some(144), Some(256)]);
    (bits, group, any::<bool>()).prop_map(|(bits, group, here)| {
        let scheme = Scheme { bits, group };
        if here { Made::Here(scheme) } else { Made::Elsewhere(scheme) }
    })
}

fn epilogue() -> impl Strategy<Value = Epilogue> {
    use Activation::{GeluTanh, None, Silu};
    let activation = prop::sample::select(vec![None, GeluTanh, Silu]);
    let write = prop::sample::select(vec![Write::Replace, Write::Add]);
    (activation, write).prop_map(|(activation, write)| Epilogue { activation, write })
}

/// Shapes on all sides of the sizes of words, groups, blocks of rows, panels, and of going to the pool.
fn shape() -> impl Strategy<Value = (usize, usize, usize)> {
    let small = (1usize..20, 1usize..100, 1usize..150);
    let large = (1usize..40, 100usize..400, 60usize..260);
    prop_oneof![3 => small, 1 => large]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn near_the_reference_and_each_row_alone(
        (rows, inputs, outputs) in shape(), made in made(), wide: bool, epilogue in epilogue(),
    ) {
        let layer = layer((inputs, outputs), made, if wide { Dtype::F32 } else { Dtype::Bf16 });
        let x = noise(rows * inputs, 3);
        let before = noise(rows * outputs, 4);
        let mut expected = before.clone();
        Reference.linear(&x, &layer, epilogue, &mut expected);
        for cpu in all() {
            let mut found = before.clone();
            cpu.linear(&x, &layer, epilogue, &mut found);
            near(cpu, &found, &expected, 5e-5);
            for (row, found) in found.chunks(outputs).enumerate() {
                let mut alone = before[row * outputs..(row + 1) * outputs].to_vec();
                cpu.linear(&x[row * inputs..(row + 1) * inputs], &layer, epilogue, &mut alone);
                same_bits(cpu, found, &alone);
            }
        }
    }
}

#[test]
fn a_large_layer_is_the_same_on_every_number_of_threads_and_rows() {
    for scheme in [Scheme::INT8, Scheme::INT4, Scheme::INT4_G128] {
        let layer = layer((3072, 1100), Made::Here(scheme), Dtype::Bf16);
        let x = noise(9 * 3072, 5);
        let mut expected = vec![0.0; 9 * 1100];
        Reference.linear(&x, &layer, Epilogue::default(), &mut expected);
        for pair in all().chunks(2) {
            let [one, two] = [0, 1].map(|i| {
                let mut out = vec![0.0; 9 * 1100];
                pair[i].linear(&x, &layer, Epilogue::default(), &mut out);
                out
            });
            same_bits(&pair[1], &two, &one);
            // Thousands of sums in another order are further apart than a few.
            near(&pair[0], &one, &expected, 3e-4);
            let mut last = vec![0.0; 1100];
            pair[1].linear(&x[8 * 3072..], &layer, Epilogue::default(), &mut last);
            same_bits(&pair[1], &last, &two[8 * 1100..]);
        }
    }
}

#[test]
fn whole_numbers_make_the_same_bits_on_every_instruction_set() {
    for scheme in [Scheme::INT8, Scheme::INT4] {
        let layer = layer((1000, 300), Made::Elsewhere(scheme), Dtype::Bf16);
        let x = noise(7 * 1000, 5);
        let outs = all().iter().map(|cpu| {
            let mut out = vec![0.0; 7 * 300];
            cpu.linear(&x, &layer, Epilogue::default(), &mut out);
            (cpu, out)
        });
        let outs: Vec<_> = outs.collect();
        outs.iter().for_each(|(cpu, out)| same_bits(cpu, out, &outs[0].1));
    }
}

#[test]
fn activations_are_whole_numbers_of_a_scale_for_each_step() {
    // One input of 127 units sets the scale, and the others are rounded to whole units, ties to even.
    let x = [127.0, 0.5, 1.5, -2.5, 3.4, -3.6, 0.0, 1e-33];
    let whole = [127.0, 0.0, 2.0, -2.0, 3.0, -4.0, 0.0, 0.0];
    let matrix = Quantised::from_f32(Scheme::INT8, &[1.0; 8], 8);
    let mut packer = Packer::of_quantised(1, &matrix, Dtype::Bf16).unwrap();
    packer.quantised(0, &matrix);
    let layer = packer.finish();
    for cpu in all() {
        for first in 1..8 {
            let mut out = [0.0];
            let mut only = [0.0; 8];
            (only[0], only[first]) = (x[0], x[first]);
            cpu.linear(&only, &layer, Epilogue::default(), &mut out);
            near(cpu, &out, &[whole[0] + whole[first]], 1e-6);
        }
        let mut out = [1.0];
        cpu.linear(&[1e-33; 8], &layer, Epilogue::default(), &mut out);
        assert_eq!(out, [0.0], "what is too small for a scale is zero");
    }
}

#[test]
fn every_number_is_read_as_it_is() {
    let check = |bits, lowest: i8, offsets: Option<Vec<f32>>| {
        let count = if bits == Bits::Four { 16 } else { 256 };
        // One output per number, in every place of a word by turns.
        let inputs = 8;
        let number = |output: usize| (output as i32 + i32::from(lowest)) as i8;
        let q = (0..count)
            .flat_map(|output| (0..inputs).map(move |i| if i == output % 8 { number(output) } else { 0 }));
        let matrix = Quantised {
            rows: count,
            columns: inputs,
            bits,
            group: inputs,
            q: q.collect(),
            scales: vec![0.5; count],
            offsets: offsets.clone(),
        };
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let mut packer = Packer::of_quantised(count, &matrix, dtype).unwrap();
            packer.quantised(0, &matrix);
            let layer = packer.finish();
            for cpu in all() {
                for rows in [1, 8] {
                    let mut out = vec![0.0; rows * count];
                    cpu.linear(&vec![1.0; rows * inputs], &layer, Epilogue::default(), &mut out);
                    for (at, &y) in out.iter().enumerate() {
                        let offset =
                            offsets.as_ref().map_or(0.0, |offsets| offsets[at % count]) * inputs as f32;
                        let expected = f32::from(number(at % count)) * 0.5 + offset;
                        match dtype {
                            Dtype::F32 => assert_eq!(y, expected, "{}", cpu.describe()),
                            // The activations are 127 times the 127th part of one.
                            _ => near(cpu, &[y], &[expected], 1e-6),
                        }
                    }
                }
            }
        }
    };
    check(Bits::Four, -8, None);
    check(Bits::Four, 0, Some((0..16).map(|i| i as f32).collect()));
    check(Bits::Eight, -128, None);
    check(Bits::Eight, -128, Some((0..256).map(|i| i as f32).collect()));
}

#[test]
fn what_is_not_a_number_stays_in_its_row() {
    for scheme in [Scheme::INT8, Scheme::INT4] {
        let layer = layer((70, 67), Made::Here(scheme), Dtype::Bf16);
        let mut x = noise(3 * 70, 6);
        x[70 + 5] = f32::NAN;
        for cpu in all() {
            let mut out = vec![0.0; 3 * 67];
            cpu.linear(&x, &layer, Epilogue::default(), &mut out);
            assert!(out[..67].iter().chain(&out[2 * 67..]).all(|y| y.is_finite()));
            assert!(out[67..2 * 67].iter().all(|y| y.is_nan()), "{}", cpu.describe());
            cpu.linear(&[], &layer, Epilogue::default(), &mut []);
        }
    }
}
