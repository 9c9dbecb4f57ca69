//! What a step costs, learned from steps.

use std::time::Duration;

use crate::trace::Step;

/// What a step costs, in seconds: so much at all, for each stream, for each prompt token, for each key attended to; and what
/// the vision tower costs beside.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CostModel {
    /// A step with nothing in it.
    pub base: f64,
    /// The next token of a stream.
    pub decode: f64,
    /// A token of a prompt.
    pub prompt: f64,
    /// A key that a token attends to.
    pub attended: f64,
    /// Work of the vision tower that stands for one prompt token.
    pub vision: f64,
}

const TERMS: usize = 4;

type Matrix = [[f64; TERMS + 1]; TERMS];

impl CostModel {
    /// The model that fits the steps best: least squares of relative errors, so that short steps count as much as long
    /// ones, and no term below zero. The tower's time was measured by itself. `None` without steps that compute tokens.
    pub fn fit(steps: &[Step]) -> Option<Self> {
        let vision = vision(steps);
        let steps: Vec<&Step> = steps.iter().filter(|step| computes(step)).collect();
        let mut used: Vec<usize> =
            (0..TERMS).filter(|term| steps.iter().any(|s| terms(s)[*term] > 0.0)).collect();
        while !used.is_empty() {
            let found = solve(normal_equations(&steps, &used), &used);
            match (0..used.len()).filter(|at| found[*at] < 0.0).min_by(|a, b| found[*a].total_cmp(&found[*b]))
            {
                // A negative cost is no cost; what it made up for belongs to the others.
                Some(negative) => _ = used.remove(negative),
                None => {
                    let mut model = [0.0; TERMS];
                    used.iter().zip(found).for_each(|(term, value)| model[*term] = value);
                    let [base, decode, prompt, attended] = model;
                    return Some(Self { base, decode, prompt, attended, vision });
                }
            }
        }
        None
    }

    /// How long the tower takes for so much work.
    pub fn look(&self, vision: u64) -> Duration {
        Duration::try_from_secs_f64(self.vision * vision as f64).unwrap_or(Duration::ZERO)
    }

    /// How long a step takes, but for the tower.
    pub fn step(&self, decode: u64, prompt: u64, attended: u64) -> Duration {
        let seconds = self.base
            + self.decode * decode as f64
            + self.prompt * prompt as f64
            + self.attended * attended as f64;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO)
    }

    /// By what share of its time the model is wrong about the middle one of these steps.
    pub fn median_error(&self, steps: &[Step]) -> f64 {
        let error = |step: &Step| {
            let took = step.took_us as f64 / 1e6;
            (self.step(step.decode, step.prompt, step.attended).as_secs_f64() - took).abs() / took
        };
        let mut errors: Vec<f64> = steps.iter().filter(|step| computes(step)).map(error).collect();
        errors.sort_by(f64::total_cmp);
        errors.get(errors.len() / 2).copied().unwrap_or(0.0)
    }
}

/// Whether it computed tokens; in others only the tower worked.
fn computes(step: &Step) -> bool {
    step.took_us > 0 && step.decode + step.prompt > 0
}

/// Seconds of the tower for a token's worth of work.
fn vision(steps: &[Step]) -> f64 {
    let work: u64 = steps.iter().map(|step| step.vision).sum();
    let took: u64 = steps.iter().map(|step| step.vision_us).sum();
    if work == 0 { 0.0 } else { took as f64 / 1e6 / work as f64 }
}

fn terms(step: &Step) -> [f64; TERMS] {
    [1.0, step.decode as f64, step.prompt as f64, step.attended as f64]
}

fn normal_equations(steps: &[&Step], used: &[usize]) -> Matrix {
    let mut matrix = [[0.0; TERMS + 1]; TERMS];
    for step in steps {
        let took = step.took_us as f64 / 1e6;
        let row = terms(step).map(|term| term / took);
        for (i, a) in used.iter().enumerate() {
            for (j, b) in used.iter().enumerate() {
                matrix[i][j] += row[*a] * row[*b];
            }
            matrix[i][TERMS] += row[*a];
        }
    }
    matrix
}

/// Elimination by Gauss and Jordan. A term that the steps do not tell apart from others gets zero.
fn solve(mut matrix: Matrix, used: &[usize]) -> [f64; TERMS] {
    let count = used.len();
    let scale: [f64; TERMS] = std::array::from_fn(|i| matrix[i][i].max(f64::MIN_POSITIVE));
    let mut found = [0.0; TERMS];
    let mut pivots = [None; TERMS];
    let mut row = 0;
    for (column, pivot) in pivots.iter_mut().enumerate().take(count) {
        let Some(best) =
            (row..count).max_by(|a, b| matrix[*a][column].abs().total_cmp(&matrix[*b][column].abs()))
        else {
            break;
        };
        if matrix[best][column].abs() < scale[column] * 1e-9 {
            continue;
        }
        matrix.swap(row, best);
        let lead = matrix[row];
        for (other, line) in matrix.iter_mut().enumerate().take(count) {
            if other != row {
                let factor = line[column] / lead[column];
                line.iter_mut().zip(lead).for_each(|(value, lead)| *value -= factor * lead);
            }
        }
        *pivot = Some(row);
        row += 1;
    }
    for (column, row) in pivots.iter().enumerate() {
        if let Some(row) = *row {
            found[column] = matrix[row][TERMS] / matrix[row][column];
        }
    }
    found
}
