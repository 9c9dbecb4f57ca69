//! The whole road of a layer by tiles, on tiles in memory, and those against the machine's where it has them.

use std::sync::Arc;

use half::bf16;
use proptest::prelude::*;

use super::*;
use crate::cpu::dispatch::Level;
use crate::cpu::linear::round::Form;
use crate::cpu::linear::whole::Whole;
use crate::cpu::linear::{Call, Finish, Workspace, quantised, rounded};
use crate::cpu::split::{Claims, Disjoint};
use crate::cpu::tiles::{Hardware, Software, flushed};
use crate::reference::Reference;
use crate::stored::TensorView;
use crate::{Bits, Cpu, Dtype, Epilogue, Isa, Kernels, Linear, Packer, Pool, Scheme, Write};

fn noise(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i + 1) * (2 * seed + 1) * 7919 % 2003) as f32 / 1001.5 - 1.0).collect()
}

fn layer(inputs: usize, outputs: usize) -> Linear {
    fill(Packer::new(inputs, outputs, Dtype::Bf16).unwrap(), inputs, outputs)
}

fn quantised_layer(inputs: usize, outputs: usize, scheme: Scheme) -> Linear {
    fill(Packer::quantising((inputs, outputs), scheme, Dtype::Bf16).unwrap(), inputs, outputs)
}

fn fill(mut packer: Packer, inputs: usize, outputs: usize) -> Linear {
    packer.rows(0, &TensorView::from_f32(&[outputs, inputs], &noise(inputs * outputs, 1)));
    packer.bias(0, &TensorView::from_f32(&[outputs], &noise(outputs, 2)));
    packer.finish()
}

/// Words along the inputs that tiles are to be configured for.
fn words(layer: &Linear) -> usize {
    layer.grouping().map_or(SIDE, tile_words)
}

/// The layer's output by tiles in memory.
fn by_software(x: &[f32], layer: &Linear, epilogue: Epilogue) -> Option<Vec<f32>> {
    by_tiles(Software::new(words(layer)), x, layer, epilogue)
}

/// The layer's output by `tiles`, or nothing where the machine has no lanes for the epilogue.
fn by_tiles(tiles: impl Tiles, x: &[f32], layer: &Linear, epilogue: Epilogue) -> Option<Vec<f32>> {
    let isa = Isa::available().into_iter().rfind(|&isa| isa != Isa::Scalar)?;
    let (level, pool, rows) = (Level::new(isa), Pool::new(1), x.len() / layer.inputs());
    let mut scratch = vec![f32::NAN; 100_000];
    let (x, stride) = match layer.grouping() {
        None => rounded(x, layer, Form::Pairs, (level, &pool), &mut scratch),
        Some(grouping) => {
            quantised(x, (grouping, i32::from(grouping.lowest())), (level, &pool), &mut scratch)
        }
    };
    let mut out = noise(rows * layer.outputs(), 4);
    let strip = layer.strips().next()?;
    let panels = Panels {
        x,
        stride,
        rows,
        weight: layer,
        strip: &strip,
        finish: Finish::Each(epilogue),
        out: Disjoint::new(&mut out),
        claims: &Claims::new(strip.panels(), 1),
    };
    match layer.grouping() {
        None => level.run(Tiled { panels, tiles }),
        Some(grouping) => {
            let unpacked = &mut vec![f32::NAN; unpacked_words(grouping)];
            level.run_whole(TiledWhole { whole: Whole { panels, grouping }, tiles, unpacked });
        }
    }
    Some(out)
}

