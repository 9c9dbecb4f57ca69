//! Files that are right, wrong and hostile.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Defect, SafeTensors};
use crate::stored::{Encoding, FileBytes, TensorView};
use crate::{Dtype, TensorError};

fn file(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header, data].concat()
}

fn parse(bytes: Vec<u8>) -> Result<SafeTensors, Defect> {
    match SafeTensors::parse(Path::new("x.safetensors"), FileBytes::Owned(Arc::from(bytes))) {
        Ok(parsed) => Ok(parsed),
        Err(TensorError::Malformed { defect, .. }) => Err(defect),
        Err(other) => panic!("{other}"),
    }
}

const GOOD: &str = r#"{"__metadata__":{"format":"pt"},
    "b":{"dtype":"BF16","shape":[2,2],"data_offsets":[8,16]},
    "a":{"dtype":"I64","shape":[],"data_offsets":[0,8]},
    "empty":{"dtype":"F32","shape":[0,7],"data_offsets":[16,16]}}   "#;

fn good() -> Vec<u8> {
    let mut data = 7i64.to_le_bytes().to_vec();
    data.extend([1.0f32, -2.0, 0.5, 3.0].iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()));
    file(GOOD.as_bytes(), &data)
}

#[test]
fn a_view_per_float_tensor() {
    let parsed = parse(good()).unwrap();
    let listed: Vec<_> = parsed.entries().map(|(n, d, s)| format!("{n} {d} {s:?}")).collect();
    assert_eq!(listed, ["a I64 []", "b BF16 [2, 2]", "empty F32 [0, 7]"]);
    assert!(parsed.tensor("a").is_none());
    assert!(parsed.tensor("c").is_none());
    let b = parsed.tensor("b").unwrap();
    assert_eq!((b.encoding(), b.shape()), (Encoding::Float(Dtype::Bf16), &[2, 2][..]));
    assert_eq!(b.to_f32(), [1.0, -2.0, 0.5, 3.0]);
    let mut row = [0.0; 2];
    b.row_into(1, &mut row);
    assert_eq!(row, [0.5, 3.0]);
    assert!(parsed.tensor("empty").unwrap().to_f32().is_empty());
}

#[test]
fn views_from_values() {
    let values = [1.0f32, -0.333_333, 65504.0, 1e-7];
    assert_eq!(TensorView::from_f32(&[2, 2], &values).to_f32(), values);
    for (narrow, dtype, relative) in [
        (TensorView::from_bf16(&[4], &values), Dtype::Bf16, 1.0 / 256.0),
        (
            TensorView::from_f16(&[4], &values[..3].iter().copied().chain([0.25]).collect::<Vec<_>>()),
            Dtype::F16,
            1.0 / 2048.0,
        ),
    ] {
        assert_eq!(narrow.encoding(), Encoding::Float(dtype));
        for (found, expected) in narrow.to_f32().iter().zip(values).take(3) {
            assert!(
                (found - expected).abs() <= expected.abs() * relative,
                "{dtype}: {found} is not {expected}"
            );
        }
    }
}

/// Checks that a header over `data` bytes of zeros is refused with a message that holds `expected`.
fn check(header: &str, data: usize, expected: &str) {
    match parse(file(header.as_bytes(), &vec![0; data])) {
        Ok(_) => panic!("accepted: {header}"),
        Err(defect) => {
            let message = defect.to_string();
            assert!(message.contains(expected), "{header}\n  said: {message}\n  without: {expected}");
        }
    }
}

