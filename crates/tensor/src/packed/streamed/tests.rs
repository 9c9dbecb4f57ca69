//! Layers that are read when they are needed give the bits of those in memory, on every instruction set and in every budget.

use std::fs::{self, File};
use std::path::PathBuf;

use super::super::archive::{Archive, ArchiveWriter, Residence};
use super::super::strip::ALIGNMENT;
use super::super::{Grouping, Layout};
use super::*;
use crate::quantised::Scheme;
use crate::stored::{FileBytes, TensorView};
use crate::{Dtype, Epilogue, Isa, Linear, Packer, Pool, TensorError};

/// A file that is removed at the end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("tidegate-streamed-{}-{name}", std::process::id())))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

const INPUTS: usize = 96;

/// Layers of several strips and of one, of every kind.
fn packers() -> Vec<Result<Packer, TensorError>> {
    let stored: Vec<f32> = (0..900 * INPUTS).map(|i| ((i * 7919) % 2003) as f32 / 1000.0 - 1.0).collect();
    let stored = TensorView::from_f32(&[900, INPUTS], &stored);
    let filled = |packer: Result<Packer, TensorError>, times: usize| {
        packer.map(|mut packer| {
            for time in 0..times {
                packer.rows(time * 900, &stored);
            }
            packer.bias(3, &TensorView::from_f32(&[2], &[0.5, -0.25]));
            packer
        })
    };
    let shape = |times: usize| (INPUTS, times * 900 + 5);
    vec![
        filled(Packer::new(INPUTS, shape(30).1, Dtype::F32), 30),
        filled(Packer::new(INPUTS, shape(60).1, Dtype::Bf16), 60),
        filled(Packer::new(INPUTS, shape(1).1, Dtype::Bf16), 1),
        filled(Packer::quantising(shape(50), Scheme::INT8, Dtype::Bf16), 50),
        filled(Packer::quantising(shape(80), Scheme::INT4, Dtype::F32), 80),
    ]
}

/// What layers make of two rows.
fn products(layers: &[Linear], isa: Isa) -> Vec<u32> {
    let kernels = crate::kernels(isa, 2);
    let x: Vec<f32> = (0..2 * INPUTS).map(|i| (i as f32 * 0.37).sin()).collect();
    let product = |layer: &Linear| {
        let mut out = vec![0.0; 2 * layer.outputs()];
        kernels.linear(&x, layer, Epilogue::default(), &mut out);
        out.into_iter().map(f32::to_bits)
    };
    layers.iter().flat_map(product).collect()
}

#[test]
fn streamed_layers_give_the_bits_of_those_in_memory() {
    let (place, pool) = (Place::new("bits"), Pool::new(2));
    let whole: Vec<Linear> = packers().into_iter().map(|packer| packer.unwrap().finish()).collect();
    let mut writer = ArchiveWriter::begin(File::create(&place.0).unwrap()).unwrap();
    let mut written = Streaming::default();
    let name = |number: usize| format!("layer {number}");
    let layers = packers().into_iter().enumerate().map(|(number, packer)| {
        writer.streamed(&name(number), packer.unwrap(), Some(&pool), &mut written).unwrap()
    });
    let layers: Vec<Linear> = layers.collect();
    writer.finish("key").unwrap();
    let file = FileBytes::map(&place.0).unwrap();
    let archive = Archive::open(file, "key", Some(&pool), Residence::Disk).unwrap();
    let mut found = Streaming::default();
    let again = (0..)
        .zip(packers())
        .map(|(number, packer)| packer.unwrap().streamed(&archive, &name(number), &mut found).unwrap());
    let again: Vec<Linear> = again.collect();
    assert!(written.parts == found.parts && found.parts.len() > 10, "{:?}", found.parts);
    for (streaming, layers, budget) in [(written, layers, 16 << 20), (found, again, 24 << 20)] {
        let weights = streaming.open(&place.0, budget).unwrap();
        for isa in Isa::available() {
            assert!(products(&layers, isa) == products(&whole, isa), "{isa} in {budget} bytes");
        }
        let SweepStatistics { budget: used, bytes, read, .. } = weights.statistics();
        assert!(used <= budget && bytes > budget && read > bytes as u64, "{:?}", weights.statistics());
    }
}

#[test]
fn strips_are_all_panels_once_and_whole_pages() {
    let grouping = Some(Grouping::of_scheme(Scheme::INT4, 1056));
    for (inputs, outputs, dtype, grouping) in [
        (1024, 151_936, Dtype::Bf16, None),
        (1024, 4096, Dtype::Bf16, None),
        (3072, 1024, Dtype::Bf16, None),
        (33, 100_000, Dtype::F32, None),
        (16_384, 300, Dtype::F32, None),
        (1056, 50_000, Dtype::Bf16, grouping),
        (1, 1, Dtype::F32, None),
    ] {
        let layout = Layout { inputs, outputs, dtype, grouping, columns: crate::packed::Columns::InOrder };
        let strips: Vec<_> = (0..layout.strips()).map(|strip| layout.strip(strip)).collect();
        let mut next = 0;
        for (number, strip) in strips.iter().enumerate() {
            assert_eq!((strip.start, layout.strip_bytes(number).start % ALIGNMENT), (next, 0));
            assert!(!strip.is_empty() && strip.len() <= strips[0].len());
            next = strip.end;
        }
        assert_eq!(next, layout.panels(), "{layout:?}");
        let (all, most) = (layout.bytes(), layout.strip_bytes(0).len());
        assert!(most >= all.min(2 << 20) && most <= (4 << 20).max(16 * layout.panel_bytes()), "{layout:?}");
    }
}
