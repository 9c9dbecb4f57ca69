//! Amounts of resources: how they are written and what they mean exactly.

use std::fmt;

/// What an amount of a resource counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes, written as a whole number or with a unit: "2GB" is 2·10⁹, "2GiB" is 2³¹.
    Bytes,
    /// Thousandths of a processor or of a device, written as a number with at most three decimals: "0.5" is 500.
    Thousandths,
    /// Things, written as a whole number.
    Count,
}

/// The units of bytes that can be written. Powers of 1000 and of 1024 have different names, so nothing is ambiguous.
const BYTES: [(&str, u64); 13] = [
    ("", 1),
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("PB", 1_000_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
];

/// Why a text is not an amount.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AmountError {
    /// It does not begin with a number, or holds more than a number where no unit is allowed.
    NotANumber {
        /// The text.
        found: String,
        /// What it should count.
        unit: Unit,
    },
    /// It has a unit that does not exist.
    UnknownUnit {
        /// The unit.
        found: String,
    },
    /// It is not a whole multiple of the smallest amount: a byte, a thousandth, a thing.
    NotWhole {
        /// The text.
        found: String,
        /// What it counts.
        unit: Unit,
    },
    /// It is more than can be counted.
    TooLarge {
        /// The text.
        found: String,
    },
}

impl std::error::Error for AmountError {}

impl fmt::Display for AmountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotANumber { found, unit } => write!(f, "'{found}' is no amount; write {}", example(*unit)),
            Self::UnknownUnit { found } => {
                let known: Vec<&str> = BYTES[1..].iter().map(|(name, _)| *name).collect();
                write!(f, "there is no unit '{found}'; choose one of {}", known.join(", "))
            }
            Self::NotWhole { found, unit } => {
                let smallest = match unit {
                    Unit::Bytes => "bytes",
                    Unit::Thousandths => "thousandths",
                    Unit::Count => "things",
                };
                write!(f, "'{found}' is not a whole number of {smallest}; write {}", example(*unit))
            }
            Self::TooLarge { found } => write!(f, "'{found}' is more than can be counted"),
        }
    }
}

fn example(unit: Unit) -> &'static str {
    match unit {
        Unit::Bytes => "bytes such as 500000, 2GB (2·10⁹) or 2GiB (2³¹)",
        Unit::Thousandths => "a number such as 2 or 0.5",
        Unit::Count => "a whole number such as 16",
    }
}

impl Unit {
    /// Reads an amount, exactly: nothing is rounded.
    ///
    /// # Errors
    /// If the text is no amount of this unit.
    pub fn parse(self, text: &str) -> Result<u64, AmountError> {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(digits);
        let not_a_number = || AmountError::NotANumber { found: text.to_owned(), unit: self };
        let factor = match self {
            Self::Bytes => {
                let name = suffix.trim_start();
                let known = BYTES.iter().find(|(unit, _)| *unit == name);
                let is_word = !number.is_empty() && name.chars().all(char::is_alphabetic);
                let unknown = || AmountError::UnknownUnit { found: name.to_owned() };
                known
                    .map(|(_, factor)| *factor)
                    .ok_or_else(|| if is_word { unknown() } else { not_a_number() })?
            }
            Self::Thousandths if suffix.is_empty() => 1000,
            Self::Count if suffix.is_empty() => 1,
            Self::Thousandths | Self::Count => return Err(not_a_number()),
        };
        let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || decimals.contains('.') || number.ends_with('.') {
            return Err(not_a_number());
        }
        let too_large = || AmountError::TooLarge { found: text.to_owned() };
        let decimals = decimals.trim_end_matches('0');
        let scale =
            u32::try_from(decimals.len()).ok().and_then(|n| 10_u128.checked_pow(n)).ok_or_else(too_large)?;
        let digits: u128 = format!("{whole}{decimals}").parse().map_err(|_| too_large())?;
        let scaled = digits.checked_mul(factor.into()).ok_or_else(too_large)?;
        if scaled % scale != 0 {
            return Err(AmountError::NotWhole { found: text.to_owned(), unit: self });
        }
        u64::try_from(scaled / scale).map_err(|_| too_large())
    }

