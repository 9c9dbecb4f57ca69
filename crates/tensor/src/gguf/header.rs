//! Reads and checks the header of a GGUF file; nothing in it is believed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::fmt::Write;

use super::metadata::{Kind, List, Metadata, Value};
use super::{Defect, MAGIC, elements};
use crate::stored::{Entry, FileBytes};

/// The longest header that is read, about twenty times the largest published one. Bounds the time for it too.
pub(super) const MAX_HEADER_BYTES: u64 = 256 << 20;

/// Keys and tensors; about a hundred times as many as the largest published files have.
const MAX_KEYS: u64 = 1 << 16;
const MAX_TENSORS: u64 = 1 << 18;

/// The format's own limits for names, in bytes.
const MAX_KEY_BYTES: u64 = 65_535;
const MAX_TENSOR_NAME_BYTES: u64 = 64;

/// The most extents of a tensor.
const MAX_EXTENTS: u32 = 4;

/// Lists inside of lists, at most.
const MAX_DEPTH: usize = 4;

const DEFAULT_ALIGNMENT: u64 = 32;

/// The least bytes of a key with its value (two lengths, a kind, a byte), and of a tensor (a length, a count, a type, an
/// offset).
const LEAST_KEY_BYTES: u64 = 13;
const LEAST_TENSOR_BYTES: u64 = 24;

/// What a header says, checked.
pub(super) struct Header {
    pub(super) metadata: Metadata,
    pub(super) entries: BTreeMap<String, Entry>,
}

/// Reads the header of `file` and checks it against the file's length.
pub(super) fn read(file: &FileBytes) -> Result<Header, Defect> {
    let mut cursor = Cursor { bytes: file.as_ref(), at: 0 };
    check_magic(&mut cursor)?;
    let tensors = cursor.u64("the number of tensors")?;
    let keys = cursor.u64("the number of keys")?;
    cursor.check_count("keys", keys, (MAX_KEYS, LEAST_KEY_BYTES))?;
    cursor.check_count("tensors", tensors, (MAX_TENSORS, LEAST_TENSOR_BYTES))?;

    let mut values = BTreeMap::new();
    for _ in 0..keys {
        let key = cursor.text("a key", MAX_KEY_BYTES)?.to_owned();
        let value = read_value(&mut cursor, file, &key)?;
        insert(&mut values, "key", key, value)?;
    }
    let alignment = alignment(values.get("general.alignment"))?;

    let mut stated = BTreeMap::new();
    for _ in 0..tensors {
        let (name, tensor) = read_tensor(&mut cursor)?;
        insert(&mut stated, "tensor", name, tensor)?;
    }
    let data = Data::behind(cursor.at as u64, file.as_ref().len() as u64, alignment);
    let mut entries = BTreeMap::new();
    for (name, tensor) in stated {
        let entry = data.check(&name, &tensor)?;
        entries.insert(name, entry);
    }
    check_overlap(&entries)?;
    Ok(Header { metadata: Metadata::new(values), entries })
}

fn check_magic(cursor: &mut Cursor<'_>) -> Result<(), Defect> {
    let start = &cursor.bytes[..cursor.bytes.len().min(MAGIC.len())];
    if start != MAGIC {
        return Err(Defect::Magic { found: shown(start) });
    }
    cursor.at = MAGIC.len();
    match cursor.u32("the version")? {
        2 | 3 => Ok(()),
        found => Err(Defect::Version { found }),
    }
}

/// Bytes for people: printable text as it is, the rest as numbers.
fn shown(bytes: &[u8]) -> String {
    match bytes {
        [] => "an empty file".to_owned(),
        text if text.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ') => {
            format!("'{}'", String::from_utf8_lossy(text))
        }
        other => other.iter().fold("the bytes".to_owned(), |mut shown, byte| {
            // Writing to a string cannot fail.
            write!(shown, " {byte:02x}").ok();
            shown
        }),
    }
}

fn insert<T>(
    map: &mut BTreeMap<String, T>,
    what: &'static str,
    name: String,
    value: T,
) -> Result<(), Defect> {
    match map.entry(name) {
        Slot::Occupied(taken) => Err(Defect::Twice { what, name: taken.key().clone() }),
        Slot::Vacant(free) => {
            free.insert(value);
            Ok(())
        }
    }
}