#[test]
fn headers_that_are_refused() {
    let one = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"t":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    check("", 0, "not a JSON object");
    check("[]", 0, "expected an object that maps names to tensors");
    check("{", 0, "not a JSON object");
    check(r#"{"t":3}"#, 0, "not a JSON object");
    check(&one("F32", "[1]", "[0,4]"), 3, "cut short");
    check(&one("F32", "[1]", "[0,4]"), 5, "end at byte 4 of 5");
    check(&one("F32", "[1]", "[4,8]"), 8, "begins at byte 4");
    check(&one("F32", "[1]", "[4,0]"), 4, "its range is 4..0");
    check(&one("F32", "[2]", "[0,4]"), 4, "needs 8 bytes");
    check(&one("F32", "[-1]", "[0,4]"), 4, "invalid value");
    check(&one("F32", "[1.5]", "[0,4]"), 4, "invalid type");
    check(&one("F32", "[1]", "[0,4,8]"), 4, "not a JSON object");
    check(&one("F32", "[1]", "[0,18446744073709551615]"), 4, "cut short");
    check(&one("F32", "[1]", "[0,18446744073709551616]"), 4, "not a JSON object");
    check(&one("F32", "[4294967296,4294967296]", "[0,0]"), 0, "no size in bytes");
    check(&one("F32", "[0,4294967296,4294967296]", "[0,0]"), 0, "no size in bytes");
    check(&one("F4", "[3]", "[0,1]"), 1, "no size in bytes");
    check(&one("F33", "[1]", "[0,4]"), 4, "unknown element type 'F33'");
    check(r#"{"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}}"#, 1, "unknown field");
    check(r#"{"__metadata__":{},"__metadata__":{}}"#, 0, "twice");
    let u8s = |a: &str, b: &str| {
        format!(
            r#"{{"{a}":{{"dtype":"U8","shape":[2],"data_offsets":[0,2]}},"{b}":{{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}}}"#
        )
    };
    check(&u8s("a", "b"), 3, "begins at byte 1");
    check(&u8s("a", "a"), 3, "'a' is there twice");
    check(&"[".repeat(100_000), 0, "not a JSON object");
}

#[test]
fn lengths_that_are_refused() {
    assert_eq!(parse(vec![0; 7]).err(), Some(Defect::TooShort { length: 7 }));
    assert_eq!(
        parse(u64::MAX.to_le_bytes().to_vec()).err(),
        Some(Defect::HeaderLength { claimed: u64::MAX, room: 0 })
    );
    assert_eq!(
        parse([3, 0, 0, 0, 0, 0, 0, 0, b'{', b'}'].to_vec()).err(),
        Some(Defect::HeaderLength { claimed: 3, room: 2 })
    );
    assert!(matches!(parse(file(b"{\"\xff\":1}", &[])), Err(Defect::HeaderSyntax { .. })));
}

#[test]
fn mapped_files_read_the_same_after_release() {
    let dir = std::env::temp_dir().join(format!("tidegate-safetensors-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("big.safetensors");
    let values: Vec<f32> = (0..20_000).map(|i| i as f32).collect();
    let header = r#"{"t":{"dtype":"F32","shape":[200,100],"data_offsets":[0,80000]}}"#;
    let data: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    std::fs::write(&path, file(header.as_bytes(), &data)).unwrap();
    let view = SafeTensors::open(&path).unwrap().tensor("t").unwrap();
    assert_eq!(view.to_f32(), values);
    view.release();
    assert_eq!(view.to_f32(), values);
    std::fs::write(dir.join("short"), b"abc").unwrap();
    for (name, expected) in
        [("short", "at least 8 bytes, found 3"), ("absent", "cannot read"), (".", "cannot read")]
    {
        let message = SafeTensors::open(&dir.join(name)).err().unwrap().to_string();
        assert!(message.contains(expected) && message.contains("tidegate-safetensors"), "{message}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

/// What every accepted file promises, whatever its bytes are.
fn assert_readable(bytes: Vec<u8>) {
    if let Ok(parsed) = parse(bytes) {
        for name in parsed.entries().map(|(name, ..)| name.to_owned()).collect::<Vec<_>>() {
            if let Some(view) = parsed.tensor(&name) {
                assert_eq!(view.to_f32().len(), view.shape().iter().product::<usize>());
            }
        }
    }
}

proptest! {
    #[test]
    fn mutated_files_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = good();
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
        shape in prop::collection::vec(prop_oneof![0..5u64, any::<u64>()], 0..4),
        begin in prop_oneof![0..20u64, any::<u64>()],
        end in prop_oneof![0..20u64, any::<u64>()],
        dtype in prop::sample::select(vec!["F32", "BF16", "F4", "BOOL", "C64", "?"]),
    ) {
        let header = format!(r#"{{"t":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{end}]}}}}"#);
        assert_readable(file(header.as_bytes(), &[0; 16]));
    }
}
