//! From what clients heard to figures, and to what is asked of them.

use std::fmt;
use std::time::{Duration, Instant};

use super::client::{End, Heard};
use super::mix::{TENANTS, Tier};

/// What all clients heard.
pub(crate) struct Tally {
    heard: Vec<Heard>,
    competing_until: Option<Instant>,
}

impl Tally {
    /// Of these clients.
    pub(crate) fn of(heard: Vec<Heard>) -> Self {
        Self { heard, competing_until: None }
    }

    /// Tenants competed until then.
    pub(crate) fn competing_until(self, end: Instant) -> Self {
        Self { competing_until: Some(end), ..self }
    }

    /// What each heard.
    pub(crate) fn heard(&self) -> &[Heard] {
        &self.heard
    }

    /// Requests.
    pub(crate) fn len(&self) -> usize {
        self.heard.len()
    }

    fn count(&self, is: impl Fn(&Heard) -> bool) -> usize {
        self.heard.iter().filter(|heard| is(heard)).count()
    }

    /// Requests that were answered to the end.
    pub(crate) fn answered(&self) -> usize {
        self.count(|heard| heard.end == End::Whole)
    }

    /// Requests whose end nobody can tell.
    pub(crate) fn unended(&self) -> usize {
        let unclear = self.heard.iter().filter_map(|heard| match &heard.end {
            End::Unclear(why) => Some(why),
            _ => None,
        });
        unclear.inspect(|why| eprintln!("unclear: {why}")).count()
    }

    /// Requests that began and failed.
    pub(crate) fn failed(&self) -> usize {
        self.count(|heard| matches!(heard.end, End::Failed(_)))
    }

    /// Requests that were refused for lack of room.
    pub(crate) fn refused(&self) -> usize {
        self.count(|heard| heard.end == End::Refused(429))
    }

    /// Malformed requests that heard something else than that they are, and proper ones that heard it.
    pub(crate) fn unchecked(&self) -> usize {
        let told = |heard: &Heard| matches!(heard.end, End::Refused(400 | 404 | 422));
        self.count(|heard| heard.is_malformed != told(heard))
    }

    /// Tokens written a second.
    pub(crate) fn output_rate(&self, time: Duration) -> f64 {
        self.heard.iter().map(|heard| heard.written).sum::<u64>() as f64 / time.as_secs_f64()
    }

    /// Whether tenants got what their weights say, and the urgent came first.
    pub(crate) fn fairness(&self) -> Vec<Bar> {
        let is_competing = |heard: &&Heard| self.competing_until.is_none_or(|end| heard.at <= end);
        let mut cost = [0.0; TENANTS.len()];
        for heard in self.heard.iter().filter(is_competing) {
            cost[heard.tenant] += (heard.read + heard.written) as f64 / f64::from(TENANTS[heard.tenant].1);
        }
        let first = |tier| {
            let of_tier = self.heard.iter().filter(is_competing).filter(|heard| heard.tier == tier);
            median(of_tier.filter_map(|heard| heard.first).map(|time| time.as_secs_f64()).collect())
        };
        let (high, low) = (first(Tier::High), first(Tier::Low));
        println!(
            "first token, median: urgent {:.0} ms, normal {:.0} ms, patient {:.0} ms",
            high * 1e3,
            first(Tier::Normal) * 1e3,
            low * 1e3
        );
        vec![
            Bar::least("Jain's index of tenants by tokens over weight", jain(&cost), 0.98),
            Bar::most("first token of the urgent over that of the patient, medians", high / low, 1.0 / 3.0)
                .of_speed(),
        ]
    }
}

/// Jain, Chiu and Hawe (1984): 1 if all have the same, 1 / n if one has all.
fn jain(shares: &[f64]) -> f64 {
    let (sum, squares) = shares.iter().fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
    sum * sum / (shares.len() as f64 * squares)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// So many of so many, in a hundred.
pub(crate) fn share(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

/// A figure, and what is asked of it.
pub(crate) struct Bar {
    name: &'static str,
    found: f64,
    asked: Asked,
    of_speed: bool,
}

enum Asked {
    Least(f64),
    Most(f64),
}

impl Bar {
    /// None at all.
    pub(crate) fn none(name: &'static str, found: usize) -> Self {
        Self::most(name, found as f64, 0.0)
    }

    /// No less.
    pub(crate) fn least(name: &'static str, found: f64, asked: f64) -> Self {
        Self { name, found, asked: Asked::Least(asked), of_speed: false }
    }

    /// No more.
    pub(crate) fn most(name: &'static str, found: f64, asked: f64) -> Self {
        Self { name, found, asked: Asked::Most(asked), of_speed: false }
    }

    /// It depends on how fast the machine is, and on what else it does.
    pub(crate) fn of_speed(self) -> Self {
        Self { of_speed: true, ..self }
    }

    /// Whether it does.
    pub(crate) fn is_of_speed(&self) -> bool {
        self.of_speed
    }

    /// Whether the figure is as asked. What is no number never is.
    pub(crate) fn is_met(&self) -> bool {
        match self.asked {
            Asked::Least(least) => self.found >= least,
            Asked::Most(most) => self.found <= most,
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_met() { "met" } else { "MISSED" };
        let (word, asked) = match self.asked {
            Asked::Least(least) => ("at least", least),
            Asked::Most(most) => ("at most", most),
        };
        write!(f, "{:<66} {:>9.3}  ({word} {asked:.3}: {verdict})", self.name, self.found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_and_bars() {
        assert_eq!(jain(&[2.0, 2.0, 2.0]), 1.0);
        assert!((jain(&[1.0, 0.0, 0.0]) - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!(median(vec![5.0, 1.0, 3.0]), 3.0);
        assert!(Bar::none("x", 0).is_met() && !Bar::none("x", 1).is_met());
        assert!(Bar::least("x", 0.98, 0.98).is_met());
        assert!(!Bar::least("x", f64::NAN, 0.98).is_met() && !Bar::most("x", f64::NAN, 1.0).is_met());
    }

    #[test]
    fn what_is_malformed_must_be_told_so_and_nobody_else() {
        let heard = |is_malformed, end| Heard {
            tenant: 0,
            tier: Tier::Normal,
            is_malformed,
            end,
            first: None,
            written: 0,
            read: 0,
            at: Instant::now(),
        };
        let check = |is_malformed, end, unchecked| {
            assert_eq!(Tally::of(vec![heard(is_malformed, end)]).unchecked(), unchecked);
        };
        check(true, End::Refused(400), 0);
        check(true, End::Whole, 1);
        check(false, End::Whole, 0);
        check(false, End::Refused(404), 1);
    }
}
