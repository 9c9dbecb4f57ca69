//! Temperature, top-k, top-p and min-p: which logits keep their weight.
//!
//! No row is put in order. What top-k keeps is found by the maxima of blocks, what top-p keeps by [`Borders`].

use tensor::scan::{BLOCK, Scan, Softmax};

use super::Settings;
use super::border::{Border, Borders};

/// Filters rows. Keeps its memory from one to the next.
#[derive(Debug, Default)]
pub(super) struct Filter {
    scan: Scan,
    maxima: Vec<f32>,
    order: Vec<f32>,
    ids: Vec<u32>,
    logits: Vec<f32>,
    weights: Vec<f32>,
    sums: Vec<f64>,
    borders: Borders,
}

/// What is left of a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filtered<'a> {
    /// What the logits stand for, if they are not all of the row. Ids ascend.
    pub(super) ids: Option<&'a [u32]>,
    /// What top-k left.
    pub(super) logits: &'a [f32],
    /// The largest of them.
    pub(super) top: f32,
    /// What scores and weights are made by.
    pub(super) softmax: Softmax,
    /// Zero for what is filtered out.
    pub(super) weights: &'a [f32],
    /// The sum of each block of weights.
    pub(super) sums: &'a [f64],
    /// Whether what weighs nothing is filtered out too.
    pub(super) by_weight: bool,
}

impl Filter {
    pub(super) fn on(scan: Scan) -> Self {
        Self { scan, ..Self::default() }
    }

    pub(super) fn scan(&self) -> Scan {
        self.scan
    }

    /// The largest logit, if any is above minus infinity.
    pub(super) fn top(&mut self, logits: &[f32]) -> Option<f32> {
        self.scan.maxima(logits, &mut self.maxima);
        let top = self.maxima.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        (top > f32::NEG_INFINITY).then_some(top)
    }

    /// The largest logit of each block that [`Filter::top`] looked at last.
    pub(super) fn maxima(&self) -> &[f32] {
        &self.maxima
    }

    /// What is left of a row; `None` if nothing is above minus infinity.
    pub(super) fn run<'a>(&'a mut self, logits: &'a [f32], settings: &Settings) -> Option<Filtered<'a>> {
        let top = self.top(logits)?;
        let softmax = Softmax::new(settings.temperature, top);
        let k = settings.top_k as usize;
        let is_cut = k > 0 && k < logits.len();
        if is_cut {
            self.take_top(logits, softmax, k);
        }
        let logits = if is_cut { &self.logits } else { logits };
        self.scan.weigh(logits, softmax, (&mut self.weights, &mut self.sums));
        let by_weight = settings.top_p < 1.0 || settings.min_p > 0.0;
        if by_weight {
            let border = if settings.top_p < 1.0 {
                let mass = self.sums.iter().sum();
                let weighed = (logits, self.weights.as_slice(), mass);
                self.borders.find((self.scan, softmax), weighed, f64::from(settings.top_p))
            } else {
                Border::ALL
            };
            let weighed = (self.weights.as_mut_slice(), self.sums.as_mut_slice());
            keep((self.scan, logits), border, settings.min_p, weighed);
        }
        Some(Filtered {
            ids: is_cut.then_some(&self.ids),
            logits,
            top,
            softmax,
            weights: &self.weights,
            sums: &self.sums,
            by_weight,
        })
    }

    /// Lists the `k` best logits and all whose scores tie with the last of them. There are at least `k` logits that reach
    /// the `k`-th largest maximum of a block, and they stand in blocks whose maxima do.
    fn take_top(&mut self, logits: &[f32], softmax: Softmax, k: usize) {
        let floor = kth(&self.maxima, k, &mut self.order);
        let floor = floor.map_or(f32::MIN, |floor| lowest_tied(softmax, floor));
        self.ids.clear();
        self.logits.clear();
        for (block, row) in logits.chunks(BLOCK).enumerate() {
            if self.maxima[block] >= floor {
                let found = row.iter().zip(block * BLOCK..).filter(|(logit, _)| **logit >= floor);
                for (&logit, id) in found {
                    self.ids.push(id as u32);
                    self.logits.push(logit);
                }
            }
        }
        if let Some(last) = kth(&self.logits, k, &mut self.order) {
            let floor = lowest_tied(softmax, last);
            let mut logits = self.logits.iter();
            self.ids.retain(|_| logits.next().is_some_and(|&logit| logit >= floor));
            self.logits.retain(|&logit| logit >= floor);
        }
    }
}

/// The `k`-th largest number, if there are more.
fn kth(numbers: &[f32], k: usize, order: &mut Vec<f32>) -> Option<f32> {
    if numbers.len() <= k {
        return None;
    }
    order.clear();
    order.extend_from_slice(numbers);
    let (_, found, _) = order.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    Some(*found)
}

/// The lowest logit whose score is that of `logit`.
fn lowest_tied(softmax: Softmax, logit: f32) -> f32 {
    softmax.first_reaching(softmax.score(logit)).unwrap_or(f32::MIN)
}

/// Takes the weight of what is beyond the border away, and of what weighs less than `least`.
fn keep((scan, logits): (Scan, &[f32]), border: Border, least: f32, weighed: (&mut [f32], &mut [f64])) {
    let (weights, sums) = weighed;
    let Border { floor, above, ties } = border;
    let is_tied = |logit: &f32| *logit >= floor && above.is_none_or(|above| *logit < above);
    // The block of the last tie that stays, and where it stands there.
    let mut open = ties.unwrap_or(0);
    let last = ties.and_then(|_| {
        logits.chunks(BLOCK).position(|row| {
            let tied = row.iter().filter(|logit| is_tied(logit)).count();
            let is_here = tied >= open;
            open -= if is_here { 0 } else { tied };
            is_here
        })
    });
    let Some(block) = last else { return scan.keep(logits, (floor, least), weights, sums) };
    let cut = logits.len().min((block + 1) * BLOCK);
    let (row, behind) = logits.split_at(cut);
    let (kept, kept_behind) = weights.split_at_mut(cut);
    let (kept_sums, sums_behind) = sums.split_at_mut(block + 1);
    let first = block * BLOCK;
    let tied = row[first..].iter().zip(&mut kept[first..]).filter(|(logit, _)| is_tied(logit));
    tied.skip(open).for_each(|(_, weight)| *weight = 0.0);
    scan.keep(row, (floor, least), kept, kept_sums);
    if let Some(above) = above {
        scan.keep(behind, (above, least), kept_behind, sums_behind);
    } else {
        kept_behind.fill(0.0);
        sums_behind.fill(0.0);
    }
}
