//! Operations that turn a row into a row: norms, rotary positions, pooling, log-sum-exp.

use crate::cpu::dispatch::Work;
use crate::cpu::lanes::Lanes;
use crate::cpu::math::exp;
use crate::kernels::{Place, Tap};
use crate::{Angles, Norm};

/// Registers that a sum over a row is kept in; the order of additions follows from it and from the width of the row.
const CHAINS: usize = 4;

/// Normalises every row of `x` into `out`.
pub(super) struct Normalize<'a> {
    pub(super) x: &'a [f32],
    pub(super) norm: Norm<'a>,
    pub(super) out: &'a mut [f32],
}

impl<L: Lanes> Work<L> for Normalize<'_> {
    #[inline(always)]
    fn run(self, l: L) {
        let width = self.norm.width();
        for (x, out) in self.x.chunks_exact(width).zip(self.out.chunks_exact_mut(width)) {
            let (shift, scale) = moments(l, x, self.norm);
            for at in (0..width).step_by(L::N) {
                l.write(&mut out[at..], normalized(l, &x[at..], (shift, scale), (self.norm, at)));
            }
        }
    }
}

/// Normalises and rotates the heads of every row of `x` in place.
pub(super) struct NormRope<'a> {
    pub(super) x: &'a mut [f32],
    pub(super) place: Place,
    pub(super) norm: Option<Norm<'a>>,
    pub(super) angles: Angles<'a>,
}

impl<L: Lanes> Work<L> for NormRope<'_> {
    #[inline(always)]
    fn run(self, l: L) {
        let Self { x, place, norm, angles } = self;
        let half = angles.half;
        for (row, x) in x.chunks_exact_mut(place.stride).enumerate() {
            let cos = &angles.cos[row * half..(row + 1) * half];
            let sin = &angles.sin[row * half..(row + 1) * half];
            let heads = &mut x[place.offset..place.offset + place.heads * place.dim];
            for head in heads.chunks_exact_mut(place.dim) {
                if let Some(norm) = norm {
                    let moments = moments(l, head, norm);
                    for at in (0..place.dim).step_by(L::N) {
                        let value = normalized(l, &head[at..], moments, (norm, at));
                        l.write(&mut head[at..], value);
                    }
                }
                let (low, high) = head[..2 * half].split_at_mut(half);
                rotate(l, (low, high), cos, sin);
            }
        }
    }
}

/// Adds four weighted rows of a table to every row of `out`.
pub(super) struct Interpolate<'a> {
    pub(super) table: &'a [f32],
    pub(super) width: usize,
    pub(super) taps: &'a [[Tap; 4]],
    pub(super) out: &'a mut [f32],
}

impl<L: Lanes> Work<L> for Interpolate<'_> {
    #[inline(always)]
    fn run(self, l: L) {
        let width = self.width;
        for (taps, out) in self.taps.iter().zip(self.out.chunks_exact_mut(width)) {
            let rows = taps.map(|tap| &self.table[tap.row as usize * width..][..width]);
            for at in (0..width).step_by(L::N) {
                let mut sum = l.read(&out[at..]);
                for (row, tap) in rows.iter().zip(taps) {
                    sum = l.fma(l.splat(tap.weight), l.read(&row[at..]), sum);
                }
                l.write(&mut out[at..], sum);
            }
        }
    }
}

/// The mean of each segment's rows, divided by its length.
pub(super) struct MeanPool<'a> {
    pub(super) x: &'a [f32],
    pub(super) width: usize,
    pub(super) segments: &'a [usize],
    pub(super) out: &'a mut [f32],
}

impl<L: Lanes> Work<L> for MeanPool<'_> {
    #[inline(always)]
    fn run(self, l: L) {
        let width = self.width;
        let mut rest = self.x;
        for (&rows, out) in self.segments.iter().zip(self.out.chunks_exact_mut(width)) {
            let (segment, behind) = rest.split_at(rows * width);
            rest = behind;
            out.fill(0.0);
            for row in segment.chunks_exact(width) {
                for at in (0..width).step_by(L::N) {
                    let sum = l.add(l.read(&out[at..]), l.read(&row[at..]));
                    l.write(&mut out[at..], sum);
                }
            }
            scale(l, out, 1.0 / rows.max(1) as f32);
            let length = sum_of_squares(l, out, 0.0).sqrt();
            scale(l, out, 1.0 / length.max(1e-12));
        }
    }
}

/// The logarithm of the sum of exponentials of each row.
pub(super) struct LogSumExp<'a> {
    pub(super) logits: &'a [f32],
    pub(super) width: usize,
    pub(super) out: &'a mut [f32],
}