fn read_value(cursor: &mut Cursor<'_>, file: &FileBytes, key: &str) -> Result<Value, Defect> {
    match cursor.kind(key)? {
        Kind::Text => cursor.text("a text", u64::MAX).map(|text| Value::Text(text.to_owned())),
        Kind::List => {
            let kind = cursor.kind(key)?;
            let count = cursor.u64("the length of a list")?;
            let start = cursor.at;
            pass_items(cursor, key, (kind, count), 1)?;
            // The items are in the file, so their number fits.
            Ok(Value::List(List::new(file.clone(), kind, count as usize, start..cursor.at)))
        }
        number => read_number(cursor, key, number),
    }
}

fn read_number(cursor: &mut Cursor<'_>, key: &str, kind: Kind) -> Result<Value, Defect> {
    let bytes = cursor.take("a number", kind.least_bytes())?;
    // Of the kinds that are left, only flags can be wrong.
    kind.number(bytes).ok_or_else(|| Defect::Flag { key: key.to_owned(), found: bytes[0] })
}

/// Checks the items of a list and passes over them.
fn pass_items(
    cursor: &mut Cursor<'_>,
    key: &str,
    (kind, count): (Kind, u64),
    depth: usize,
) -> Result<(), Defect> {
    if depth > MAX_DEPTH {
        return Err(Defect::Nesting { key: key.to_owned(), most: MAX_DEPTH });
    }
    cursor.check_count("items of a list", count, (u64::MAX, kind.least_bytes()))?;
    match kind {
        Kind::Text => (0..count).try_for_each(|_| cursor.text("a text in a list", u64::MAX).map(|_| ())),
        Kind::List => (0..count).try_for_each(|_| {
            let inner = (cursor.kind(key)?, cursor.u64("the length of a list")?);
            pass_items(cursor, key, inner, depth + 1)
        }),
        Kind::Flag => {
            let flags = cursor.take("the flags of a list", count)?;
            match flags.iter().find(|flag| **flag > 1) {
                Some(found) => Err(Defect::Flag { key: key.to_owned(), found: *found }),
                None => Ok(()),
            }
        }
        number => cursor.take("the numbers of a list", count * number.least_bytes()).map(|_| ()),
    }
}

/// A tensor as the header states it.
struct Stated {
    /// Extents, outermost first.
    shape: Vec<u64>,
    element: u32,
    offset: u64,
}

fn read_tensor(cursor: &mut Cursor<'_>) -> Result<(String, Stated), Defect> {
    let name = cursor.text("the name of a tensor", MAX_TENSOR_NAME_BYTES)?.to_owned();
    let extents = cursor.u32("the number of extents")?;
    if extents > MAX_EXTENTS {
        return Err(Defect::Extents { tensor: name, found: extents });
    }
    let mut shape = Vec::new();
    for _ in 0..extents {
        shape.push(cursor.u64("an extent")?);
    }
    shape.reverse();
    let element = cursor.u32("an element type")?;
    let offset = cursor.u64("the offset of a tensor")?;
    Ok((name, Stated { shape, element, offset }))
}

fn alignment(value: Option<&Value>) -> Result<u64, Defect> {
    match value {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(Value::Unsigned(found)) if found.is_power_of_two() && (8..=1 << 16).contains(found) => {
            Ok(*found)
        }
        Some(Value::Unsigned(found)) => Err(Defect::Alignment { found: found.to_string() }),
        Some(_) => Err(Defect::Alignment { found: "another kind of value".to_owned() }),
    }
}

/// The part of the file behind the header.
struct Data {
    start: u64,
    available: u64,
    alignment: u64,
}

impl Data {
    fn behind(header: u64, length: u64, alignment: u64) -> Self {
        let start = header.next_multiple_of(alignment);
        Self { start, available: length.saturating_sub(start), alignment }
    }

