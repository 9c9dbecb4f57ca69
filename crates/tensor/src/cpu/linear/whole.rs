//! Quantised panels against activations of 8 bits: products and sums of whole numbers, then the scales.
//!
//! `y = Σ (scale · xscale) · Σ q · x`: the outer sum runs over steps of inputs ([`Grouping::step`]), each of which has one
//! scale of the weights per column and one of the activations per row; the inner sums are of whole numbers and exact. So
//! the instructions that make them, and how many rows and columns they take at a time, cannot be seen in the bits.
//! Numbers are read as they are packed for any number of rows: nothing is unpacked into the cache.

pub(super) mod activations;

use crate::cpu::dispatch::Work;
use crate::cpu::lanes::{Avx2, Avx512Vnni, Lanes, WholeLanes, prefetch};
use crate::packed::{Grouping, PANEL};
use crate::quantised::Bits;

use super::Panels;
use super::grouped::quantised;
use activations::RowLayout;

/// Rows of the largest block.
pub(super) const ROWS: usize = 6;

/// Lines of a panel from where it is read to where it is asked for.
const AHEAD: usize = 24;

/// The sums of a block before the epilogue.
type Sums = [[f32; PANEL]; ROWS];

/// The panels of a call of a quantised layer that this worker gets hold of, all rows; the activations are what
/// [`activations::Quantise`] makes of them.
#[derive(Clone, Copy)]
pub(super) struct Whole<'a> {
    pub(super) panels: Panels<'a>,
    pub(super) grouping: Grouping,
}

/// A panel, and the activations of some rows that meet it.
#[derive(Clone, Copy)]
struct Operands {
    grouping: Grouping,
    layout: RowLayout,
    /// The first row's activations.
    x: *const u32,
    /// Words from one row to the next.
    stride: usize,
    lines: *const u32,
    /// Words of the panel behind this one that are to be asked for meanwhile, and how many of them after every step.
    next: (*const u32, usize),
}

impl Whole<'_> {
    #[inline(always)]
    fn multiply<W: WholeLanes, const QUADS: usize>(self, w: W) {
        let Self { panels, grouping } = self;
        let Panels { x, stride, rows, strip, claims, .. } = panels;
        let layout = RowLayout::of(grouping);
        assert!(layout.words() <= stride && rows * stride <= x.len());
        let mut sums: Sums = [[0.0; PANEL]; ROWS];
        for panel in claims.claim() {
            let lines = quantised(strip.panel(panel));
            assert!(lines.len() == grouping.lines() * PANEL && grouping.per_word() == 4 * QUADS);
            let blocks = rows.div_ceil(ROWS);
            let share = lines.len().div_ceil((blocks * layout.steps()).max(1));
            for number in 0..blocks {
                // Blocks of nearly equal numbers of rows: a last one of one row would cost as much as one of four.
                let (first_row, end) = (rows * number / blocks, rows * (number + 1) / blocks);
                // SAFETY: the rows of the block are in `x`, each laid out as the layout says, and the panel has the
                // lines of the grouping.
                unsafe {
                    let next = lines.as_ptr().wrapping_add(lines.len() + number * layout.steps() * share);
                    let operands = Operands {
                        grouping,
                        layout,
                        x: x.as_ptr().add(first_row * stride).cast(),
                        stride,
                        lines: lines.as_ptr(),
                        // One block is read at the speed of memory anyway.
                        next: (next, if blocks > 1 { share } else { 0 }),
                    };
                    block::<W, QUADS>(w, operands, end - first_row, &mut sums);
                }
                // SAFETY: the rows are there, and no other worker has this panel.
                unsafe { panels.finish_rows(w.lanes(), panel, first_row, &sums[..end - first_row]) };
            }
        }
    }

    #[inline(always)]
    fn run_on<W: WholeLanes>(self, w: W) {
        match self.grouping.bits {
            Bits::Eight => self.multiply::<W, 1>(w),
            Bits::Four => self.multiply::<W, 2>(w),
        }
    }
}

/// `rows` (at most [`ROWS`]) rows against the panel. As many columns at a time as leave a register for every sum of whole
/// numbers and one for its scaled sum.
///
/// # Safety
/// `operands` point to as many rows and lines as they say.
#[inline(always)]
unsafe fn block<W: WholeLanes, const QUADS: usize>(w: W, operands: Operands, rows: usize, sums: &mut Sums) {
    // SAFETY: the caller's.
    unsafe {
        if W::Lanes::N == 16 {
            match rows {
                1 => columns::<W, QUADS, 1, 4>(w, operands, sums),
                2 => columns::<W, QUADS, 2, 4>(w, operands, sums),
                3 => columns::<W, QUADS, 3, 4>(w, operands, sums),
                4 => columns::<W, QUADS, 4, 2>(w, operands, sums),
                5 => columns::<W, QUADS, 5, 2>(w, operands, sums),
                _ => columns::<W, QUADS, 6, 2>(w, operands, sums),
            }
        } else {
            match rows {
                1 => columns::<W, QUADS, 1, 4>(w, operands, sums),
                2 => columns::<W, QUADS, 2, 2>(w, operands, sums),
                3 => columns::<W, QUADS, 3, 1>(w, operands, sums),
                4 => columns::<W, QUADS, 4, 1>(w, operands, sums),
                5 => columns::<W, QUADS, 5, 1>(w, operands, sums),
                _ => columns::<W, QUADS, 6, 1>(w, operands, sums),
            }
        }
    }
}