fn scheme() -> impl Strategy<Value = Option<Scheme>> {
    let grouped = |bits, group| Some(Scheme { bits, group: Some(group) });
    let own = [grouped(Bits::Eight, 64), grouped(Bits::Eight, 48), grouped(Bits::Four, 16)];
    prop::sample::select(
        [None, Some(Scheme::INT8), Some(Scheme::INT4)].into_iter().chain(own).collect::<Vec<_>>(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn near_the_reference_and_each_row_alone(
        rows in 1usize..70, inputs in 1usize..300, outputs in 1usize..140, add: bool, scheme in scheme(),
    ) {
        let layer = match scheme {
            None => layer(inputs, outputs),
            Some(scheme) => quantised_layer(inputs, outputs, scheme),
        };
        let x = noise(rows * inputs, 3);
        let write = if add { Write::Add } else { Write::Replace };
        let epilogue = Epilogue { write, ..Epilogue::default() };
        let mut expected = noise(rows * outputs, 4);
        Reference.linear(&x, &layer, epilogue, &mut expected);
        let Some(found) = by_software(&x, &layer, epilogue) else { return Ok(()) };
        for (found, expected) in found.iter().zip(&expected) {
            prop_assert!((found - expected).abs() < 2e-5 * expected.abs().max(1.0), "{} is not {}", found, expected);
        }
        let replace = Epilogue::default();
        let all = by_software(&x, &layer, replace).unwrap();
        if scheme.is_some() {
            // Sums of whole numbers are exact, so tiles and lanes make the same bits.
            let mut by_lanes = vec![0.0; rows * outputs];
            Cpu::new(Isa::Avx2, Arc::new(Pool::new(1))).linear(&x, &layer, replace, &mut by_lanes);
            prop_assert_eq!(&by_lanes, &all);
        }
        for (x, row) in x.chunks(inputs).zip(all.chunks(outputs)) {
            let alone = by_software(x, &layer, replace).unwrap();
            prop_assert_eq!(alone.as_slice(), row);
        }
    }
}

#[test]
fn products_are_added_in_the_order_of_the_manual() {
    let mut tiles = Software::new(SIDE);
    let bits = |x: f32| u32::from(bf16::from_f32(x).to_bits());
    let words = |pairs: [[f32; 2]; 2]| {
        let mut tile = [[0u32; SIDE]; SIDE];
        for (i, [first, second]) in pairs.into_iter().enumerate() {
            tile[0][i] = bits(first) | bits(second) << 16;
            tile[i][0] = tile[0][i];
        }
        tile
    };
    // Even and odd members are summed apart: 2^24 + 1 is 2^24 in f32, but 1 + 1 are two before they meet it.
    let a = words([[16_777_216.0, 1.0], [0.0, 1.0]]);
    let one = words([[1.0, 1.0], [1.0, 1.0]]);
    let mut sums = [[0.0f32; SIDE]; SIDE];
    // SAFETY: tiles are 16 rows of 64 bytes.
    unsafe {
        tiles.load::<4>(a.as_flattened().as_ptr(), 64);
        tiles.load::<6>(one.as_flattened().as_ptr(), 64);
        tiles.zero::<0>();
        tiles.multiply::<0, 4, 6>();
        tiles.store::<0>(sums.as_flattened_mut().as_mut_ptr(), 64);
    }
    assert_eq!(sums[0][0], 16_777_218.0);
    assert_eq!((flushed(1e-40), flushed(1.5)), (0.0, 1.5));
}

#[test]
fn the_machine_does_what_the_manual_says() {
    if !Isa::available().contains(&Isa::Amx) {
        println!("skipped: this machine has no AMX");
        return;
    }
    for (rows, inputs, outputs) in [(1, 64, 64), (16, 100, 70), (17, 33, 130), (64, 200, 65)] {
        let layer =
            if rows == 17 { layer(inputs, outputs) } else { quantised_layer(inputs, outputs, Scheme::INT4) };
        let x = noise(rows * inputs, 3);
        // SAFETY: AMX is available.
        let hardware =
            by_tiles(unsafe { Hardware::configure(words(&layer)) }, &x, &layer, Epilogue::default());
        assert_eq!(hardware, by_software(&x, &layer, Epilogue::default()));
        let mut called = vec![0.0; rows * outputs];
        let finish = Finish::Each(Epilogue::default());
        let call = Call { x: &x, rows, weight: &layer, finish, out: &mut called };
        call.run(Level::new(Isa::Amx), &Pool::new(2), &mut Workspace::default());
        assert_eq!(hardware, Some(called));
    }
}