    /// Checks one tensor: a known type, a size that exists, and an aligned range of that size inside the data.
    fn check(&self, name: &str, tensor: &Stated) -> Result<Entry, Defect> {
        let Self { start, available, alignment } = *self;
        let tensor_name = || name.to_owned();
        let element = elements::find(name, tensor.element)?;
        let shape: Option<Vec<usize>> =
            tensor.shape.iter().map(|extent| usize::try_from(*extent).ok()).collect();
        let (Some(needed), Some(shape)) = (bytes_of(&tensor.shape, element), shape) else {
            let (shape, kind) = (tensor.shape.clone(), element.name);
            return Err(Defect::Size { tensor: tensor_name(), shape, kind, block: element.elements });
        };
        let offset = tensor.offset;
        if !offset.is_multiple_of(alignment) {
            return Err(Defect::Offset { tensor: tensor_name(), offset, alignment });
        }
        if offset.checked_add(needed).is_none_or(|end| end > available) {
            return Err(Defect::Range { tensor: tensor_name(), needed, offset, available });
        }
        // Both fit: they are at most the length of a slice that exists.
        let range = (start + offset) as usize..(start + offset + needed) as usize;
        Ok(Entry { kind: element.name, encoding: element.encoding, shape, range })
    }
}

/// Bytes of a tensor, unless they overflow or rows are not whole blocks. The product of the extents other than zero
/// must fit too, so that no caller's stride arithmetic can overflow on an empty tensor of absurd extents.
fn bytes_of(shape: &[u64], element: &elements::Element) -> Option<u64> {
    let row = shape.last().copied().unwrap_or(1);
    if !row.is_multiple_of(element.elements) {
        return None;
    }
    let mut others = shape.iter().filter(|extent| **extent != 0);
    let spread = others.try_fold(1u64, |size, extent| size.checked_mul(*extent))?;
    // Four bytes an element is what widening takes.
    spread.checked_mul(8)?;
    let size = if shape.contains(&0) { 0 } else { spread };
    (size / element.elements).checked_mul(element.bytes)
}

/// Checks that no byte belongs to two tensors.
fn check_overlap(entries: &BTreeMap<String, Entry>) -> Result<(), Defect> {
    let mut ordered: Vec<(&String, &Entry)> =
        entries.iter().filter(|(_, entry)| !entry.range.is_empty()).collect();
    ordered.sort_by_key(|(_, entry)| (entry.range.start, entry.range.end));
    let overlap = ordered.windows(2).find(|pair| pair[0].1.range.end > pair[1].1.range.start);
    match overlap {
        None => Ok(()),
        Some(pair) => Err(Defect::Overlap { first: pair[0].0.clone(), second: pair[1].0.clone() }),
    }
}

/// Walks through the header; every step is checked against the end of the file.
struct Cursor<'f> {
    bytes: &'f [u8],
    at: usize,
}

impl<'f> Cursor<'f> {
    fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    /// Refuses a count of things of at least `least` bytes each that cannot be in what is left of the file.
    fn check_count(&self, what: &'static str, found: u64, (most, least): (u64, u64)) -> Result<(), Defect> {
        let most = most.min(self.left() / least);
        if found > most { Err(Defect::Count { what, found, most }) } else { Ok(()) }
    }

    fn take(&mut self, what: &'static str, needed: u64) -> Result<&'f [u8], Defect> {
        let at = self.at as u64;
        if needed > self.left() {
            return Err(Defect::CutShort { what, at, needed, length: self.bytes.len() as u64 });
        }
        if at + needed > MAX_HEADER_BYTES {
            return Err(Defect::HeaderLength { what, at, limit: MAX_HEADER_BYTES });
        }
        let taken = &self.bytes[self.at..self.at + needed as usize];
        self.at += taken.len();
        Ok(taken)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, Defect> {
        let bytes = self.take(what, 4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, Defect> {
        let (low, high) = (self.u32(what)?, self.u32(what)?);
        Ok(u64::from(high) << 32 | u64::from(low))
    }

    fn kind(&mut self, key: &str) -> Result<Kind, Defect> {
        let found = self.u32("the kind of a value")?;
        Kind::of(found).ok_or_else(|| Defect::ValueKind { key: key.to_owned(), found })
    }

    fn text(&mut self, what: &'static str, most: u64) -> Result<&'f str, Defect> {
        let length = self.u64(what)?;
        if length > most {
            return Err(Defect::Count { what: "bytes of a name", found: length, most });
        }
        let at = self.at as u64;
        let bytes = self.take(what, length)?;
        std::str::from_utf8(bytes).map_err(|_| Defect::Utf8 { what, at })
    }
}
