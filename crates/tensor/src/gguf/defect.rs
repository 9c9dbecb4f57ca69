//! The ways in which a GGUF file can be wrong.

/// What was expected of a GGUF file and what was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Defect {
    /// The file does not begin as GGUF files do.
    #[error("expected the letters 'GGUF' at its start, found {found}")]
    Magic {
        /// The first bytes, for people.
        found: String,
    },
    /// A version of the format that is not read.
    #[error(
        "expected version 2 or 3 of the format, found {found}{}",
        if found.swap_bytes() < 0x100 { " (its numbers seem to be big-endian)" } else { "" }
    )]
    Version {
        /// The version that the file states.
        found: u32,
    },
    /// The file ends inside of its header.
    #[error("{what} at byte {at} needs {needed} bytes, but the file ends at {length}; it may be cut short")]
    CutShort {
        /// What stands there.
        what: &'static str,
        /// Where it begins.
        at: u64,
        /// Bytes that it takes.
        needed: u64,
        /// Bytes in the file.
        length: u64,
    },
    /// The header is larger than any honest header.
    #[error("{what} at byte {at} reaches behind {limit} bytes, the most that a header may have")]
    HeaderLength {
        /// What stands there.
        what: &'static str,
        /// Where it begins.
        at: u64,
        /// The most bytes that are read.
        limit: u64,
    },
    /// A count or a length that is more than the format, or the file, has room for.
    #[error("it states {found} {what}, but there can be at most {most}; the file may be cut short")]
    Count {
        /// What is counted.
        what: &'static str,
        /// The number that the file states.
        found: u64,
        /// The most that it could be.
        most: u64,
    },
    /// A text that is not UTF-8.
    #[error("{what} at byte {at} is not UTF-8")]
    Utf8 {
        /// What kind of text.
        what: &'static str,
        /// Where it begins.
        at: u64,
    },
    /// A kind of value that the format does not have.
    #[error("'{key}' has a value of the unknown kind {found}")]
    ValueKind {
        /// Which key.
        key: String,
        /// The number of the kind.
        found: u32,
    },
    /// A flag that is neither true nor false.
    #[error("'{key}': expected a flag to be 0 or 1, found {found}")]
    Flag {
        /// Which key.
        key: String,
        /// The byte.
        found: u8,
    },
    /// Lists inside of lists inside of lists.
    #[error("'{key}' holds lists inside of lists, deeper than {most}")]
    Nesting {
        /// Which key.
        key: String,
        /// The deepest that is read.
        most: usize,
    },
    /// Two keys or two tensors have the same name.
    #[error("{what} '{name}' is there twice")]
    Twice {
        /// A key or a tensor.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// An alignment that cannot be.
    #[error("'general.alignment': expected a power of two from 8 to 65536 as UINT32, found {found}")]
    Alignment {
        /// The value, for people.
        found: String,
    },
    /// A number of extents that the format does not allow.
    #[error("tensor '{tensor}' has {found} extents, but there can be at most 4")]
    Extents {
        /// Which tensor.
        tensor: String,
        /// The number that the file states.
        found: u32,
    },
    /// An element type that the format does not have.
    #[error("tensor '{tensor}' has the unknown element type {found}; the file may be of a newer format")]
    ElementType {
        /// Which tensor.
        tensor: String,
        /// The number of the type.
        found: u32,
    },
    /// A shape whose size in bytes does not fit this machine, or whose rows are not whole blocks.
    #[error(
        "tensor '{tensor}' of shape {shape:?} cannot be held as {kind}, which has blocks of {block} elements"
    )]
    Size {
        /// Which tensor.
        tensor: String,
        /// The extents, outermost first.
        shape: Vec<u64>,
        /// Its element type.
        kind: &'static str,
        /// Elements of a block.
        block: u64,
    },
    /// A tensor that does not begin where the alignment allows.
    #[error(
        "tensor '{tensor}' begins at {offset} of the data, which is not a multiple of the alignment {alignment}"
    )]
    Offset {
        /// Which tensor.
        tensor: String,
        /// Where it begins.
        offset: u64,
        /// The alignment of the file.
        alignment: u64,
    },
    /// A tensor that reaches behind the end of the file.
    #[error(
        "tensor '{tensor}' needs {needed} bytes from {offset} of the data, of which there are {available}; \
         the file may be cut short"
    )]
    Range {
        /// Which tensor.
        tensor: String,
        /// Bytes that it takes.
        needed: u64,
        /// Where it begins.
        offset: u64,
        /// Bytes behind the header.
        available: u64,
    },
    /// Two tensors share bytes.
    #[error("tensors '{first}' and '{second}' overlap")]
    Overlap {
        /// The one that begins first.
        first: String,
        /// The other.
        second: String,
    },
}
