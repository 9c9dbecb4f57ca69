//! Packing and unpacking give the stored matrices back.

use proptest::prelude::*;

use std::path::Path;
use std::sync::Arc;

use super::archive::{Archive, ArchiveWriter, Defect, Residence};
use super::*;
use crate::gguf::Gguf;
use crate::stored::{BlockFormat, TensorView};
use crate::{Bits, Pool, Quantised};

fn numbered(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i as f32 - 100.0) * 0.37).collect()
}

fn unpacked(layer: &Linear) -> Vec<f32> {
    let mut all = vec![0.0; layer.outputs() * layer.inputs()];
    for (output, row) in all.chunks_mut(layer.inputs()).enumerate() {
        layer.strips().for_each(|strip| {
            if strip.outputs().any(|one| one == output) {
                strip.row_into(output, row);
            }
        });
    }
    all
}

fn bytes(layer: &Linear) -> Vec<u8> {
    layer.strips().flat_map(|strip| strip.bytes().to_vec()).collect()
}

fn rounded(values: &[f32], dtype: Dtype) -> Vec<f32> {
    let round = |&v: &f32| if dtype == Dtype::Bf16 { bf16::from_f32(v).to_f32() } else { v };
    values.iter().map(round).collect()
}

proptest! {
    #[test]
    fn rows_and_columns_are_read_back(inputs in 1usize..70, first in 0usize..70, second in 1usize..70, wide: bool) {
        let dtype = if wide { Dtype::F32 } else { Dtype::Bf16 };
        let outputs = first + second;
        let values = numbered(inputs * outputs);
        let (top, rest) = values.split_at(first * inputs);
        let mut by_rows = Packer::new(inputs, outputs, dtype).unwrap();
        by_rows.rows(0, &TensorView::from_f32(&[first, inputs], top));
        by_rows.rows(first, &TensorView::from_f32(&[second, inputs], rest));
        prop_assert_eq!(unpacked(&by_rows.finish()), rounded(&values, dtype));

        let transposed: Vec<f32> =
            (0..inputs).flat_map(|k| (0..second).map(move |o| (o, k))).map(|(o, k)| rest[o * inputs + k]).collect();
        let mut by_columns = Packer::new(inputs, outputs, dtype).unwrap();
        by_columns.columns(first, &TensorView::from_f32(&[inputs, second], &transposed));
        let expected = [vec![0.0; top.len()], rounded(rest, dtype)].concat();
        prop_assert_eq!(unpacked(&by_columns.finish()), expected);
    }
}

proptest! {
    #[test]
    fn gates_stand_beside_what_they_are_for(inputs in 1usize..70, width in 1usize..150, scheme in 0usize..3) {
        let scheme = [None, Some(Scheme::INT8), Some(Scheme::INT4)][scheme];
        let values = numbered(2 * inputs * width);
        let (gate, up) = values.split_at(inputs * width);
        let filled = |mut packer: Packer| {
            packer.rows(0, &TensorView::from_f32(&[width, inputs], gate));
            packer.rows(width, &TensorView::from_f32(&[width, inputs], up));
            packer.bias(width - 1, &TensorView::from_f32(&[2], &[1.5, 2.5]));
            packer.finish()
        };
        let packer = || match scheme {
            None => Packer::new(inputs, 2 * width, Dtype::Bf16).unwrap(),
            Some(scheme) => Packer::quantising((inputs, 2 * width), scheme, Dtype::Bf16).unwrap(),
        };
        let (gated, stacked) = (filled(packer().gated()), filled(packer()));
        prop_assert_eq!(unpacked(&gated), unpacked(&stacked));
        prop_assert_eq!((gated.bias(width - 1), gated.bias(width)), (1.5, 2.5));
        let (last, first) = ((width - 1) % (PANEL / 2), PANEL / 2);
        prop_assert_eq!(gated.panel_bias((width - 1) / (PANEL / 2)).unwrap()[last], 1.5);
        prop_assert_eq!(gated.panel_bias(0).unwrap()[first], 2.5);
        prop_assert!(gated.is_gated() && !stacked.is_gated() && gated.bytes() == stacked.bytes());
    }
}

