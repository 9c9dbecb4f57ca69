//! What the filters leave of a row, and the draw among it.

use tensor::scan::{BLOCK, Scan, Softmax};

use super::Settings;
use super::filter::{Filter, Filtered};

/// The tokens that survive temperature, top-k, top-p and min-p. Keeps its memory from one row to the next.
#[derive(Debug, Default)]
pub struct Candidates {
    filter: Filter,
    ids: Vec<u32>,
    scores: Vec<f32>,
    probabilities: Vec<f32>,
    sums: Vec<f64>,
}

impl Candidates {
    /// As the default ones, with the passes of some instruction set.
    pub fn on(scan: Scan) -> Self {
        Self { filter: Filter::on(scan), ..Self::default() }
    }

    /// The token of the largest logit, the lowest one on ties; `None` if nothing is above minus infinity. NaN is never
    /// chosen.
    pub fn best(&mut self, logits: &[f32]) -> Option<u32> {
        let top = self.filter.top(logits)?;
        let block = self.filter.maxima().iter().position(|&largest| largest == top)?;
        let at = logits[block * BLOCK..].iter().position(|&logit| logit == top)?;
        Some((block * BLOCK + at) as u32)
    }

    /// The first token, in the order of ids, up to which more than the share `u` of the probability of those lies that
    /// survive. The temperature must be above 0. `None` if nothing is above minus infinity.
    pub fn choose(&mut self, logits: &[f32], settings: &Settings, u: f64) -> Option<u32> {
        let Filtered { ids, weights, sums, .. } = self.filter.run(logits, settings)?;
        let target = u * sums.iter().sum::<f64>();
        let first = draw(sums, target)?;
        let before: f64 = sums[..first].iter().sum();
        let block = weights.chunks(BLOCK).nth(first)?;
        let index = first * BLOCK + draw(block, target - before)?;
        Some(ids.map_or(index as u32, |ids| ids[index]))
    }

    /// Lists the tokens that survive. The temperature must be above 0. Minus infinity and NaN never do.
    pub fn gather(&mut self, logits: &[f32], settings: &Settings) {
        self.ids.clear();
        self.scores.clear();
        let Some(filtered) = self.filter.run(logits, settings) else { return };
        let Filtered { ids, logits, softmax, weights, by_weight, .. } = filtered;
        for (index, (&logit, &weight)) in logits.iter().zip(weights).enumerate() {
            let stays = if by_weight { weight > 0.0 } else { logit > f32::NEG_INFINITY };
            if stays {
                self.ids.push(ids.map_or(index as u32, |ids| ids[index]));
                self.scores.push(softmax.score(logit));
            }
        }
    }

    /// The ids that [`Candidates::gather`] found, ascending.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The scores of [`Candidates::ids`]: logits after penalties and temperature.
    pub fn scores(&self) -> &[f32] {
        &self.scores
    }

    /// The softmax of [`Candidates::scores`].
    pub fn probabilities(&mut self) -> &[f32] {
        let top = self.scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let softmax = Softmax::new(1.0, top);
        self.filter.scan().weigh(&self.scores, softmax, (&mut self.probabilities, &mut self.sums));
        let sum: f64 = self.sums.iter().sum();
        for probability in &mut self.probabilities {
            *probability = (f64::from(*probability) / sum) as f32;
        }
        &self.probabilities
    }

    /// Natural logarithm of the sum of exponentials of a row. Minus infinity if no element is above it.
    pub fn log_sum_exp(&mut self, logits: &[f32]) -> f64 {
        let plain = Settings::default();
        self.filter.run(logits, &plain).map_or(f64::NEG_INFINITY, |Filtered { top, sums, .. }| {
            f64::from(top) + sums.iter().sum::<f64>().ln()
        })
    }
}

/// The index of the largest element, as [`Candidates::best`] finds it.
pub fn argmax(row: &[f32]) -> Option<u32> {
    Candidates::default().best(row)
}

/// The smallest index up to which the masses add up to more than `target`. If rounding leaves all of them at or below it,
/// the last index that has any mass; `None` if none has.
pub fn draw<M: Copy + Into<f64>>(masses: &[M], target: f64) -> Option<usize> {
    let mut cumulative = 0.0;
    let mut last = None;
    for (index, &mass) in masses.iter().enumerate() {
        let mass: f64 = mass.into();
        if mass > 0.0 {
            cumulative += mass;
            last = Some(index);
            if cumulative > target {
                return last;
            }
        }
    }
    last
}
