//! What a piece of work needs, and why it may be impossible.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::amount::{AmountError, Unit};
use super::inventory::{Key, WHOLE};

/// What a piece of work needs to run: amounts by name, in bytes, thousandths or slots.
///
/// ```
/// use flow::scheduler::Needs;
///
/// let needs = Needs::new().memory(2_000_000_000).cpu(500).devices("gpu", 1).with("gpu_memory", 24 << 30);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    amounts: BTreeMap<Arc<str>, u64>,
}

impl Needs {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// So many bytes of the machine's memory.
    pub fn memory(self, bytes: u64) -> Self {
        self.with("memory", bytes)
    }

    /// So many thousandths of a processor.
    pub fn cpu(self, thousandths: u64) -> Self {
        self.with("cpu", thousandths)
    }

    /// So many whole devices of a kind; for a share of one, ask for its thousandths by [`Needs::with`].
    pub fn devices(self, kind: &str, count: u64) -> Self {
        self.with(kind, count.saturating_mul(WHOLE))
    }

    /// So much of anything that the inventory has: bytes, thousandths or slots. What a device has ("gpu_memory") is
    /// needed on each device that the work gets, and on one if it asks for no device.
    pub fn with(mut self, name: &str, amount: u64) -> Self {
        self.amounts.insert(name.into(), amount);
        self
    }

    /// Names and amounts, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.amounts.iter().map(|(name, amount)| (&**name, *amount))
    }

    pub(super) fn parse(text: &str, keys: &[Key]) -> Result<Self, NeedsError> {
        let syntax = || NeedsError::Syntax { found: text.to_owned() };
        let text = text.trim();
        let inner = match text.strip_prefix('{') {
            Some(object) => object.strip_suffix('}').ok_or_else(syntax)?.trim(),
            None => text,
        };
        let mut needs = Self::new();
        if inner.is_empty() {
            return Ok(needs);
        }
        for entry in inner.split(',') {
            let (name, amount) = entry.split_once([':', '=']).ok_or_else(syntax)?;
            let name = unquoted(name).ok_or_else(syntax)?;
            let amount = unquoted(amount).ok_or_else(syntax)?;
            let key = find(keys, name)?;
            let amount = key.parse(amount)?;
            if needs.amounts.insert(Arc::clone(&key.name), amount).is_some() {
                return Err(NeedsError::Twice { name: name.to_owned() });
            }
        }
        Ok(needs)
    }
}

impl Key {
    fn parse(&self, text: &str) -> Result<u64, NeedsError> {
        match text {
            "true" if self.is_device() => Ok(WHOLE),
            "false" if self.is_device() => Ok(0),
            _ => self
                .unit
                .parse(text)
                .map_err(|error| NeedsError::Amount { name: self.name.to_string(), error }),
        }
    }
}

/// The key of a name.
pub(super) fn find<'k>(keys: &'k [Key], name: &str) -> Result<&'k Key, NeedsError> {
    let found = keys.iter().find(|key| *key.name == *name);
    found.ok_or_else(|| {
        let mut known: Vec<String> = keys.iter().map(|key| key.name.to_string()).collect();
        let distance = |other: &String| strsim::damerau_levenshtein(name, other);
        known.sort_by_key(distance);
        let near = known.iter().filter(|other| distance(other) * 3 <= name.len().max(6)).cloned().collect();
        NeedsError::Unknown { name: name.to_owned(), near, known }
    })
}

/// A word without blanks and the quotes around it, if they match.
fn unquoted(word: &str) -> Option<&str> {
    let word = word.trim();
    let bare = word.strip_prefix('"').map_or(Some(word), |rest| rest.strip_suffix('"'))?;
    (!bare.is_empty() && !bare.contains(['"', '{', '}', ':', '='])).then_some(bare)
}

/// Why needs cannot be read, or can never be met.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NeedsError {
    /// It is no list of names with amounts.
    Syntax {
        /// The text.
        found: String,
    },
    /// A name stands twice.
    Twice {
        /// The name.
        name: String,
    },
    /// Nothing in the inventory is called so.
    Unknown {
        /// The name.
        name: String,
        /// Names that look like it.
        near: Vec<String>,
        /// All names, those that look most like it first.
        known: Vec<String>,
    },
    /// An amount cannot be read.
    Amount {
        /// What it is an amount of.
        name: String,
        /// Why.
        error: AmountError,
    },
    /// More than one device, and not a whole number of them.
    BrokenDevices {
        /// The kind.
        kind: String,
        /// Thousandths of a device.
        asked: u64,
    },
    /// More than there is, even if nothing else ran.
    TooMuch {
        /// Of what.
        name: String,
        /// What it counts.
        unit: Unit,
        /// So much was asked for.
        asked: u64,
        /// So much is the most that one piece of work can get.
        largest: u64,
    },
    /// Each amount exists on some device, and not all of them on as many devices as are needed.
    NotTogether {
        /// The kind.
        kind: String,
        /// Devices that are needed.
        devices: u64,
        /// Devices that have all of it.
        suitable: u64,
    },
}

impl std::error::Error for NeedsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Amount { error, .. } => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for NeedsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax { found } => {
                write!(
                    f,
                    "'{found}' is no list of needs; write names with amounts, as in 'memory: 2GB, cpu: 0.5'"
                )
            }
            Self::Twice { name } => write!(f, "'{name}' is needed twice; add the amounts up"),
            Self::Unknown { name, near, known } => {
                write!(f, "there is no resource '{name}'; ")?;
                if let Some(first) = near.first() {
                    write!(f, "did you mean '{first}'? ")?;
                }
                write!(f, "the inventory has {}", known.join(", "))
            }
            Self::Amount { name, error } => write!(f, "{name}: {error}"),
            Self::BrokenDevices { kind, asked } => {
                let asked = Unit::Thousandths.show(*asked);
                write!(f, "{kind}: {asked} devices cannot be had; ask for a share of one, or for whole ones")
            }
            Self::TooMuch { name, unit, asked, largest } => {
                let (asked, largest) = (unit.show(*asked), unit.show(*largest));
                write!(
                    f,
                    "{name}: {asked} is needed and {largest} is the most that there is; it can never run"
                )
            }
            Self::NotTogether { kind, devices, suitable } => write!(
                f,
                "{devices} {kind} devices that have all of what is needed do not exist, only {suitable}; \
                 it can never run"
            ),
        }
    }
}
