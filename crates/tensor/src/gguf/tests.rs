//! Files that are right, wrong and hostile.

mod file;
mod wrong;

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Defect, Gguf, Value};
use crate::TensorError;
use crate::stored::{BlockFormat, Encoding, FileBytes};

use file::{File, text};

fn parse(bytes: Vec<u8>) -> Result<Gguf, Defect> {
    match Gguf::parse(Path::new("x.gguf"), FileBytes::Owned(Arc::from(bytes))) {
        Ok(parsed) => Ok(parsed),
        Err(TensorError::MalformedGguf { defect, .. }) => Err(defect),
        Err(other) => panic!("{other}"),
    }
}

/// A file with every kind of value, a list of every sort, and tensors of three types.
fn good() -> File {
    let mut file = File::default();
    file.key("a.u8", 0, &[200]);
    file.key("a.i8", 1, &[200]);
    file.key("a.u16", 2, &[1, 2]);
    file.key("a.i16", 3, &[255, 255]);
    file.key("a.u32", 4, &[0, 0, 0, 128]);
    file.key("a.i32", 5, &[0, 0, 0, 128]);
    file.key("a.f32", 6, &1.5f32.to_le_bytes());
    file.key("a.flag", 7, &[1]);
    file.key("a.text", 8, &text("é"));
    file.key("a.u64", 10, &u64::MAX.to_le_bytes());
    file.key("a.i64", 11, &(-7i64).to_le_bytes());
    file.key("a.f64", 12, &0.1f64.to_le_bytes());
    file.list("l.text", 8, &[text("one"), text(""), text("drei")]);
    file.list("l.i32", 5, &[vec![255; 4], vec![7, 0, 0, 0]]);
    file.list("l.flags", 7, &[vec![0], vec![1]]);
    file.list("l.none", 4, &[]);
    file.list("l.lists", 9, &[[&4u32.to_le_bytes()[..], &1u64.to_le_bytes(), &[9; 4]].concat()]);
    let floats: Vec<u8> = [1.0f32, -2.0, 0.5, 3.0, 4.0, 5.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    file.tensor("matrix", &[3, 2], 0, &floats);
    file.tensor("whole", &[2], 24, &[1, 2]);
    let mut block = vec![0, 0x40];
    block.extend(0..32);
    file.tensor("blocks", &[32, 1], 8, &block);
    file
}

#[test]
fn values_keep_their_kinds() {
    let parsed = parse(good().bytes()).unwrap();
    let metadata = parsed.metadata();
    for (key, value) in [
        ("a.u8", Value::Unsigned(200)),
        ("a.i8", Value::Signed(-56)),
        ("a.u16", Value::Unsigned(513)),
        ("a.i16", Value::Signed(-1)),
        ("a.u32", Value::Unsigned(1 << 31)),
        ("a.i32", Value::Signed(i64::from(i32::MIN))),
        ("a.f32", Value::Float(1.5)),
        ("a.flag", Value::Flag(true)),
        ("a.text", Value::Text("é".to_owned())),
        ("a.u64", Value::Unsigned(u64::MAX)),
        ("a.i64", Value::Signed(-7)),
        ("a.f64", Value::Float(0.1)),
    ] {
        assert_eq!(metadata.get(key), Some(&value), "{key}");
    }
    let list = |key: &str| match metadata.get(key) {
        Some(Value::List(list)) => list.clone(),
        other => panic!("{key}: {other:?}"),
    };
    assert_eq!(list("l.text").texts().unwrap(), ["one", "", "drei"]);
    assert_eq!((list("l.text").numbers(), list("l.i32").texts()), (None, None));
    assert_eq!(list("l.i32").numbers().unwrap(), [Value::Signed(-1), Value::Signed(7)]);
    assert_eq!(list("l.flags").numbers().unwrap(), [Value::Flag(false), Value::Flag(true)]);
    assert!(list("l.none").is_empty() && list("l.none").numbers().unwrap().is_empty());
    assert_eq!((list("l.lists").len(), list("l.lists").numbers(), list("l.lists").texts()), (1, None, None));
    assert_eq!(metadata.get("a"), None);
    assert_eq!(metadata.iter().count(), 17);
}

#[test]
fn a_view_per_tensor_of_a_type_that_is_read() {
    let parsed = parse(good().bytes()).unwrap();
    let tensors = parsed.tensors();
    let listed: Vec<_> = tensors.entries().map(|(n, d, s)| format!("{n} {d} {s:?}")).collect();
    assert_eq!(listed, ["blocks Q8_0 [1, 32]", "matrix F32 [2, 3]", "whole I8 [2]"]);
    assert_eq!((tensors.kind("whole"), tensors.kind("nope")), (Some("I8"), None));
    assert!(tensors.tensor("whole").is_none() && tensors.tensor("nope").is_none());
    let mut row = [0.0; 3];
    tensors.tensor("matrix").unwrap().row_into(1, &mut row);
    assert_eq!(row, [3.0, 4.0, 5.0]);
    let blocks = tensors.tensor("blocks").unwrap();
    assert_eq!(blocks.encoding(), Encoding::Blocks(BlockFormat::Q8_0));
    assert_eq!(blocks.to_f32(), (0..32).map(|q| 2.0 * q as f32).collect::<Vec<_>>());
}

#[test]
fn version_two_and_other_alignments_are_read() {
    let mut file = good();
    file.version = 2;
    assert_eq!(parse(file.bytes()).unwrap().tensors().entries().count(), 3);
    for alignment in [8u32, 16, 4096, 65536] {
        let mut file = good();
        file.key("general.alignment", 4, &alignment.to_le_bytes());
        file.alignment = alignment as usize;
        let values = parse(file.bytes()).unwrap().tensors().tensor("matrix").unwrap().to_f32();
        assert_eq!(values, [1.0, -2.0, 0.5, 3.0, 4.0, 5.0]);
    }
    assert_eq!(parse(File::default().bytes()).unwrap().tensors().entries().count(), 0);
}

/// Blocks of random bits and what the `gguf` package for Python makes of them, from `tools/gguf/make_blocks.py`.
#[test]
fn blocks_have_the_values_of_the_reference() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("test_data/blocks.gguf");
    let file = Gguf::open(&path).unwrap();
    for format in BlockFormat::ALL {
        let name = format.to_string().to_uppercase();
        let blocks = file.tensors().tensor(&name).unwrap();
        assert_eq!(blocks.encoding(), Encoding::Blocks(format));
        let expected = file.tensors().tensor(&format!("{name}.values")).unwrap().to_f32();
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert!(bits(&blocks.to_f32()) == bits(&expected), "{name}");
        let mut row = vec![0.0; 512];
        blocks.row_into(1, &mut row);
        assert!(bits(&row) == bits(&expected[512..]), "{name}");
        // The plain data for the packing holds the same numbers; negative zeros lose their sign there.
        let quantised = blocks.quantised(0..blocks.shape()[0]).unwrap();
        quantised.assert_shape();
        assert!(quantised.dequantise() == expected, "{name}");
        blocks.release();
        assert!(bits(&blocks.to_f32()) == bits(&expected), "{name}");
    }
    assert!(file.tensors().tensor("Q4_0.values").unwrap().quantised(0..1).is_none());
}

