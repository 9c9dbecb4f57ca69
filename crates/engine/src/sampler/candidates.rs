//! Temperature and the three filters, and the draw among what they leave.

use std::cmp::Ordering;

use super::{
    Settings,
    arithmetic::{exp, largest, total},
};

/// A token that may be drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Candidate {
    id: u32,
    score: f32,
}

/// Most probable first; of equals, the lowest id.
fn by_rank(a: &Candidate, b: &Candidate) -> Ordering {
    b.score.total_cmp(&a.score).then(a.id.cmp(&b.id))
}

/// The tokens that survive the filters, ids ascending. Keeps its memory from one row to the next.
#[derive(Debug, Default)]
pub struct Candidates {
    pool: Vec<Candidate>,
    order: Vec<Candidate>,
    masses: Vec<f64>,
    ids: Vec<u32>,
    scores: Vec<f32>,
    probabilities: Vec<f32>,
}

impl Candidates {
    /// Applies temperature, top-k, top-p and min-p to a row of (penalised) logits. The temperature must be above 0.
    /// Minus infinity and NaN never survive.
    pub fn gather(&mut self, logits: &[f32], settings: &Settings) {
        self.pool.clear();
        match settings.top_k as usize {
            0 => self.take_all(logits, settings.temperature),
            k => self.take_top(logits, settings.temperature, k),
        }
        if settings.top_p < 1.0 {
            self.keep_mass(f64::from(settings.top_p));
        }
        if settings.min_p > 0.0 {
            let top = self.pool.iter().fold(f32::NEG_INFINITY, |top, c| top.max(c.score));
            self.pool.retain(|c| exp(c.score - top) >= settings.min_p);
        }
        self.ids.clear();
        self.scores.clear();
        self.ids.extend(self.pool.iter().map(|c| c.id));
        self.scores.extend(self.pool.iter().map(|c| c.score));
    }

    /// The surviving ids, ascending.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The scores of [`Candidates::ids`]: logits after penalties and temperature.
    pub fn scores(&self) -> &[f32] {
        &self.scores
    }

    /// The softmax of [`Candidates::scores`].
    pub fn probabilities(&mut self) -> &[f32] {
        let top = largest(&self.scores);
        self.probabilities.clear();
        self.probabilities.extend(self.scores.iter().map(|&score| exp(score - top)));
        let sum = total(&self.probabilities);
        for probability in &mut self.probabilities {
            *probability = (f64::from(*probability) / sum) as f32;
        }
        &self.probabilities
    }

    fn take_all(&mut self, logits: &[f32], temperature: f32) {
        let scored =
            logits.iter().zip(0..).map(|(&logit, id)| Candidate { id, score: scale(logit, temperature) });
        self.pool.extend(scored.filter(|c| c.score > f32::NEG_INFINITY));
    }

    /// One pass over the row: a block is looked at closer only if one of its scores reaches the floor, which rises
    /// each time the pool has filled up and is cut back to the `k` best.
    fn take_top(&mut self, logits: &[f32], temperature: f32, k: usize) {
        const BLOCK: usize = 16;
        let mut floor = f32::MIN;
        let mut room = 2 * k + 4 * BLOCK;
        let mut scores = [0.0; BLOCK];
        for (block, first) in logits.chunks(BLOCK).zip((0..).step_by(BLOCK)) {
            for (score, &logit) in scores.iter_mut().zip(block) {
                *score = scale(logit, temperature);
            }
            let scores = &scores[..block.len()];
            if !scores.iter().fold(false, |any, &score| any | (score >= floor)) {
                continue;
            }
            let scored = scores.iter().zip(first..).map(|(&score, id)| Candidate { id, score });
            self.pool.extend(scored.filter(|c| c.score >= floor));
            if self.pool.len() >= room {
                floor = self.cut_to(k).unwrap_or(floor);
                // Ties with the k-th stay, however many; doubling keeps the cuts linear in the row all the same.
                room = room.max(2 * self.pool.len());
            }
        }
        self.cut_to(k);
        self.pool.sort_unstable_by_key(|c| c.id);
    }

    /// Drops all candidates below the `k`-th best and returns its score, if there are so many.
    fn cut_to(&mut self, k: usize) -> Option<f32> {
        if self.pool.len() <= k {
            return None;
        }
        let (_, last, _) = self.pool.select_nth_unstable_by(k - 1, by_rank);
        let floor = last.score;
        self.pool.retain(|c| c.score >= floor);
        Some(floor)
    }

    /// Keeps the candidates before which less than `p` of the probability lies, and at least one. The candidates are
    /// counted into narrow ranges of scores, most probable first, and only those of the range in which the mass is reached
    /// are put in order.
    fn keep_mass(&mut self, p: f64) {
        self.scores.clear();
        self.scores.extend(self.pool.iter().map(|c| c.score));
        let (top, lowest) = (largest(&self.scores), self.scores.iter().copied().fold(f32::MAX, f32::min));
        for score in &mut self.scores {
            *score = exp(*score - top);
        }
        let budget = p * total(&self.scores);
        let per_unit = RANGES as f32 / (top - lowest).clamp(f32::MIN_POSITIVE, NO_WEIGHT);
        let range = |score: f32| (((top - score) * per_unit) as usize).min(RANGES - 1);
        self.masses.clear();
        self.masses.resize(RANGES, 0.0);
        for (candidate, &weight) in self.pool.iter().zip(&self.scores) {
            self.masses[range(candidate.score)] += f64::from(weight);
        }
        let mut before = 0.0;
        let whole = self.masses.iter().take_while(|&&mass| {
            let fits = before + mass < budget;
            before += if fits { mass } else { 0.0 };
            fits
        });
        let border = whole.count();
        self.order.clear();
        self.order.extend(self.pool.iter().filter(|c| range(c.score) == border));
        self.order.sort_unstable_by(by_rank);
        let kept = self.order.iter().enumerate().take_while(|(index, candidate)| {
            let first = border == 0 && *index == 0;
            let stays = first || before < budget;
            before += f64::from(exp(candidate.score - top));
            stays
        });
        let kept = kept.count();
        match self.order.get(kept) {
            Some(first_out) => self.pool.retain(|c| by_rank(c, first_out).is_lt()),
            None => self.pool.retain(|c| range(c.score) <= border),
        }
    }
}

/// Ranges of scores that candidates are counted into.
const RANGES: usize = 4096;

/// How far below the best a score has no weight any more.
const NO_WEIGHT: f32 = 88.0;

/// Divides by the temperature; a result too large for `f32` stays a finite number, so that softmax has a meaning.
fn scale(logit: f32, temperature: f32) -> f32 {
    let score = logit / temperature;
    if logit.is_finite() { score.clamp(f32::MIN, f32::MAX) } else { unscaled(logit) }
}

fn unscaled(logit: f32) -> f32 {
    if logit == f32::INFINITY { f32::MAX } else { f32::NEG_INFINITY }
}

/// The smallest index whose cumulative probability exceeds `u`. If rounding leaves the total at or below `u`, the
/// last index that has any probability; `None` if none has.
pub fn draw(probabilities: &[f32], u: f64) -> Option<usize> {
    let mut cumulative = 0.0;
    let mut last = None;
    for (index, &probability) in probabilities.iter().enumerate() {
        if probability > 0.0 {
            cumulative += f64::from(probability);
            last = Some(index);
            if cumulative > u {
                return last;
            }
        }
    }
    last
}
