//! Passes over a row of logits, of which sampling is made: maxima, weights and their sums, parts of a row.
//!
//! Every number that comes out is the same on every instruction set, to the bit: roundings and the order of additions are
//! written down here, and registers follow them. So a token that is chosen by these numbers does not depend on the machine.

use crate::Isa;
#[cfg(target_arch = "x86_64")]
use crate::cpu::Level;

/// Elements of a row that have a maximum and a sum of their own.
pub const BLOCK: usize = 128;

/// Sums that are kept side by side, on every instruction set.
pub(crate) const LANES: usize = 16;

/// How logits become weights: `e^(score − top)` with `score = logit / temperature`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Softmax {
    pub(crate) temperature: f32,
    /// Not the largest logit but its score.
    pub(crate) top: f32,
}

impl Softmax {
    /// For a row whose largest logit is `top`; the temperature must be above 0.
    pub fn new(temperature: f32, top: f32) -> Self {
        Self { temperature, top: score(top, temperature) }
    }

    /// The logit divided by the temperature. A result too large for `f32` and a logit of plus infinity become the last
    /// finite number, so that softmax has a meaning; NaN becomes minus infinity.
    pub fn score(&self, logit: f32) -> f32 {
        score(logit, self.temperature)
    }

    /// The smallest logit, from the lowest finite one on, whose score is at least that; `None` where there is none.
    pub fn first_reaching(&self, score: f32) -> Option<f32> {
        if self.temperature == 1.0 && score < f32::MAX {
            return Some(score.max(f32::MIN));
        }
        // Scores rise with logits, and so do these whole numbers; they are their own inverse.
        let turned = |bits: i32| bits ^ ((bits >> 31) & i32::MAX);
        let logit = |key: i32| f32::from_bits(turned(key) as u32);
        let key = |logit: f32| turned(logit.to_bits() as i32);
        let (mut low, mut high) = (key(f32::MIN), key(f32::INFINITY));
        if self.score(f32::INFINITY) < score {
            return None;
        }
        while low < high {
            let middle = (low & high) + ((low ^ high) >> 1);
            if self.score(logit(middle)) >= score {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Some(logit(high))
    }
}

/// Logits from the first on that are below the second, if there is one.
pub type Span = (f32, Option<f32>);

/// The passes on an instruction set.
#[derive(Clone, Copy, Debug)]
pub struct Scan {
    #[cfg(target_arch = "x86_64")]
    level: Option<Level>,
}

impl Default for Scan {
    fn default() -> Self {
        Self::new(Isa::best())
    }
}

impl Scan {
    /// Panics unless this machine runs `isa`.
    pub fn new(isa: Isa) -> Self {
        #[cfg(target_arch = "x86_64")]
        return Self { level: (isa != Isa::Scalar).then(|| Level::new(isa)) };
        #[cfg(not(target_arch = "x86_64"))]
        {
            assert!(isa == Isa::Scalar, "this machine does not run {isa}");
            Self {}
        }
    }

    /// The largest number of each [`BLOCK`] of the row; minus infinity for a block that has none.
    pub fn maxima(&self, row: &[f32], maxima: &mut Vec<f32>) {
        maxima.resize(row.len().div_ceil(BLOCK), 0.0);
        self.run(Maxima { row, maxima });
    }

    /// The weight of every logit, and their sum in each [`BLOCK`]. Minus infinity and NaN weigh nothing, as do logits whose
    /// score is 87 below the top.
    pub fn weigh(&self, row: &[f32], softmax: Softmax, (weights, sums): (&mut Vec<f32>, &mut Vec<f64>)) {
        weights.resize(row.len(), 0.0);
        sums.resize(row.len().div_ceil(BLOCK), 0.0);
        self.run(Weigh { row, softmax, weights, sums });
    }

    /// Puts the logits within `span` to the front of `inside`, in their order, and returns how many they are and what those
    /// at and above its end weigh.
    pub fn split(&self, row: &[f32], weights: &[f32], span: Span, inside: &mut Vec<f32>) -> (usize, f64) {
        assert_eq!(row.len(), weights.len());
        // Whole registers are written.
        inside.resize(inside.len().max(row.len() + LANES), 0.0);
        let mut found = (0, 0.0);
        self.run(Split { row, weights, span, inside, found: &mut found });
        found
    }

    /// Takes the weight of all logits below `floor` away, and of all that weigh less than `least`; the sums follow.
    pub fn keep(&self, row: &[f32], (floor, least): (f32, f32), weights: &mut [f32], sums: &mut [f64]) {
        assert_eq!(row.len(), weights.len());
        assert_eq!(row.len().div_ceil(BLOCK), sums.len());
        self.run(Keep { row, least: (floor, least), weights, sums });
    }

    fn run(self, pass: impl Pass) {
        #[cfg(target_arch = "x86_64")]
        if let Some(level) = self.level {
            return crate::cpu::scan(level, pass);
        }
        pass.run(Plain);
    }
}

/// A pass, to be compiled for an instruction set. `run` must be `#[inline(always)]`, and so must be all that it calls.
pub(crate) trait Pass {
    fn run(self, pack: impl Pack);
}

/// What passes do with a block, in lanes: lane `i` has the elements `i`, `i + LANES` and so on.
pub(crate) trait Pack: Copy {
    /// The largest number in each lane, or minus infinity.
    fn largest(self, block: &[f32]) -> [f32; LANES];

    /// Weighs every logit; the sum of each lane's weights.
    fn weigh(self, row: &[f32], softmax: Softmax, weights: &mut [f32]) -> [f32; LANES];

    /// Makes the weights zero whose logits are below `floor` or which are below `least`; the sum of each lane's.
    fn keep(self, row: &[f32], least: (f32, f32), weights: &mut [f32]) -> [f32; LANES];

    /// The sum of each lane's weights whose logits are not below `high`.
    fn sums_above(self, row: &[f32], weights: &[f32], high: f32) -> [f32; LANES];

    /// Writes the elements that are within `span` to the first places of `to`, which has room for a register more than for
    /// all, and returns how many they are.
    fn pack(self, row: &[f32], span: Span, to: &mut [f32]) -> usize;
}

/// One after the other.
#[derive(Clone, Copy)]
struct Plain;

/// One sum or maximum for each lane, over all values.
fn fold(values: impl Iterator<Item = f32>, first: f32, with: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    let mut lanes = [first; LANES];
    for (i, value) in values.enumerate() {
        lanes[i % LANES] = with(lanes[i % LANES], value);
    }
    lanes
}

fn sums(weights: impl Iterator<Item = f32>) -> [f32; LANES] {
    fold(weights, 0.0, |sum, weight| sum + weight)
}

impl Pack for Plain {
    fn largest(self, block: &[f32]) -> [f32; LANES] {
        fold(block.iter().copied(), f32::NEG_INFINITY, larger)
    }

    fn weigh(self, row: &[f32], softmax: Softmax, weights: &mut [f32]) -> [f32; LANES] {
        for (weight, &logit) in weights.iter_mut().zip(row) {
            *weight = exp(softmax.score(logit) - softmax.top);
        }
        sums(weights.iter().copied())
    }

    fn keep(self, row: &[f32], (floor, least): (f32, f32), weights: &mut [f32]) -> [f32; LANES] {
        for (weight, &logit) in weights.iter_mut().zip(row) {
            *weight = if logit < floor || *weight < least { 0.0 } else { *weight };
        }
        sums(weights.iter().copied())
    }

    fn sums_above(self, row: &[f32], weights: &[f32], high: f32) -> [f32; LANES] {
        sums(row.iter().zip(weights).map(|(x, weight)| if *x < high { 0.0 } else { *weight }))
    }

    #[expect(
        clippy::neg_cmp_op_on_partial_ord,
        reason = "nothing is at or above a NaN, which stands for no end"
    )]
    fn pack(self, row: &[f32], (low, high): Span, to: &mut [f32]) -> usize {
        let high = end(high);
        let mut count = 0;
        for &x in row {
            to[count] = x;
            count += usize::from(x >= low && !(x >= high));
        }
        count
    }
}

