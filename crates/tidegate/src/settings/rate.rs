//! A rate as people write it.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use flow::queue::Rate;

/// So many requests, or tokens, per second, minute or hour, written as `5/s`, `60/min` or `1000/h`. After a quiet time,
/// as many may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// How many.
    pub count: NonZeroU32,
    /// In which time.
    pub per: Period,
}

/// The time over which a rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// A second.
    Second,
    /// 60 seconds.
    Minute,
    /// 60 minutes.
    Hour,
}

impl Allowance {
    /// What each of so many may, for all of them together to may this; rounded up.
    pub(crate) fn part(self, parts: usize) -> Self {
        let parts = u32::try_from(parts.max(1)).unwrap_or(u32::MAX);
        Self { count: NonZeroU32::new(self.count.get().div_ceil(parts)).unwrap_or(self.count), ..self }
    }
}

impl From<Allowance> for Rate {
    fn from(rate: Allowance) -> Self {
        let seconds = match rate.per {
            Period::Second => 1,
            Period::Minute => 60,
            Period::Hour => 3600,
        };
        Self::new(rate.count, Duration::from_secs(seconds)).burst(rate.count)
    }
}

impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = match self.per {
            Period::Second => "s",
            Period::Minute => "min",
            Period::Hour => "h",
        };
        write!(f, "{}/{per}", self.count)
    }
}

impl FromStr for Allowance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || {
            format!("'{text}' is not a rate; write a number from 1 and a time, as in 5/s, 60/min or 1000/h")
        };
        let (count, per) = text.split_once('/').ok_or_else(refuse)?;
        let per = match per.trim() {
            "s" | "sec" => Period::Second,
            "m" | "min" => Period::Minute,
            "h" => Period::Hour,
            _ => return Err(refuse()),
        };
        Ok(Self { count: count.trim().parse().map_err(|_| refuse())?, per })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        let check = |text: &str, shown: &str| {
            let rate = text.parse::<Allowance>().map_or_else(|error| error, |rate| rate.to_string());
            assert!(rate.contains(shown), "{text}: {rate}");
        };
        check("5/s", "5/s");
        check(" 60 / min ", "60/min");
        check("60/m", "60/min");
        check("1000/h", "1000/h");
        check("0/s", "a number from 1");
        check("-1/s", "is not a rate");
        check("5", "as in 5/s");
        check("5/day", "is not a rate");
        check("5000000000/s", "is not a rate");
    }
}
