//! Passes over logits, compiled for the machine's instructions.

use super::dispatch::{Level, Work};
use super::lanes::Lanes;
use super::math::exp_within;
use crate::scan::{LANES, LOWEST, Pack, Pass, Softmax, Span, end};

/// Runs a pass on the widest lanes of the level.
pub(crate) fn scan(level: Level, pass: impl Pass) {
    level.run(Compiled(pass));
}

struct Compiled<P>(P);

impl<L: Lanes, P: Pass> Work<L> for Compiled<P> {
    #[inline(always)]
    fn run(self, l: L) {
        self.0.run(Registers(l));
    }
}

/// A register at a time. The lanes of a pass are one register or two.
#[derive(Clone, Copy)]
struct Registers<L>(L);

/// Registers that make up the lanes of a pass, at most.
const MOST: usize = 2;

impl<L: Lanes> Registers<L> {
    #[inline(always)]
    fn lanes(self, registers: [L::F; MOST]) -> Chunk {
        let mut lanes = [0.0; LANES];
        for (to, &from) in lanes.chunks_exact_mut(L::N).zip(&registers) {
            self.0.write(to, from);
        }
        lanes
    }
}

/// A score as a finite number; minus infinity for logits that are not above that.
#[inline(always)]
fn bounded<L: Lanes>(l: L, logit: L::F, score: L::F) -> L::F {
    let none = l.splat(f32::NEG_INFINITY);
    let score = l.max(l.min(score, l.splat(f32::MAX)), l.splat(f32::MIN));
    l.if_less(none, logit, score, none)
}

/// e^x for `x ≤ 0`; zero from -87 down, and for NaN. That needs no bounds before, which [`super::math::exp`] sets.
#[inline(always)]
fn exp<L: Lanes>(l: L, x: L::F) -> L::F {
    l.if_less(l.splat(LOWEST), x, exp_within(l, x), l.splat(0.0))
}

/// The chunks of a block, and what is left of it with `fill` behind it.
#[inline(always)]
fn chunks(block: &[f32], fill: f32) -> (&[Chunk], Chunk, usize) {
    let (chunks, rest) = block.as_chunks::<LANES>();
    let mut last = [fill; LANES];
    // A copy of a length that is not known is a call, which most blocks do without.
    if !rest.is_empty() {
        last[..rest.len()].copy_from_slice(rest);
    }
    (chunks, last, rest.len())
}

/// One element for each lane.
type Chunk = [f32; LANES];

impl<L: Lanes> Registers<L> {
    #[inline(always)]
    fn larger(self, chunk: &Chunk, lanes: &mut [L::F; MOST]) {
        for (lane, part) in lanes.iter_mut().zip(chunk.chunks_exact(L::N)) {
            *lane = self.0.max(self.0.read(part), *lane);
        }
    }

    #[inline(always)]
    fn weigh_chunk(self, chunk: &Chunk, softmax: Softmax, weights: &mut Chunk, lanes: &mut [L::F; MOST]) {
        let Self(l) = self;
        let Softmax { temperature, top } = softmax;
        // No score is above that of the top, and one that falls beyond all numbers below it weighs nothing either way.
        let is_bounded = top.abs() < f32::MAX;
        let parts = chunk.chunks_exact(L::N).zip(weights.chunks_exact_mut(L::N));
        for (lane, (part, weights)) in lanes.iter_mut().zip(parts) {
            let logit = l.read(part);
            // Many rows are not scaled, and divisions take long.
            let score = if temperature == 1.0 { logit } else { l.div(logit, l.splat(temperature)) };
            let score = if is_bounded { score } else { bounded(l, logit, score) };
            let weight = exp(l, l.sub(score, l.splat(top)));
            *lane = l.add(*lane, weight);
            l.write(weights, weight);
        }
    }

    #[inline(always)]
    fn keep_chunk(self, chunk: &Chunk, least: (L::F, L::F), weights: &mut Chunk, lanes: &mut [L::F; MOST]) {
        let Self(l) = self;
        let (zero, (floor, least)) = (l.splat(0.0), least);
        let parts = chunk.chunks_exact(L::N).zip(weights.chunks_exact_mut(L::N));
        for (lane, (part, weights)) in lanes.iter_mut().zip(parts) {
            let weight = l.read(weights);
            let weight = l.if_less(weight, least, zero, weight);
            let weight = l.if_less(l.read(part), floor, zero, weight);
            *lane = l.add(*lane, weight);
            l.write(weights, weight);
        }
    }

