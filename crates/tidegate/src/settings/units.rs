//! Sizes and times as people write them.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes, written as `4194304`, `4MiB`, `4MB` or `1.5GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(
    /// Bytes.
    pub u64,
);

const BINARY: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
const DECIMAL: [(&str, u64); 4] =
    [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("KB", 1_000)];

impl ByteSize {
    /// The size rounded for people: `1.4 GiB`.
    pub fn approximate(self) -> String {
        match BINARY.iter().find(|(_, unit)| self.0 >= *unit) {
            Some((name, unit)) => {
                let amount = self.0 as f64 / *unit as f64;
                let digits = if amount < 9.95 { 1 } else { 0 };
                format!("{amount:.digits$} {name}")
            }
            None => format!("{} B", self.0),
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match BINARY.iter().find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("'{text}' is not a size; write bytes, or a unit as in 512MiB or 2GiB");
        let (number, unit) = split(text);
        let factor = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            unit => BINARY
                .iter()
                .chain(&DECIMAL)
                .find(|(name, _)| name.eq_ignore_ascii_case(unit))
                .map(|(_, factor)| *factor)
                .ok_or_else(refuse)?,
        };
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(factor).map(Self).ok_or_else(refuse);
        }
        let amount = number.parse::<f64>().map_err(|_| refuse())? * factor as f64;
        if amount.is_finite() && (0.0..u64::MAX as f64).contains(&amount) {
            Ok(Self(amount.round() as u64))
        } else {
            Err(refuse())
        }
    }
}

/// A length of time, written as `30s`, `500ms`, `2m`, `1h`, or as a number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeSpan(
    /// The time.
    pub Duration,
);

impl TimeSpan {
    /// A whole number of seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.subsec_millis() {
            0 => write!(f, "{}s", self.0.as_secs()),
            _ => write!(f, "{}ms", self.0.as_millis()),
        }
    }
}

impl FromStr for TimeSpan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("'{text}' is not a time; write seconds, or a unit as in 500ms, 30s or 2m");
        let (number, unit) = split(text);
        let seconds = match unit {
            "ms" => 0.001,
            "" | "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            _ => return Err(refuse()),
        };
        let amount = number.parse::<f64>().map_err(|_| refuse())? * seconds;
        Duration::try_from_secs_f64(amount).map(Self).map_err(|_| refuse())
    }
}

/// A tenant's share in relation to those of others, written as `alice=4`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantWeight {
    /// The name of the tenant's key.
    pub tenant: String,
    /// Its share.
    pub weight: NonZeroU32,
}

impl fmt::Display for TenantWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.tenant, self.weight)
    }
}

impl FromStr for TenantWeight {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("'{text}' is not a share; write a tenant and a number from 1, as in alice=4");
        let (tenant, weight) = text.rsplit_once('=').ok_or_else(refuse)?;
        let weight = weight.trim().parse().map_err(|_| refuse())?;
        let tenant = tenant.trim().to_owned();
        if tenant.is_empty() { Err(refuse()) } else { Ok(Self { tenant, weight }) }
    }
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        let check = |text: &str, shown: &str| {
            let share = text.parse::<TenantWeight>().map_or_else(|error| error, |share| share.to_string());
            assert!(share.contains(shown), "{text}: {share}");
        };
        check("alice=4", "alice=4");
        check(" a=b = 4 ", "a=b=4");
        check("alice", "'alice' is not a share");
        check("=4", "is not a share");
        check("alice=0", "a number from 1");
        check("alice=-1", "a number from 1");
    }

    #[test]
    fn sizes() {
        let check = |text: &str, bytes: Option<u64>, shown: &str| {
            let size = text.parse::<ByteSize>().ok();
            assert_eq!(size.map(|size| size.0), bytes, "{text}");
            assert_eq!(size.map_or_else(String::new, |size| size.to_string()), shown, "{text}");
        };
        check("0", Some(0), "0");
        check("1000", Some(1000), "1000");
        check("2GiB", Some(2 << 30), "2GiB");
        check("2 gib", Some(2 << 30), "2GiB");
        check("1.5KiB", Some(1536), "1536");
        check("3MB", Some(3_000_000), "3000000");
        check("", None, "");
        check("-1", None, "");
        check("1.2.3MiB", None, "");
        check("2 bananas", None, "");
        check("99999999TiB", None, "");
        assert_eq!(ByteSize(1_503_238_553).approximate(), "1.4 GiB");
        assert_eq!(ByteSize(700).approximate(), "700 B");
    }

    #[test]
    fn times() {
        let check = |text: &str, millis: Option<u128>, shown: &str| {
            let span = text.parse::<TimeSpan>().ok();
            assert_eq!(span.map(|span| span.0.as_millis()), millis, "{text}");
            assert_eq!(span.map_or_else(String::new, |span| span.to_string()), shown, "{text}");
        };
        check("30", Some(30_000), "30s");
        check("500ms", Some(500), "500ms");
        check("1.5m", Some(90_000), "90s");
        check("1h", Some(3_600_000), "3600s");
        check("0", Some(0), "0s");
        check("soon", None, "");
        check("-3s", None, "");
        check("1e400s", None, "");
    }
}