#[test]
fn bias_is_zero_until_set_and_padded_to_the_panel() {
    let mut packer = Packer::new(3, 70, Dtype::F32).unwrap();
    packer.bias(66, &TensorView::from_f32(&[4], &[1.0, 2.0, 3.0, 4.0]));
    let layer = packer.finish();
    assert_eq!((layer.bias(65), layer.bias(66), layer.bias(69)), (0.0, 1.0, 4.0));
    let bias = layer.panel_bias(1).unwrap();
    assert_eq!((bias.len(), bias[2], bias[6]), (PANEL, 1.0, 0.0));
    assert_eq!(layer.bytes(), (2 * PANEL * 3 + 2 * PANEL) * 4);
    assert!(Packer::new(3, 70, Dtype::Bf16).unwrap().finish().panel_bias(0).is_none());
}

#[test]
#[should_panic(expected = "do not fit a layer of 3 inputs and 4 outputs")]
fn a_matrix_that_does_not_fit_is_refused() {
    let stored = TensorView::from_f32(&[3, 3], &[0.0; 9]);
    Packer::new(3, 4, Dtype::F32).unwrap().rows(2, &stored);
}

proptest! {
    #[test]
    fn quantised_rows_and_columns_are_read_back(
        inputs in 1usize..150, first in 1usize..70, second in 1usize..70, four: bool, group in 0usize..3,
    ) {
        let bits = if four { Bits::Four } else { Bits::Eight };
        let scheme = Scheme { bits, group: [None, Some(16), Some(32)][group] };
        let values = numbered(inputs * (first + second));
        let (top, rest) = values.split_at(first * inputs);
        let transposed: Vec<f32> =
            (0..inputs).flat_map(|k| (0..second).map(move |o| (o, k))).map(|(o, k)| rest[o * inputs + k]).collect();
        let mut packer = Packer::quantising((inputs, first + second), scheme, Dtype::F32).unwrap();
        packer.rows(0, &TensorView::from_f32(&[first, inputs], top));
        packer.columns(first, &TensorView::from_f32(&[inputs, second], &transposed));
        let layer = packer.finish();
        let matrix = Quantised::from_f32(scheme, &values, inputs);
        prop_assert_eq!(unpacked(&layer), matrix.dequantise());
        let mut other = Packer::of_quantised(first + second, &matrix, Dtype::Bf16).unwrap();
        other.quantised(0, &matrix);
        prop_assert_eq!(unpacked(&other.finish()), matrix.dequantise());
    }
}

#[test]
fn quantised_layers_take_the_bytes_that_their_scheme_says() {
    let check = |scheme: Scheme, bits_a_weight: usize| {
        let layer = Packer::quantising((1024, 128), scheme, Dtype::Bf16).unwrap().finish();
        assert_eq!(layer.scheme(), Some(scheme));
        assert_eq!(layer.bytes() * 8, 1024 * 128 * bits_a_weight / 32, "{scheme}");
    };
    check(Scheme::INT8, 32 * 8 + 1);
    check(Scheme::INT4, 32 * 4 + 32);
    check(Scheme::INT4_G128, 32 * 4 + 8);
}

#[test]
#[should_panic(expected = "the grouping of the layer")]
fn a_matrix_of_other_groups_is_refused() {
    let [matrix, other] = [Some(16), Some(32)]
        .map(|group| Quantised::from_f32(Scheme { bits: Bits::Eight, group }, &[1.0; 64], 64));
    Packer::of_quantised(2, &matrix, Dtype::F32).unwrap().quantised(0, &other);
}

