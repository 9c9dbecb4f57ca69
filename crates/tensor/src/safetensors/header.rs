//! Reads and checks the header of a safetensors file; nothing in it is believed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::Defect;
use crate::Dtype;
use crate::stored::{Encoding, Entry};

/// Bytes of the header's length at the start of the file.
pub(super) const LENGTH_BYTES: usize = 8;

/// The format's own limit for the header, which also bounds what parsing it may allocate.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Element types of the format (version 0.8): name, bits of an element, and what the kernels read it as.
const DTYPES: [(&str, u64, Option<Dtype>); 22] = [
    ("BOOL", 8, None),
    ("U8", 8, None),
    ("I8", 8, None),
    ("U16", 16, None),
    ("I16", 16, None),
    ("F16", 16, Some(Dtype::F16)),
    ("BF16", 16, Some(Dtype::Bf16)),
    ("U32", 32, None),
    ("I32", 32, None),
    ("F32", 32, Some(Dtype::F32)),
    ("U64", 64, None),
    ("I64", 64, None),
    ("F64", 64, None),
    ("C64", 64, None),
    ("F8_E5M2", 8, None),
    ("F8_E4M3", 8, None),
    ("F8_E8M0", 8, None),
    ("F8_E4M3FNUZ", 8, None),
    ("F8_E5M2FNUZ", 8, None),
    ("F6_E2M3", 6, None),
    ("F6_E3M2", 6, None),
    ("F4", 4, None),
];

/// Reads the header of `file` and checks it against the file's length.
pub(super) fn read(file: &[u8]) -> Result<BTreeMap<String, Entry>, Defect> {
    let length = file.len() as u64;
    let (prefix, rest) = file.split_first_chunk::<LENGTH_BYTES>().ok_or(Defect::TooShort { length })?;
    let claimed = u64::from_le_bytes(*prefix);
    let room = MAX_HEADER_BYTES.min(rest.len() as u64);
    if claimed > room {
        return Err(Defect::HeaderLength { claimed, room });
    }
    let (json, data) = rest.split_at(claimed as usize);
    let stated: Stated =
        serde_json::from_slice(json).map_err(|error| Defect::HeaderSyntax { reason: error.to_string() })?;
    let data_start = LENGTH_BYTES + json.len();
    let available = data.len() as u64;
    let mut entries = BTreeMap::new();
    for (name, line) in stated.tensors {
        let entry = check(&name, line, data_start, available)?;
        entries.insert(name, entry);
    }
    check_cover(&entries, data_start, available)?;
    Ok(entries)
}

/// Checks one tensor: a known type, a size that exists, and a range of just that size inside the data.
fn check(name: &str, line: Line, data_start: usize, available: u64) -> Result<Entry, Defect> {
    let Some(&(dtype, bits, float)) = DTYPES.iter().find(|(known, ..)| *known == line.dtype) else {
        return Err(Defect::UnknownDtype { tensor: name.to_owned(), found: line.dtype });
    };
    let [begin, end] = line.data_offsets;
    let Some(needed) = bytes_of(&line.shape, bits) else {
        return Err(Defect::Size { tensor: name.to_owned(), shape: line.shape });
    };
    if end > available || end.checked_sub(begin) != Some(needed) {
        return Err(Defect::Range { tensor: name.to_owned(), needed, begin, end, available });
    }
    let shape = line.shape.iter().map(|&extent| usize::try_from(extent)).collect::<Result<_, _>>();
    let Ok(shape) = shape else {
        return Err(Defect::Size { tensor: name.to_owned(), shape: line.shape });
    };
    // Both fit: they are at most the length of a slice that exists.
    let range = data_start + begin as usize..data_start + end as usize;
    Ok(Entry { kind: dtype, encoding: float.map(Encoding::Float), shape, range })
}

/// Bytes of a tensor, unless they overflow or are not whole. The product of the extents other than zero must fit too,
/// so that no caller's stride arithmetic can overflow on an empty tensor of absurd extents.
fn bytes_of(shape: &[u64], bits: u64) -> Option<u64> {
    let spread = shape
        .iter()
        .filter(|&&extent| extent != 0)
        .try_fold(bits, |size, &extent| size.checked_mul(extent))?;
    let size = if shape.contains(&0) { 0 } else { spread };
    size.is_multiple_of(8).then_some(size / 8)
}

/// Checks that the ranges cover the data once: no byte is shared, none is left over.
fn check_cover(entries: &BTreeMap<String, Entry>, data_start: usize, available: u64) -> Result<(), Defect> {
    let mut ordered: Vec<(&String, &Entry)> = entries.iter().collect();
    ordered.sort_by_key(|(_, entry)| (entry.range.start, entry.range.end));
    let mut expected = data_start;
    for (name, entry) in ordered {
        if entry.range.start != expected {
            return Err(Defect::NotContiguous {
                tensor: name.clone(),
                begin: (entry.range.start - data_start) as u64,
                expected: (expected - data_start) as u64,
            });
        }
        expected = entry.range.end;
    }
    let end = (expected - data_start) as u64;
    if end == available { Ok(()) } else { Err(Defect::Trailing { end, available }) }
}

/// One tensor as the header states it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// The header as stated. Read by hand because a plain map keeps the last of two equal names without a word.
struct Stated {
    tensors: BTreeMap<String, Line>,
}

impl<'de> Deserialize<'de> for Stated {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_map(Lines)
    }
}

struct Lines;

impl<'de> Visitor<'de> for Lines {
    type Value = Stated;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object that maps names to tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Stated, A::Error> {
        let mut tensors = BTreeMap::new();
        let mut metadata_seen = false;
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                if std::mem::replace(&mut metadata_seen, true) {
                    return Err(A::Error::custom("'__metadata__' is there twice"));
                }
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            match tensors.entry(name) {
                Slot::Occupied(taken) => {
                    return Err(A::Error::custom(format_args!("tensor '{}' is there twice", taken.key())));
                }
                Slot::Vacant(free) => free.insert(map.next_value::<Line>()?),
            };
        }
        Ok(Stated { tensors })
    }
}
