//! 128 bits that stand for a value.

use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use sha2::{Digest as _, Sha256};

/// 128 bits that stand for a value: the first half of a SHA-256 over its content.
///
/// The same content has the same fingerprint in every process and on every machine, and nobody can make two contents
/// that share one, so a value that was computed for one caller is safe to serve to another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint([u64; 2]);

impl Hash for Fingerprint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0[0]);
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.0[0], self.0[1])
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Takes in the content of a value and ends in its fingerprint.
#[derive(Clone)]
pub struct Digest {
    sha: Sha256,
    is_opaque: bool,
}

impl Digest {
    /// A digest that has taken in nothing.
    pub fn new() -> Self {
        Self { sha: Sha256::new(), is_opaque: false }
    }

    /// Takes in bytes. What has no fixed length must be preceded by its length ([`Digest::number`]), so that `ab`, `c`
    /// and `a`, `bc` differ.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.sha.update(bytes);
    }

    /// Takes in a number.
    pub fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    /// Takes in a fingerprint.
    pub fn fingerprint(&mut self, fingerprint: Fingerprint) {
        self.number(fingerprint.0[0]);
        self.number(fingerprint.0[1]);
    }

    /// Says that the value has a part whose content cannot be told: it is equal to no other value.
    pub fn opaque(&mut self) {
        self.is_opaque = true;
    }

    /// The fingerprint of everything taken in; none if a part of it is opaque.
    pub fn finish(self) -> Option<Fingerprint> {
        let hash = self.sha.finalize();
        let half =
            |from: usize| hash[from..from + 8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        (!self.is_opaque).then(|| Fingerprint([half(0), half(8)]))
    }
}

impl Default for Digest {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Digest").field("is_opaque", &self.is_opaque).finish_non_exhaustive()
    }
}

/// A hash that is a fingerprint already needs no further hashing.
#[derive(Default)]
pub(super) struct AsIs(u64);

/// For tables whose keys are fingerprints.
pub(super) type BuildAsIs = BuildHasherDefault<AsIs>;

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}
