//! How an item becomes bytes that outlive the process, and an item again.

use std::fmt;

/// An item that a store can keep.
///
/// What [`Record::encode`] wrote, [`Record::decode`] of this and of every later version of the program must read: the
/// queue may be opened years later.
pub trait Record: Sized {
    /// Appends the item.
    fn encode(&self, into: &mut Vec<u8>);

    /// Reads what `encode` wrote.
    ///
    /// # Errors
    /// When these bytes are not an item.
    fn decode(bytes: &[u8]) -> Result<Self, RecordError>;
}

/// Bytes that are not an item.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found}")]
pub struct RecordError {
    /// What the bytes should have been.
    pub expected: String,
    /// What they are.
    pub found: String,
}

impl RecordError {
    /// Bytes that are not what they should be.
    pub fn new(expected: impl fmt::Display, found: impl fmt::Display) -> Self {
        Self { expected: expected.to_string(), found: found.to_string() }
    }
}

impl Record for Vec<u8> {
    fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(self);
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        Ok(bytes.to_vec())
    }
}

impl Record for String {
    fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(self.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        Self::from_utf8(bytes.to_vec()).map_err(|error| RecordError::new("UTF-8 text", error))
    }
}
