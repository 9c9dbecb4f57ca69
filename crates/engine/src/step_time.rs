//! How long steps take, learnt as they are made.

use std::time::Duration;

/// How long a step takes by its rows: a line through what was measured, the latest the most.
#[derive(Clone, Debug, Default)]
pub(crate) struct StepTime {
    weight: f64,
    rows: f64,
    seconds: f64,
    spread: f64,
    shared: f64,
}

impl StepTime {
    /// How much of what is known one step leaves.
    const MEMORY: f64 = 0.98;
    /// As long as no steps of different sizes were seen, a row is held to cost this share of a step.
    const GUESS: f64 = 0.1;

    /// Steps that differ by less tell little about a row.
    const LEAST_SPREAD: usize = 16;
    /// What counts on steps being slow takes them for faster than they were seen to be.
    const CARE: f64 = 0.8;

    /// Learns from a step.
    pub(crate) fn observe(&mut self, rows: usize, seconds: f64) {
        self.weight = self.weight * Self::MEMORY + 1.0;
        let (step_rows, step_seconds) = (rows as f64 - self.rows, seconds - self.seconds);
        self.rows += step_rows / self.weight;
        self.seconds += step_seconds / self.weight;
        self.spread = self.spread * Self::MEMORY + step_rows * (rows as f64 - self.rows);
        self.shared = self.shared * Self::MEMORY + step_rows * (seconds - self.seconds);
    }

    /// Seconds that one more row takes.
    pub(crate) fn row(&self) -> f64 {
        let guess = self.seconds * Self::GUESS;
        ((self.shared + guess) / (self.spread + 1.0)).max(0.0)
    }

    /// Seconds that a step of so many rows takes.
    pub(crate) fn step(&self, rows: usize) -> f64 {
        let row = self.row();
        (self.seconds + (rows as f64 - self.rows) * row).max(row)
    }

    /// The least time in which so many rows can be computed, whatever steps they are part of, once enough was seen.
    pub(crate) fn least(&self, rows: usize) -> Option<Duration> {
        let is_known = self.weight > 2.0 && self.spread > (Self::LEAST_SPREAD * Self::LEAST_SPREAD) as f64;
        is_known.then(|| Duration::from_secs_f64(self.row() * Self::CARE * rows as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_through_the_steps_says_what_a_row_costs() {
        let mut time = StepTime::default();
        for rows in [1, 200, 1, 7, 64, 1, 1, 130] {
            time.observe(rows, 0.02 + 0.003 * rows as f64);
        }
        assert!((time.row() - 0.003).abs() < 1e-4, "{}", time.row());
        assert!((time.step(100) - 0.32).abs() < 0.01, "{}", time.step(100));
        let least = time.least(1000).unwrap().as_secs_f64();
        assert!(least > 2.0 && least < 3.0, "{least}");
    }

    #[test]
    fn steps_of_one_size_tell_nothing_about_a_row() {
        let mut time = StepTime::default();
        (0..50).for_each(|_| time.observe(1, 0.03));
        assert_eq!(time.least(1000), None);
        assert!(time.row() <= 0.03 * StepTime::GUESS);
    }
}
