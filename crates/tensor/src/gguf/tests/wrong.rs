//! Headers that are refused, each with what it says.

use super::super::header;
use super::file::{File, text};
use super::{Defect, good, parse};

/// Breaks a file and checks that it is refused with a message that holds `expected`.
fn check(break_it: impl FnOnce(&mut File), expected: &str) {
    let mut file = good();
    break_it(&mut file);
    refused(file.bytes(), expected);
}

fn refused(bytes: Vec<u8>, expected: &str) {
    match parse(bytes) {
        Ok(_) => panic!("accepted; it should have said: {expected}"),
        Err(defect) => {
            let message = defect.to_string();
            assert!(message.contains(expected), "it said: {message}\n  without: {expected}");
        }
    }
}

#[test]
fn other_files() {
    refused(Vec::new(), "expected the letters 'GGUF' at its start, found an empty file");
    refused(b"Hello, world".to_vec(), "found 'Hell'");
    refused(vec![0x50, 0x4B, 3, 4, 0], "found the bytes 50 4b 03 04");
    refused(b"GGU".to_vec(), "found 'GGU'");
    refused(b"GGUF".to_vec(), "the version at byte 4 needs 4 bytes, but the file ends at 4");
    check(|file| file.version = 1, "expected version 2 or 3 of the format, found 1");
    check(|file| file.version = 4, "found 4");
    check(|file| file.version = 3 << 24, "(its numbers seem to be big-endian)");
}

#[test]
fn counts_that_cannot_be() {
    check(
        |file| file.counts = Some([u64::MAX, 17]),
        "it states 18446744073709551615 tensors, but there can be at most",
    );
    check(|file| file.counts = Some([3, 1 << 40]), "it states 1099511627776 keys, but there can be at most");
    check(|file| file.counts = Some([3, 60]), "it states 60 keys, but there can be at most 57");
    check(|file| file.counts = Some([3, 16]), "tensor 'l.lists' has 9 extents");
    check(|file| file.counts = Some([4, 17]), "needs");
    let long = |count: u64| [&5u32.to_le_bytes()[..], &count.to_le_bytes()].concat();
    check(|file| file.key("k", 9, &long(u64::MAX)), "18446744073709551615 items of a list");
    check(|file| file.key("k", 9, &long(1 << 62)), "items of a list");
    check(|file| file.key("k", 8, &u64::MAX.to_le_bytes()), "a text at byte");
    check(|file| file.key("k".repeat(65_536), 0, &[1]), "65536 bytes of a name");
    check(|file| file.tensor(&"t".repeat(65), &[1], 24, &[1]), "65 bytes of a name");
}

#[test]
fn values_that_cannot_be() {
    check(|file| file.key("k", 13, &[0; 8]), "'k' has a value of the unknown kind 13");
    check(|file| file.list("k", u32::MAX, &[]), "'k' has a value of the unknown kind 4294967295");
    check(|file| file.key("k", 7, &[2]), "'k': expected a flag to be 0 or 1, found 2");
    check(|file| file.list("k", 7, &[vec![1], vec![9]]), "'k': expected a flag to be 0 or 1, found 9");
    check(|file| file.key(b"\xff", 0, &[1]), "a key at byte");
    check(|file| file.key("k", 8, &text(b"a\xffb")), "is not UTF-8");
    check(|file| file.list("k", 8, &[text("a"), text(b"\xc3")]), "a text in a list at byte");
    check(|file| file.key("a.u8", 0, &[1]), "key 'a.u8' is there twice");
}

#[test]
fn lists_in_lists_have_a_floor() {
    let nested = |depth: usize| {
        let layer = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat();
        let floor = [&0u32.to_le_bytes()[..], &1u64.to_le_bytes(), &[7]].concat();
        [layer.repeat(depth), floor].concat()
    };
    let mut file = good();
    file.key("k", 9, &nested(3));
    assert!(parse(file.bytes()).is_ok());
    for depth in [4, 5, 100_000] {
        check(|file| file.key("k", 9, &nested(depth)), "'k' holds lists inside of lists, deeper than 4");
    }
}

#[test]
fn alignments_that_cannot_be() {
    for (value, found) in [(0u32, "found 0"), (4, "found 4"), (33, "found 33"), (1 << 17, "found 131072")] {
        check(|file| file.key("general.alignment", 4, &value.to_le_bytes()), found);
    }
    check(|file| file.key("general.alignment", 8, &text("32")), "found another kind of value");
    check(|file| file.key("general.alignment", 5, &32u32.to_le_bytes()), "found another kind of value");
}

#[test]
fn tensors_that_cannot_be() {
    check(
        |file| file.stated_tensor("t", &[1; 5], 0, 0),
        "tensor 't' has 5 extents, but there can be at most 4",
    );
    check(|file| file.stated_tensor("t", &[1], 4, 0), "tensor 't' has the unknown element type 4");
    check(|file| file.stated_tensor("matrix", &[1], 0, 96), "tensor 'matrix' is there twice");
    check(|file| file.stated_tensor("t", &[1 << 40, 1 << 40], 0, 0), "cannot be held as F32");
    check(|file| file.stated_tensor("t", &[0, 1 << 40, 1 << 40], 0, 0), "cannot be held as F32");
    let blocks = "tensor 't' of shape [2, 33] cannot be held as Q8_0, which has blocks of 32 elements";
    check(|file| file.stated_tensor("t", &[33, 2], 8, 0), blocks);
    check(|file| file.stated_tensor("t", &[64], 12, 0), "which has blocks of 256 elements");
    check(|file| file.stated_tensor("t", &[1], 24, 7), "which is not a multiple of the alignment 32");
    check(|file| file.stated_tensor("t", &[1], 0, 1 << 20), "it may be cut short".trim_start_matches("it "));
    check(|file| file.stated_tensor("t", &[1], 0, u64::MAX - 31), "tensor 't' needs 4 bytes");
    check(|file| file.stated_tensor("t", &[u64::MAX >> 6], 0, 0), "tensor 't'");
    check(|file| file.stated_tensor("t", &[1], 0, 0), "tensors 't' and 'matrix' overlap");
    check(|file| file.stated_tensor("t", &[9], 0, 0), "overlap");
}

/// Every beginning of a file is refused, and says that it is one.
#[test]
fn files_that_are_cut_short() {
    let whole = good().bytes();
    for length in 4..whole.len() - 30 {
        match parse(whole[..length].to_vec()) {
            Err(Defect::CutShort { .. } | Defect::Count { .. } | Defect::Range { .. }) => {}
            Err(other) => panic!("cut at {length}, it said: {other}"),
            Ok(_) => panic!("cut at {length}, it was accepted"),
        }
    }
}

/// A file of zeros that never ends would be texts without length for hours.
#[test]
fn headers_have_an_end() {
    let dir = std::env::temp_dir().join(format!("tidegate-gguf-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("endless.gguf");
    let mut start = File::default();
    start.key("k", 9, &[&8u32.to_le_bytes()[..], &(1u64 << 36).to_le_bytes()].concat());
    start.counts = Some([0, 1]);
    std::fs::write(&path, start.bytes()).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
    let message = super::Gguf::open(&path).err().unwrap().to_string();
    let limit = header::MAX_HEADER_BYTES;
    assert!(message.contains(&format!("reaches behind {limit} bytes")), "{message}");
    assert!(message.contains("endless.gguf is not a GGUF file that can be read"), "{message}");
    for (name, expected) in [("absent.gguf", "cannot read"), (".", "cannot read")] {
        let message = super::Gguf::open(&dir.join(name)).err().unwrap().to_string();
        assert!(message.contains(expected), "{message}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}
