//! The ways in which a safetensors file can be wrong.

/// What was expected of a safetensors file and what was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Defect {
    /// There is no room for the header's length.
    #[error("expected at least 8 bytes, found {length}")]
    TooShort {
        /// Bytes in the file.
        length: u64,
    },
    /// The header does not fit the file, or is larger than the format allows.
    #[error("the header claims {claimed} bytes where at most {room} can be")]
    HeaderLength {
        /// The length that the file states.
        claimed: u64,
        /// The most that it could be.
        room: u64,
    },
    /// The header is not JSON of the right form.
    #[error("the header is not a JSON object of tensors: {reason}")]
    HeaderSyntax {
        /// What the JSON reader said.
        reason: String,
    },
    /// An element type that the format does not have.
    #[error("tensor '{tensor}' has the unknown element type '{found}'")]
    UnknownDtype {
        /// Which tensor.
        tensor: String,
        /// The type that the header names.
        found: String,
    },
    /// A shape whose size in bytes does not fit this machine, or is not a whole number of bytes.
    #[error("tensor '{tensor}' of shape {shape:?} has no size in bytes that can be")]
    Size {
        /// Which tensor.
        tensor: String,
        /// The shape that the header states.
        shape: Vec<u64>,
    },
    /// A byte range that is reversed, outside of the data, or not as long as the shape asks.
    #[error(
        "tensor '{tensor}' needs {needed} bytes, but its range is {begin}..{end} in {available} bytes of data; \
         the file may be cut short"
    )]
    Range {
        /// Which tensor.
        tensor: String,
        /// Elements times element size.
        needed: u64,
        /// First byte that the header states.
        begin: u64,
        /// Byte after the last that the header states.
        end: u64,
        /// Bytes behind the header.
        available: u64,
    },
    /// Two tensors share bytes, or bytes belong to none.
    #[error("tensor '{tensor}' begins at byte {begin}, but the tensor before it ends at {expected}")]
    NotContiguous {
        /// Which tensor.
        tensor: String,
        /// Where it begins.
        begin: u64,
        /// Where it should begin.
        expected: u64,
    },
    /// There are bytes behind the last tensor.
    #[error("the tensors end at byte {end} of {available} bytes of data")]
    Trailing {
        /// Where the last tensor ends.
        end: u64,
        /// Bytes behind the header.
        available: u64,
    },
}