/// The end of a span as a number: NaN, which nothing reaches, where there is none.
#[inline(always)]
pub(crate) fn end(high: Option<f32>) -> f32 {
    high.unwrap_or(f32::NAN)
}

struct Maxima<'a> {
    row: &'a [f32],
    maxima: &'a mut [f32],
}

impl Pass for Maxima<'_> {
    #[inline(always)]
    fn run(self, pack: impl Pack) {
        for (block, out) in self.row.chunks(BLOCK).zip(self.maxima) {
            *out = by_halves(pack.largest(block), larger);
        }
    }
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

struct Weigh<'a> {
    row: &'a [f32],
    softmax: Softmax,
    weights: &'a mut [f32],
    sums: &'a mut [f64],
}

impl Pass for Weigh<'_> {
    #[inline(always)]
    fn run(self, pack: impl Pack) {
        let rows = self.row.chunks(BLOCK).zip(self.weights.chunks_mut(BLOCK));
        for ((row, weights), out) in rows.zip(self.sums) {
            *out = sum(pack.weigh(row, self.softmax, weights));
        }
    }
}

struct Split<'a> {
    row: &'a [f32],
    weights: &'a [f32],
    span: Span,
    inside: &'a mut [f32],
    found: &'a mut (usize, f64),
}

impl Pass for Split<'_> {
    #[inline(always)]
    fn run(self, pack: impl Pack) {
        let (mut count, mut above) = (0, 0.0);
        for (row, weights) in self.row.chunks(BLOCK).zip(self.weights.chunks(BLOCK)) {
            if let Some(high) = self.span.1 {
                above += sum(pack.sums_above(row, weights, high));
            }
            count += pack.pack(row, self.span, &mut self.inside[count..]);
        }
        *self.found = (count, above);
    }
}