/// Blocks of random bits in every format, and what they stand for, as the `gguf` package for Python says.
fn stored(format: BlockFormat) -> (TensorView, Vec<f32>) {
    let file = Gguf::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("test_data/blocks.gguf")).unwrap();
    let name = format.to_string().to_uppercase();
    let values = file.tensors().tensor(&format!("{name}.values")).unwrap().to_f32();
    (file.tensors().tensor(&name).unwrap(), values)
}

#[test]
fn stored_blocks_are_kept_exactly_alone_and_stacked_with_any_other() {
    for first in BlockFormat::ALL {
        for second in BlockFormat::ALL {
            let ((top, top_values), (rest, rest_values)) = (stored(first), stored(second));
            let [rows, more] = [&top, &rest].map(|view| view.shape()[0]);
            let mut packer = Packer::keeping(rows + more, &[&top, &rest], Dtype::Bf16).unwrap().unwrap();
            packer.rows(0, &top).rows(rows, &rest);
            let layer = packer.finish();
            assert!(unpacked(&layer) == [top_values, rest_values].concat(), "{first} over {second}");
            if first == second {
                let bits = if first.bits() == 4 { Bits::Four } else { Bits::Eight };
                assert_eq!(layer.scheme(), Some(Scheme { bits, group: Some(first.group()) }), "{first}");
            }
        }
    }
    let ((blocks, _), floats) = (stored(BlockFormat::Q4_0), TensorView::from_f32(&[1, 512], &[0.0; 512]));
    assert!(Packer::keeping(3, &[&blocks, &floats], Dtype::Bf16).unwrap().is_none());
    assert!(Packer::keeping(1, &[], Dtype::Bf16).unwrap().is_none());
}

#[test]
#[should_panic(expected = "does not hold a matrix of q6_k")]
fn blocks_that_a_layer_does_not_hold_are_refused() {
    let ((fours, _), (sixes, _)) = (stored(BlockFormat::Q4_0), stored(BlockFormat::Q6K));
    Packer::keeping(9, &[&fours], Dtype::Bf16).unwrap().unwrap().rows(0, &sixes);
}

#[test]
fn every_number_of_threads_packs_the_same_bytes() {
    let (inputs, outputs) = (75, 300);
    let values = numbered(inputs * outputs);
    let view = TensorView::from_bf16(&[outputs, inputs], &values);
    let turned = TensorView::from_f32(&[inputs, outputs], &values);
    let packers = || {
        let floats = [Dtype::F32, Dtype::Bf16].map(|dtype| Packer::new(inputs, 2 * outputs, dtype).unwrap());
        let small = [Scheme::INT8, Scheme::INT4]
            .map(|scheme| Packer::quantising((inputs, 2 * outputs), scheme, Dtype::Bf16).unwrap());
        floats.into_iter().chain(small)
    };
    for threads in [1, 2, 3, 20] {
        let pool = Pool::new(threads);
        for (mut alone, mut shared) in packers().zip(packers()) {
            for packer in [&mut alone, &mut shared] {
                packer.rows(0, &view).columns(outputs, &turned);
            }
            let (alone, shared) = (alone.finish(), shared.finish_on(&pool));
            assert!(bytes(&alone) == bytes(&shared), "{threads} threads");
            assert!(bytes(&alone).iter().any(|&byte| byte != 0));
        }
    }
}

const KEY: &str = "a key";

/// A file with a layer of floats and one of small numbers.
fn archive() -> Vec<u8> {
    let mut writer = ArchiveWriter::begin(Vec::new()).unwrap();
    let view = TensorView::from_f32(&[5, 40], &numbered(200));
    let mut floats = Packer::new(40, 5, Dtype::Bf16).unwrap();
    floats.rows(0, &view);
    writer.layer("floats", &floats.finish()).unwrap();
    let mut small = Packer::quantising((40, 5), Scheme::INT4, Dtype::Bf16).unwrap();
    small.rows(0, &view);
    writer.layer("small", &small.finish()).unwrap();
    writer.finish(KEY).unwrap()
}