/// What every accepted file promises, whatever its bytes are.
fn assert_readable(bytes: Vec<u8>) {
    let Ok(parsed) = parse(bytes) else { return };
    for (_, value) in parsed.metadata().iter() {
        if let Value::List(list) = value {
            let texts = list.texts().map(|texts| texts.len());
            let numbers = list.numbers().map(|numbers| numbers.len());
            assert!(texts.or(numbers).is_none_or(|count| count == list.len()));
        }
    }
    for name in parsed.tensors().entries().map(|(name, ..)| name.to_owned()).collect::<Vec<_>>() {
        if let Some(view) = parsed.tensors().tensor(&name) {
            assert_eq!(view.to_f32().len(), view.shape().iter().product::<usize>());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_files_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), 0..16u8]), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = good().bytes();
        for (at, byte) in &edits {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        assert_readable(bytes.clone());
        bytes.truncate(cut.index(bytes.len()));
        assert_readable(bytes);
    }

    #[test]
    fn stated_numbers_never_overflow(
        shape in prop::collection::vec(prop_oneof![0..5u64, any::<u64>(), Just(32), Just(1 << 32)], 0..6),
        element in 0..50u32,
        offset in prop_oneof![Just(0u64), 0..100u64, any::<u64>(), Just(u64::MAX - 31)],
    ) {
        let mut file = good();
        file.stated_tensor("t", &shape, element, offset);
        assert_readable(file.bytes());
    }
}
