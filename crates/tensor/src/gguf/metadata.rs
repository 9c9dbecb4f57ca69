//! Keys and values of a GGUF file.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::stored::FileBytes;

/// Keys and values, all checked when the file was opened.
pub struct Metadata {
    values: BTreeMap<String, Value>,
}

/// A value; numbers keep their kind and not their width.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `UINT8` to `UINT64`.
    Unsigned(u64),
    /// `INT8` to `INT64`.
    Signed(i64),
    /// `FLOAT32` or `FLOAT64`.
    Float(f64),
    /// `BOOL`.
    Flag(bool),
    /// `STRING`.
    Text(String),
    /// `ARRAY`.
    List(List),
}

/// The kinds of values, as files number them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Flag,
    Text,
    List,
    U64,
    I64,
    F64,
}

/// In the order of their numbers.
const KINDS: [Kind; 13] = [
    Kind::U8,
    Kind::I8,
    Kind::U16,
    Kind::I16,
    Kind::U32,
    Kind::I32,
    Kind::F32,
    Kind::Flag,
    Kind::Text,
    Kind::List,
    Kind::U64,
    Kind::I64,
    Kind::F64,
];

impl Kind {
    pub(super) fn of(number: u32) -> Option<Self> {
        KINDS.get(number as usize).copied()
    }

    /// The bytes that a value takes: all of a number, the least of a text or a list.
    pub(super) const fn least_bytes(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Flag => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::Text => 8,
            Self::List => 12,
        }
    }

    /// A number from its bytes, of which there are at least as many as it takes; `None` for texts and lists, and for
    /// flags that are neither 0 nor 1.
    pub(super) fn number(self, bytes: &[u8]) -> Option<Value> {
        let mut wide = [0; 8];
        let size = self.least_bytes() as usize;
        wide[..size].copy_from_slice(bytes.get(..size)?);
        let plain = u64::from_le_bytes(wide);
        Some(match self {
            Self::U8 | Self::U16 | Self::U32 | Self::U64 => Value::Unsigned(plain),
            Self::I8 => Value::Signed(i64::from(plain as i8)),
            Self::I16 => Value::Signed(i64::from(plain as i16)),
            Self::I32 => Value::Signed(i64::from(plain as i32)),
            Self::I64 => Value::Signed(plain.cast_signed()),
            Self::F32 => Value::Float(f64::from(f32::from_bits(plain as u32))),
            Self::F64 => Value::Float(f64::from_bits(plain)),
            Self::Flag if plain <= 1 => Value::Flag(plain == 1),
            Self::Flag | Self::Text | Self::List => return None,
        })
    }
}

/// A list as it stands in the file.
#[derive(Clone)]
pub struct List {
    file: FileBytes,
    kind: Kind,
    count: usize,
    range: Range<usize>,
}

impl List {
    /// A list whose `count` items of `kind` were found to fill `range`.
    pub(super) fn new(file: FileBytes, kind: Kind, count: usize, range: Range<usize>) -> Self {
        Self { file, kind, count, range }
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The items of a list of texts; `None` for a list of something else.
    pub fn texts(&self) -> Option<Vec<&str>> {
        let mut rest = self.file.as_ref().get(self.range.clone())?;
        if self.kind != Kind::Text {
            return None;
        }
        let mut texts = Vec::with_capacity(self.count);
        for _ in 0..self.count {
            let (length, behind) = rest.split_first_chunk::<8>()?;
            let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
            let (text, behind) = behind.split_at_checked(length)?;
            texts.push(std::str::from_utf8(text).ok()?);
            rest = behind;
        }
        Some(texts)
    }

    /// The items of a list of numbers or flags; `None` for a list of something else.
    pub fn numbers(&self) -> Option<Vec<Value>> {
        let bytes = self.file.as_ref().get(self.range.clone())?;
        if matches!(self.kind, Kind::Text | Kind::List) {
            return None;
        }
        let items = bytes.chunks_exact(self.kind.least_bytes() as usize);
        items.map(|item| self.kind.number(item)).collect()
    }
}

impl std::fmt::Debug for List {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a list of {} {:?}", self.count, self.kind)
    }
}

impl PartialEq for List {
    fn eq(&self, other: &Self) -> bool {
        let bytes = |list: &Self| list.file.as_ref()[list.range.clone()].to_vec();
        self.kind == other.kind && self.count == other.count && bytes(self) == bytes(other)
    }
}

impl Metadata {
    pub(super) fn new(values: BTreeMap<String, Value>) -> Self {
        Self { values }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// All keys and values, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }
}
