//! When memory gets short: how short it is, and how much may be started meanwhile.

use std::time::Duration;

use crate::metrics::System;

/// How much of the memory is taken, whoever takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// The share that is used, 0 to 1.
    pub used: f64,
    /// The share of the time in which some work stood still for lack of memory (PSI), 0 to 1.
    pub stalled: f64,
}

impl Reading {
    /// What a system says. What it does not say counts as zero.
    pub fn of(system: &System) -> Self {
        let memory = system.memory();
        let used = memory.used_share().unwrap_or(0.0);
        Self { used, stalled: memory.pressure.map_or(0.0, |stalls| stalls.some) }
    }
}

/// How short memory is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// There is enough: everything that fits the ledger starts.
    #[default]
    None,
    /// It gets short: one piece of work starts after each reading.
    Soft,
    /// It is nearly used up: nothing starts.
    Hard,
}

impl Pressure {
    /// How many pieces of work may start until the next reading.
    pub(super) fn allowance(self) -> usize {
        match self {
            Self::None => usize::MAX,
            Self::Soft => 1,
            Self::Hard => 0,
        }
    }
}

/// From which share of the memory on admission is slowed and stopped, as fractions from 0 to 1.
///
/// Pressure rises as soon as a mark is reached and falls only once the reading is `margin` below it, so that a reading
/// that trembles around a mark does not switch to and fro.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Watermarks {
    /// Used memory from which on admission is slowed.
    pub soft: f64,
    /// Used memory from which on nothing starts.
    pub hard: f64,
    /// Stalled time from which on admission is slowed.
    pub soft_stalled: f64,
    /// Stalled time from which on nothing starts.
    pub hard_stalled: f64,
    /// How far a reading must fall below a mark, in proportion to the mark.
    pub margin: f64,
    /// Time between two readings.
    pub every: Duration,
}

impl Default for Watermarks {
    /// Slower from 80 % used or 10 % stalled on, nothing from 90 % used or 40 % stalled on.
    fn default() -> Self {
        Self {
            soft: 0.8,
            hard: 0.9,
            soft_stalled: 0.1,
            hard_stalled: 0.4,
            margin: 0.05,
            every: Duration::from_millis(250),
        }
    }
}

impl Watermarks {
    /// Marks for memory that is short from a share on, and nearly used up half of the way from there to all of it; none for a
    /// share of 1, which is never reached.
    pub fn above(share: f64) -> Option<Self> {
        (share < 1.0).then(|| Self { soft: share, hard: f64::midpoint(share, 1.0), ..Self::default() })
    }

    /// The pressure after a reading, given the pressure before it.
    pub fn judge(&self, before: Pressure, reading: Reading) -> Pressure {
        let reached = |scale: f64| {
            let over =
                |used: f64, stalled: f64| reading.used >= used * scale || reading.stalled >= stalled * scale;
            if over(self.hard, self.hard_stalled) {
                Pressure::Hard
            } else if over(self.soft, self.soft_stalled) {
                Pressure::Soft
            } else {
                Pressure::None
            }
        };
        // What the reading has reached, or what it has not yet fallen enough below to leave.
        reached(1.0).max(before.min(reached(1.0 - self.margin)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_rises_at_a_mark_and_falls_below_its_margin() {
        use Pressure::{Hard, None, Soft};
        let marks = Watermarks::default();
        let check = |trace: &[(f64, f64, Pressure)]| {
            let mut pressure = None;
            for (step, (used, stalled, expected)) in trace.iter().enumerate() {
                pressure = marks.judge(pressure, Reading { used: *used, stalled: *stalled });
                assert_eq!(pressure, *expected, "step {step} of {trace:?}");
            }
        };
        check(&[(0.5, 0.0, None), (0.8, 0.0, Soft), (0.79, 0.0, Soft), (0.77, 0.0, Soft), (0.75, 0.0, None)]);
        check(&[
            (0.95, 0.0, Hard),
            (0.89, 0.0, Hard),
            (0.86, 0.0, Hard),
            (0.85, 0.0, Soft),
            (0.1, 0.0, None),
        ]);
        check(&[(0.79, 0.0, None), (0.89, 0.0, Soft), (0.9, 0.0, Hard), (0.3, 0.0, None)]);
        check(&[(0.1, 0.1, Soft), (0.1, 0.5, Hard), (0.1, 0.39, Hard), (0.1, 0.2, Soft), (0.1, 0.0, None)]);
    }

    #[test]
    fn a_reading_of_this_system() {
        let reading = Reading::of(&System::here());
        assert!((0.0..=1.0).contains(&reading.used) && (0.0..=1.0).contains(&reading.stalled), "{reading:?}");
    }
}