    /// Writes an amount for people. What is written can be read back and means the same.
    pub fn show(self, amount: u64) -> String {
        match self {
            Self::Count => amount.to_string(),
            Self::Thousandths => {
                let text = format!("{}.{:03}", amount / 1000, amount % 1000);
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            }
            Self::Bytes => {
                let written = BYTES.iter().filter_map(|(name, factor)| bytes_in(amount, name, *factor));
                written.min_by_key(String::len).unwrap_or_else(|| format!("{amount}B"))
            }
        }
    }
}

/// Writes bytes in a unit, with at most three decimals if it is a decimal one; `None` if that is not exact or absurd.
fn bytes_in(amount: u64, name: &str, factor: u64) -> Option<String> {
    let decimals = if name.contains('i') { 1 } else { factor.min(1000) };
    if amount < factor || name.len() < 2 || !amount.is_multiple_of(factor / decimals) {
        return None;
    }
    let text = format!("{}.{:03}", amount / factor, amount % factor / (factor / decimals));
    Some(format!("{}{name}", text.trim_end_matches('0').trim_end_matches('.')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Unit;

    fn check(unit: Unit, table: &[(&str, Result<u64, &str>)]) {
        for (text, expected) in table {
            let found = unit.parse(text).map_err(|error| error.to_string());
            match (&found, expected) {
                (Err(error), Err(part)) => assert!(error.contains(part), "{text}: {error}"),
                _ => assert_eq!(found, expected.map_err(str::to_owned), "{text}"),
            }
        }
    }

    #[test]
    fn bytes() {
        check(
            Unit::Bytes,
            &[
                ("0", Ok(0)),
                ("17", Ok(17)),
                ("17B", Ok(17)),
                ("2GB", Ok(2_000_000_000)),
                ("2GiB", Ok(1 << 31)),
                ("2 GiB", Ok(1 << 31)),
                ("1.5KiB", Ok(1536)),
                ("0.3MB", Ok(300_000)),
                ("1.0KB", Ok(1000)),
                ("2kB", Ok(2000)),
                ("18446744073709551615", Ok(u64::MAX)),
                ("18446744073709551616", Err("more than can be counted")),
                ("99999PiB", Err("more than can be counted")),
                ("1.0001kB", Err("not a whole number of bytes")),
                ("0.1KiB", Err("not a whole number of bytes")),
                ("2gb", Err("no unit 'gb'; choose one of B, kB")),
                ("2G", Err("no unit 'G'")),
                ("2GB/s", Err("no amount")),
                ("GB", Err("no amount")),
                ("", Err("no amount")),
                ("-1", Err("no amount")),
                ("1e9", Err("no amount")),
                ("1.GB", Err("no amount")),
                (".5GB", Err("no amount")),
                ("1.2.3GB", Err("no amount")),
                ("true", Err("no amount")),
            ],
        );
    }

    #[test]
    fn shares_and_counts() {
        let shares = [
            ("2", Ok(2000)),
            ("0.5", Ok(500)),
            ("0.125", Ok(125)),
            ("1.5000", Ok(1500)),
            ("0.0001", Err("whole number of thousandths")),
            ("2x", Err("a number such as 2 or 0.5")),
        ];
        check(Unit::Thousandths, &shares);
        let counts = [("16", Ok(16)), ("1.5", Err("whole number of things")), ("2GB", Err("no amount"))];
        check(Unit::Count, &counts);
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(amount in any::<u64>(), zeros in 0_u32..12, binary in 0_u32..50) {
            let decimal = amount >> 40;
            for amount in [amount, decimal.saturating_mul(10_u64.pow(zeros)), (amount >> binary) << binary] {
                for unit in [Unit::Bytes, Unit::Thousandths, Unit::Count] {
                    prop_assert_eq!(unit.parse(&unit.show(amount)), Ok(amount), "{}", unit.show(amount));
                }
            }
        }
    }
}