impl<L: Lanes> Work<L> for LogSumExp<'_> {
    #[inline(always)]
    fn run(self, l: L) {
        let width = self.width;
        for (row, out) in self.logits.chunks_exact(width).zip(self.out) {
            let lowest = l.splat(f32::NEG_INFINITY);
            let mut highest = lowest;
            for at in (0..width).step_by(L::N) {
                highest = l.max(l.keep_first(width - at, l.read(&row[at..]), lowest), highest);
            }
            let highest = l.highest(highest);
            let mut sums = [l.splat(0.0); CHAINS];
            for block in (0..width).step_by(L::N * CHAINS) {
                for (chain, sum) in sums.iter_mut().enumerate() {
                    let at = block + chain * L::N;
                    if at < width {
                        let power = exp(l, l.sub(l.read(&row[at..]), l.splat(highest)));
                        *sum = l.add(*sum, l.keep_first(width - at, power, l.splat(0.0)));
                    }
                }
            }
            *out = highest + total(l, sums).ln();
        }
    }
}

/// What is taken from every element of a row, and what it is then multiplied by.
#[inline(always)]
fn moments<L: Lanes>(l: L, x: &[f32], norm: Norm<'_>) -> (f32, f32) {
    let count = x.len() as f32;
    match norm {
        Norm::Rms { eps, .. } => (0.0, 1.0 / (sum_of_squares(l, x, 0.0) / count + eps).sqrt()),
        Norm::Layer { eps, .. } => {
            let mean = sum(l, x) / count;
            (mean, 1.0 / (sum_of_squares(l, x, mean) / count + eps).sqrt())
        }
    }
}

/// The first elements of `x`, which stand at `at` in their row.
#[inline(always)]
fn normalized<L: Lanes>(l: L, x: &[f32], (shift, scale): (f32, f32), (norm, at): (Norm<'_>, usize)) -> L::F {
    match norm {
        Norm::Rms { weight, .. } => l.mul(l.mul(l.read(x), l.splat(scale)), l.read(&weight[at..])),
        Norm::Layer { weight, bias, .. } => {
            let centred = l.mul(l.sub(l.read(x), l.splat(shift)), l.splat(scale));
            l.fma(centred, l.read(&weight[at..]), l.read(&bias[at..]))
        }
    }
}

#[inline(always)]
fn rotate<L: Lanes>(l: L, (low, high): (&mut [f32], &mut [f32]), cos: &[f32], sin: &[f32]) {
    for at in (0..low.len()).step_by(L::N) {
        let (x, y) = (l.read(&low[at..]), l.read(&high[at..]));
        let (cos, sin) = (l.read(&cos[at..]), l.read(&sin[at..]));
        l.write(&mut low[at..], l.sub(l.mul(x, cos), l.mul(y, sin)));
        l.write(&mut high[at..], l.add(l.mul(y, cos), l.mul(x, sin)));
    }
}

#[inline(always)]
fn scale<L: Lanes>(l: L, row: &mut [f32], factor: f32) {
    for at in (0..row.len()).step_by(L::N) {
        let scaled = l.mul(l.read(&row[at..]), l.splat(factor));
        l.write(&mut row[at..], scaled);
    }
}

#[inline(always)]
fn sum<L: Lanes>(l: L, row: &[f32]) -> f32 {
    let mut sums = [l.splat(0.0); CHAINS];
    for block in (0..row.len()).step_by(L::N * CHAINS) {
        for (chain, sum) in sums.iter_mut().enumerate() {
            let at = block + chain * L::N;
            if at < row.len() {
                *sum = l.add(*sum, l.read(&row[at..]));
            }
        }
    }
    total(l, sums)
}

/// Σ (x − shift)².
#[inline(always)]
fn sum_of_squares<L: Lanes>(l: L, row: &[f32], shift: f32) -> f32 {
    let mut sums = [l.splat(0.0); CHAINS];
    for block in (0..row.len()).step_by(L::N * CHAINS) {
        for (chain, sum) in sums.iter_mut().enumerate() {
            let at = block + chain * L::N;
            if at < row.len() {
                let centred = l.sub(l.read(&row[at..]), l.splat(shift));
                let centred = l.keep_first(row.len() - at, centred, l.splat(0.0));
                *sum = l.fma(centred, centred, *sum);
            }
        }
    }
    total(l, sums)
}

#[inline(always)]
fn total<L: Lanes>(l: L, sums: [L::F; CHAINS]) -> f32 {
    l.sum(l.add(l.add(sums[0], sums[1]), l.add(sums[2], sums[3])))
}
