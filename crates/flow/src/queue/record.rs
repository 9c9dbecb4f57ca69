//! How an item becomes bytes that outlive the process, and an item again.

use std::any::type_name;
use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::Serialize;
use serde::de::DeserializeOwned;

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

/// An item that is kept as JSON: `Queue<Json<T>>` needs nothing of `T` but what serde derives.
///
/// It reads like the item. A later version of the program may add fields that have a default.
///
/// ```
/// # use flow::queue::{Json, Record};
/// #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
/// struct Letter {
///     to: String,
/// }
///
/// let mut bytes = Vec::new();
/// Json(Letter { to: "Bob".to_owned() }).encode(&mut bytes);
/// assert_eq!(bytes, br#"{"to":"Bob"}"#);
/// assert_eq!(Json::<Letter>::decode(&bytes)?.to, "Bob");
/// # Ok::<(), flow::queue::RecordError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Json<T>(pub T);

impl<T> Deref for Json<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Json<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Serialize + DeserializeOwned> Record for Json<T> {
    /// # Panics
    /// If JSON has no words for `T`, such as for a map whose keys are no texts. Nothing was accepted then.
    fn encode(&self, into: &mut Vec<u8>) {
        if let Err(error) = serde_json::to_writer(into, &self.0) {
            panic!("{} cannot be written as JSON: {error}", type_name::<T>());
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let item = serde_json::from_slice(bytes);
        item.map(Self).map_err(|error| RecordError::new(format!("{} as JSON", type_name::<T>()), error))
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