/// `R` rows against the panel, `C` registers of columns at a time.
#[inline(always)]
unsafe fn columns<W: WholeLanes, const QUADS: usize, const R: usize, const C: usize>(
    w: W,
    operands: Operands,
    sums: &mut Sums,
) {
    let l = w.lanes();
    let Operands { grouping, layout, x, stride, lines, next: (mut next, share) } = operands;
    for first in (0..PANEL).step_by(W::Lanes::N * C) {
        let mut scaled = [[l.splat(0.0); C]; R];
        for (number, (step, group)) in grouping.walk().enumerate() {
            // SAFETY: the step's lines are the group's, columns `first..first + C · N` are in the panel, and the rows are
            // as long as the layout says; the caller's for the rest.
            unsafe {
                let mut whole = [[w.splat(0); C]; R];
                for (r, whole) in whole.iter_mut().enumerate() {
                    *whole = [w.splat(*x.add(r * stride + layout.correction(number)).cast()); C];
                }
                let numbers =
                    lines.add((group.numbers + (step.first - group.first) / (4 * QUADS)) * PANEL + first);
                let x_of_step = x.add(step.first / 4);
                let places = Places { numbers, x: x_of_step, stride, lines: step.inputs / (4 * QUADS) };
                if W::Lanes::N * C < PANEL && first == 0 {
                    products::<W, QUADS, R, C, AHEAD>(w, places, &mut whole);
                } else {
                    products::<W, QUADS, R, C, 0>(w, places, &mut whole);
                }
                let scales = lines.add(group.scales * PANEL + first).cast();
                add_scaled::<W, R, C>(w, &whole, (scales, operands, number), &mut scaled);
                if first == 0 {
                    // The lines of a page follow each other, so what the next block of panels needs is brought bit by bit.
                    for line in (0..share).step_by(16) {
                        prefetch(next.wrapping_add(line));
                    }
                    next = next.wrapping_add(share);
                }
            }
        }
        for (scaled, sums) in scaled.iter().zip(sums.iter_mut()) {
            for (c, &scaled) in scaled.iter().enumerate() {
                l.write(&mut sums[first + c * W::Lanes::N..], scaled);
            }
        }
    }
}

/// Adds the sums of step `number`, scaled; `scales` are those of the columns, and their offsets follow a line later.
///
/// # Safety
/// As for [`columns`].
#[inline(always)]
unsafe fn add_scaled<W: WholeLanes, const R: usize, const C: usize>(
    w: W,
    whole: &[[W::I; C]; R],
    (scales, operands, number): (*const f32, Operands, usize),
    scaled: &mut [[<W::Lanes as Lanes>::F; C]; R],
) {
    let l = w.lanes();
    let Operands { grouping, layout, x, stride, .. } = operands;
    for c in 0..C {
        // SAFETY: the caller's.
        unsafe {
            let scale = l.load(scales.add(c * W::Lanes::N));
            for (r, (whole, scaled)) in whole.iter().zip(scaled.iter_mut()).enumerate() {
                let x_scale = *x.add(r * stride + layout.scale(number)).cast::<f32>();
                scaled[c] = l.fma(w.to_float(whole[c]), l.mul(scale, l.splat(x_scale)), scaled[c]);
            }
            if grouping.offsets {
                let offset = l.load(scales.add(PANEL + c * W::Lanes::N));
                for (r, scaled) in scaled.iter_mut().enumerate() {
                    let x_sum = *x.add(r * stride + layout.sum(number)).cast::<f32>();
                    scaled[c] = l.fma(l.splat(x_sum), offset, scaled[c]);
                }
            }
        }
    }
}

/// Where the numbers of a step stand, and the activations that meet them.
#[derive(Clone, Copy)]
struct Places {
    numbers: *const u32,
    x: *const u32,
    stride: usize,
    lines: usize,
}

/// Adds the products of a step; asks for lines `A` ahead of those that are read, or for none.
///
/// # Safety
/// `places` point to as many lines as they say, and to `R` rows.
#[inline(always)]
unsafe fn products<W: WholeLanes, const QUADS: usize, const R: usize, const C: usize, const A: usize>(
    w: W,
    places: Places,
    whole: &mut [[W::I; C]; R],
) {
    for line in 0..places.lines {
        // SAFETY: the caller's.
        unsafe {
            let numbers = places.numbers.add(line * PANEL);
            if A > 0 {
                // The first pass over some columns asks for all of them, or memory would bring the panel in pieces.
                for ahead in (0..PANEL).step_by(16) {
                    prefetch(numbers.wrapping_add(A * PANEL + ahead));
                }
            }
            for c in 0..C {
                let words = w.load(numbers.add(c * W::Lanes::N));
                for quad in 0..QUADS {
                    let numbers = if QUADS == 1 { words } else { w.nibbles(words, quad) };
                    for (r, whole) in whole.iter_mut().enumerate() {
                        let x = *places.x.add(r * places.stride + line * QUADS + quad);
                        whole[c] = match QUADS {
                            1 => w.add_products_of_8_bits(whole[c], numbers, x),
                            _ => w.add_products_of_4_bits(whole[c], numbers, x),
                        };
                    }
                }
            }
        }
    }
}

impl Work<Avx2> for Whole<'_> {
    #[inline(always)]
    fn run(self, proof: Avx2) {
        self.run_on(proof);
    }
}

impl Work<Avx512Vnni> for Whole<'_> {
    #[inline(always)]
    fn run(self, proof: Avx512Vnni) {
        self.run_on(proof);
    }
}
