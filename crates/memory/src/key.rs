//! Names of objects.

use std::fmt;
use std::str::FromStr;

/// The name of an object: a digest that its owner makes of whatever determines the content. Who puts the same key twice
/// puts the same bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(
    /// The digest.
    pub u128,
);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

impl FromStr for Key {
    type Err = std::num::ParseIntError;

    /// Reads what is displayed, and nothing else: 32 digits.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = if text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        {
            text
        } else {
            ""
        };
        u128::from_str_radix(digits, 16).map(Self)
    }
}
