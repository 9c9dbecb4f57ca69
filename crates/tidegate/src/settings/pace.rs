//! How long streams may wait for their next token, as people write it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use engine::Gains;

use super::TimeSpan;

/// The time between two tokens of a stream that steps aim at, written as a time or as `off`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ItlTarget(
    /// The time; `None` is throughput mode.
    pub Option<Duration>,
);

impl fmt::Display for ItlTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("off"),
            Some(target) => TimeSpan(target).fmt(f),
        }
    }
}

impl FromStr for ItlTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().eq_ignore_ascii_case("off") {
            return Ok(Self(None));
        }
        match text.parse::<TimeSpan>() {
            Ok(TimeSpan(target)) if target >= Duration::from_millis(1) => Ok(Self(Some(target))),
            _ => {
                Err(format!("'{text}' is not a time between tokens; write at least 1ms, as in 50ms, or off"))
            }
        }
    }
}

/// The gains of the controller, written as three numbers: `0.1,0.5,0`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ItlGains(
    /// The numbers.
    pub Gains,
);

impl fmt::Display for ItlGains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Gains { proportional, integral, derivative } = self.0;
        write!(f, "{proportional},{integral},{derivative}")
    }
}

impl FromStr for ItlGains {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Result<Vec<f64>, _> = text.split(',').map(|number| number.trim().parse()).collect();
        match numbers.as_deref() {
            Ok(&[proportional, integral, derivative])
                if [proportional, integral, derivative].iter().all(|gain| (0.0..=2.0).contains(gain))
                    && integral > 0.0 =>
            {
                Ok(Self(Gains { proportional, integral, derivative }))
            }
            _ => Err(format!(
                "'{text}' are no gains; write three numbers from 0 to 2, the second above 0, as in 0.1,0.5,0"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_and_gains() {
        let target = |text: &str| text.parse::<ItlTarget>().map_or_else(|e| e, |target| target.to_string());
        assert_eq!(target("50ms"), "50ms");
        assert_eq!(target("0.1"), "100ms");
        assert_eq!(target("Off"), "off");
        assert!(target("0").contains("at least 1ms"));
        assert!(target("soon").contains("is not a time between tokens"));
        let gains = |text: &str| text.parse::<ItlGains>().map_or_else(|e| e, |gains| gains.to_string());
        assert_eq!(gains("0.1, 0.5, 0"), "0.1,0.5,0");
        assert_eq!(gains(&ItlGains::default().to_string()), ItlGains::default().to_string());
        for wrong in ["0.1,0.5", "0.1,0,0", "1,1,1,1", "a,b,c", "NaN,1,1", "-1,1,1"] {
            assert!(gains(wrong).contains("three numbers"), "{wrong}");
        }
    }
}