    #[inline(always)]
    fn add_above(self, chunk: &Chunk, weights: &Chunk, high: L::F, lanes: &mut [L::F; MOST]) {
        let Self(l) = self;
        let parts = chunk.chunks_exact(L::N).zip(weights.chunks_exact(L::N));
        for (lane, (part, weights)) in lanes.iter_mut().zip(parts) {
            *lane = l.add(*lane, l.if_less(l.read(part), high, l.splat(0.0), l.read(weights)));
        }
    }
}

impl<L: Lanes> Pack for Registers<L> {
    #[inline(always)]
    fn largest(self, block: &[f32]) -> Chunk {
        let mut lanes = [self.0.splat(f32::NEG_INFINITY); MOST];
        let (chunks, last, _) = chunks(block, f32::NEG_INFINITY);
        for chunk in chunks {
            self.larger(chunk, &mut lanes);
        }
        self.larger(&last, &mut lanes);
        self.lanes(lanes)
    }

    #[inline(always)]
    fn weigh(self, row: &[f32], softmax: Softmax, weights: &mut [f32]) -> Chunk {
        let mut lanes = [self.0.splat(0.0); MOST];
        let (chunks, last, count) = chunks(row, f32::NEG_INFINITY);
        let (whole, rest) = weights.as_chunks_mut::<LANES>();
        for (chunk, weights) in chunks.iter().zip(whole) {
            self.weigh_chunk(chunk, softmax, weights, &mut lanes);
        }
        if count > 0 {
            let mut weights = last;
            self.weigh_chunk(&last, softmax, &mut weights, &mut lanes);
            rest.copy_from_slice(&weights[..count]);
        }
        self.lanes(lanes)
    }

    #[inline(always)]
    fn keep(self, row: &[f32], (floor, least): (f32, f32), weights: &mut [f32]) -> Chunk {
        let least = (self.0.splat(floor), self.0.splat(least));
        let mut lanes = [self.0.splat(0.0); MOST];
        let (chunks, last, count) = chunks(row, 0.0);
        let (whole, rest) = weights.as_chunks_mut::<LANES>();
        for (chunk, weights) in chunks.iter().zip(whole) {
            self.keep_chunk(chunk, least, weights, &mut lanes);
        }
        if count > 0 {
            let mut weights = [0.0; LANES];
            weights[..count].copy_from_slice(rest);
            self.keep_chunk(&last, least, &mut weights, &mut lanes);
            rest.copy_from_slice(&weights[..count]);
        }
        self.lanes(lanes)
    }

    #[inline(always)]
    fn sums_above(self, row: &[f32], weights: &[f32], high: f32) -> Chunk {
        let high = self.0.splat(high);
        let mut lanes = [self.0.splat(0.0); MOST];
        let (parts, last, count) = chunks(row, 0.0);
        let (whole, last_weights, _) = chunks(weights, 0.0);
        for (chunk, weights) in parts.iter().zip(whole) {
            self.add_above(chunk, weights, high, &mut lanes);
        }
        if count > 0 {
            self.add_above(&last, &last_weights, high, &mut lanes);
        }
        self.lanes(lanes)
    }

    #[inline(always)]
    fn pack(self, row: &[f32], (low, high): Span, to: &mut [f32]) -> usize {
        assert!(to.len() >= row.len() + L::N);
        let Self(l) = self;
        let span = (l.splat(low), l.splat(end(high)));
        let mut found = 0;
        let whole = row.chunks_exact(L::N);
        let rest = whole.remainder();
        for part in whole {
            // SAFETY: `found` is at most the elements before this part, so a register of room is left.
            found += unsafe { l.store_within(to.as_mut_ptr().add(found), l.read(part), span, L::N) };
        }
        // SAFETY: as above.
        found + unsafe { l.store_within(to.as_mut_ptr().add(found), l.read(rest), span, rest.len()) }
    }
}