struct Keep<'a> {
    row: &'a [f32],
    /// The lowest logit and the lowest weight that stay.
    least: (f32, f32),
    weights: &'a mut [f32],
    sums: &'a mut [f64],
}

impl Pass for Keep<'_> {
    #[inline(always)]
    fn run(self, pack: impl Pack) {
        let rows = self.row.chunks(BLOCK).zip(self.weights.chunks_mut(BLOCK));
        for ((row, weights), out) in rows.zip(self.sums) {
            *out = sum(pack.keep(row, self.least, weights));
        }
    }
}

#[inline(always)]
fn sum(lanes: [f32; LANES]) -> f64 {
    f64::from(by_halves(lanes, |a, b| a + b))
}

/// Puts the upper half of the lanes on the lower one until one is left.
#[inline(always)]
fn by_halves(mut lanes: [f32; LANES], with: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = with(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// The score, as a finite number, of a logit above minus infinity; minus infinity for the others.
fn score(logit: f32, temperature: f32) -> f32 {
    let score = (logit / temperature).clamp(f32::MIN, f32::MAX);
    if logit > f32::NEG_INFINITY { score } else { f32::NEG_INFINITY }
}

/// Logits whose score is so far from the top weigh nothing.
pub(crate) const LOWEST: f32 = -87.0;

/// ln 2 in a part that is exact in few bits, and what the part is too much.
pub(crate) const LN_2_HIGH: f32 = 0.693_359_4;
pub(crate) const LN_2_REST: f32 = 2.121_944_4e-4;

/// Of the polynomial of Cephes' `expf` (S. Moshier), the highest first.
pub(crate) const COEFFICIENTS: [f32; 6] =
    [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];

/// e^x for `x ≤ 0`, with a relative error below 2e-7; zero from [`LOWEST`] down, and for NaN.
///
/// `e^x = 2^n · e^r` with `n` the whole number next to `x / ln 2`.
fn exp(x: f32) -> f32 {
    if x.is_nan() || x <= LOWEST {
        return 0.0;
    }
    let n = (x * std::f32::consts::LOG2_E).round_ties_even();
    let r = n.mul_add(-LN_2_HIGH, x);
    let r = n.mul_add(LN_2_REST, r);
    let sum = COEFFICIENTS[1..].iter().fold(COEFFICIENTS[0], |sum, coefficient| sum.mul_add(r, *coefficient));
    // The exponent field of a power of two is the power, counted from 127.
    (r * r).mul_add(sum, r + 1.0) * f32::from_bits(((n + 127.0) as u32) << 23)
}

#[cfg(test)]
mod tests;
