//! How probable the model held a token and its best alternatives to be, before temperature and filters.

use super::{Candidates, Settings};

/// Reads log-probabilities off rows of raw logits. Keeps its memory from one row to the next.
#[derive(Debug, Default)]
pub struct Ranking {
    candidates: Candidates,
    best: Vec<(u32, f32)>,
}

impl Ranking {
    /// The log-probability of `id`, and the `k` most probable tokens with theirs, most probable first and the lowest
    /// id first among equals.
    pub fn read(&mut self, logits: &[f32], id: u32, k: u32) -> (f32, &[(u32, f32)]) {
        let norm = self.candidates.log_sum_exp(logits);
        let logprob = |logit: f32| (f64::from(logit) - norm) as f32;
        self.best.clear();
        if k > 0 {
            self.candidates.gather(logits, &Settings { top_k: k, ..Settings::default() });
            let found = self.candidates.ids().iter().zip(self.candidates.scores());
            self.best.extend(found.map(|(&id, &score)| (id, score)));
            self.best.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            self.best.truncate(k as usize);
        }
        for entry in &mut self.best {
            entry.1 = logprob(entry.1);
        }
        (logprob(logits.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY)), &self.best)
    }
}