fn opened(bytes: Vec<u8>) -> Result<Archive, Defect> {
    Archive::open(FileBytes::Owned(Arc::from(bytes)), KEY, None, Residence::Mapped)
}

#[test]
fn layers_are_found_again_by_name_and_layout() {
    let pool = Pool::new(3);
    let file = FileBytes::Owned(Arc::from(archive()));
    let archive = Archive::open(file.clone(), KEY, Some(&pool), Residence::Mapped).unwrap();
    let packer = |scheme: Option<Scheme>, outputs| match scheme {
        Some(scheme) => Packer::quantising((40, outputs), scheme, Dtype::Bf16).unwrap(),
        None => Packer::new(40, outputs, Dtype::Bf16).unwrap(),
    };
    for (name, scheme) in [("floats", None), ("small", Some(Scheme::INT4))] {
        let mut again = packer(scheme, 5);
        again.rows(0, &TensorView::from_f32(&[5, 40], &numbered(200)));
        let kept = packer(scheme, 5).kept(&archive, name).unwrap();
        assert_eq!(unpacked(&kept), unpacked(&again.finish()));
        for (other, scheme, outputs) in
            [("large", scheme, 5), (name, Some(Scheme::INT8), 5), (name, scheme, 6)]
        {
            assert!(packer(scheme, outputs).kept(&archive, other).is_none());
        }
    }
    assert_eq!(Archive::open(file, "another key", None, Residence::Disk).err(), Some(Defect::Key));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_archives_are_refused_or_read_as_written(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        at_the_end: bool,
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let sound = archive();
        let mut bytes = sound.clone();
        for (at, byte) in &edits {
            // The directory and the tail are the last few hundred bytes.
            let room = if at_the_end { 500 } else { bytes.len() };
            let at = bytes.len() - 1 - at.index(room);
            bytes[at] = *byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(archive) = opened(bytes.clone()) {
            // Bytes between layers are nobody's.
            let mut small = Packer::quantising((40, 5), Scheme::INT4, Dtype::Bf16).unwrap();
            let expected = opened(sound).unwrap();
            let mut other = Packer::quantising((40, 5), Scheme::INT4, Dtype::Bf16).unwrap();
            let [found, written] = [small.kept(&archive, "small"), other.kept(&expected, "small")];
            prop_assert_eq!(unpacked(&found.unwrap()), unpacked(&written.unwrap()));
        }
    }

    /// A directory whose checksum is right and whose numbers are not.
    #[test]
    fn forged_directories_never_panic(
        begin in prop_oneof![0..20_000usize, any::<usize>()],
        inputs in prop_oneof![0..100usize, any::<usize>()],
        outputs in prop_oneof![0..100usize, any::<usize>()],
        group in prop::option::of(prop_oneof![0..100usize, any::<usize>()]),
        columns in prop::sample::select(vec!["InOrder", "Gated"]),
    ) {
        let grouping = group.map_or("null".to_owned(), |group| {
            format!(r#"{{"bits":"Four","group":{group},"inputs":{inputs},"offsets":false}}"#)
        });
        let json = format!(
            r#"{{"key":"{KEY}","layers":{{"x":{{"begin":{begin},"layout":{{"inputs":{inputs},"outputs":{outputs},"dtype":"Bf16","grouping":{grouping},"columns":"{columns}"}},"checksums":[0]}}}}}}"#
        );
        let tail = [
            &(json.len() as u64).to_le_bytes()[..],
            &crc32c::crc32c(json.as_bytes()).to_le_bytes(),
            &archive::LAYOUT_VERSION.to_le_bytes(),
        ];
        let file = [&b"TIDEPACK"[..], &[0; 20_000], json.as_bytes(), &tail.concat()].concat();
        // Zeros have another checksum than 0, unless there are none of them.
        prop_assert_eq!(opened(file).err(), Some(Defect::Layer { layer: "x".to_owned() }));
    }
}
