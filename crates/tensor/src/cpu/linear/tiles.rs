//! Panels by the tiles of AMX.

#[cfg(test)]
mod tests;
mod whole;

use std::ops::Range;

use crate::cpu::dispatch::Work;
use crate::cpu::lanes::Lanes;
use crate::cpu::split::Claims;
use crate::cpu::tiles::{Half, SIDE, Tiles, ask};
use crate::packed::{DEPTH, PANEL, Panel};

use super::Panels;

pub(super) use whole::{TiledWhole, tile_words, unpacked_words};

/// The sums of two rows of tiles before the epilogue.
type Sums = [[f32; PANEL]; 2 * SIDE];

/// A panel, and the rows that meet it.
#[derive(Clone, Copy)]
struct Operands {
    /// Pairs of activations, `stride` bytes from row to row.
    x: *const u32,
    stride: usize,
    panel: *const u32,
    /// Steps of [`DEPTH`] inputs.
    steps: usize,
}

/// The panels of a call that this worker gets hold of, all rows, by tiles.
pub(super) struct Tiled<'a, T> {
    pub(super) panels: Panels<'a>,
    pub(super) tiles: T,
}

impl<L: Lanes, T: Tiles> Work<L> for Tiled<'_, T> {
    #[inline(always)]
    fn run(self, l: L) {
        let Self { panels, mut tiles } = self;
        let Panels { x, stride, rows, weight, strip, claims, .. } = panels;
        let steps = weight.depth() / DEPTH;
        assert!(steps * DEPTH / 2 <= stride && rows.next_multiple_of(SIDE) * stride <= x.len());
        let mut sums: Sums = [[0.0; PANEL]; 2 * SIDE];
        for (panel, rows) in in_cache(claims, (rows, stride)) {
            let Panel::Bf16(weights) = strip.panel(panel) else { panic!("tiles multiply bf16") };
            for first_row in rows.clone().step_by(2 * SIDE) {
                let block = (rows.end - first_row).min(2 * SIDE);
                // SAFETY: `x` has rows up to the next multiple of a tile's, each of at least `steps` tiles, and so has
                // the panel.
                unsafe {
                    let x = x.as_ptr().add(first_row * stride).cast();
                    let operands = Operands { x, stride: stride * 4, panel: weights.as_ptr().cast(), steps };
                    multiply(&mut tiles, operands, block, &mut sums);
                }
                // SAFETY: the rows are there, and no other worker has this panel.
                unsafe { panels.finish_rows(l, panel, first_row, &sums[..block]) };
            }
        }
    }
}

/// The panels that a worker claims, each with some rows: as many as stay in the worker's own cache while a run of panels
/// passes by.
fn in_cache(claims: &Claims, (rows, stride): (usize, usize)) -> impl Iterator<Item = (usize, Range<usize>)> {
    const CACHE: usize = 1 << 20;
    let many = (CACHE / (stride * 4) / (2 * SIDE)).max(1) * 2 * SIDE;
    claims.claim_runs().flat_map(move |run| {
        let parts = (0..rows).step_by(many).map(move |first| first..rows.min(first + many));
        parts.flat_map(move |rows| run.clone().map(move |panel| (panel, rows.clone())))
    })
}

/// At most 32 rows against the whole panel.
///
/// # Safety
/// As many rows as the tiles have that hold `rows`, and the panel, can be read, all `steps` tiles deep.
#[inline(always)]
unsafe fn multiply<T: Tiles>(tiles: &mut T, operands: Operands, rows: usize, sums: &mut Sums) {
    // SAFETY: the caller's.
    unsafe {
        if rows > SIDE {
            two_by_two(tiles, operands, 0, sums);
            two_by_two(tiles, operands, 2 * SIDE, sums);
        } else {
            one_by_four(tiles, operands, sums);
        }
    }
}

/// Bytes of a line of a panel, which is a row of its tiles.
const LINE: usize = PANEL * 4;

/// 32 rows against the 32 columns from `first` on: four loads for four products.
///
/// # Safety
/// 32 rows and a panel can be read, both `steps` tiles deep.
#[inline(always)]
unsafe fn two_by_two<T: Tiles>(tiles: &mut T, operands: Operands, first: usize, sums: &mut Sums) {
    let Operands { x, stride, panel, steps } = operands;
    tiles.zero::<0>();
    tiles.zero::<1>();
    tiles.zero::<2>();
    tiles.zero::<3>();
    for step in 0..steps {
        // SAFETY: the caller's; columns `first..first + 32` are in the panel.
        unsafe {
            let x = x.add(step * DEPTH / 2);
            let lines = panel.add(step * DEPTH / 2 * PANEL + first);
            let (next_x, next_lines) = (x.wrapping_add(DEPTH / 2), lines.wrapping_add(DEPTH / 2 * PANEL));
            tiles.load::<4>(x, stride);
            ask(next_x, stride, Half::Upper);
            tiles.load::<6>(lines, LINE);
            ask(next_x, stride, Half::Lower);
            tiles.load::<7>(lines.add(SIDE), LINE);
            ask(next_x.wrapping_byte_add(SIDE * stride), stride, Half::Upper);
            tiles.load::<5>(x.byte_add(SIDE * stride), stride);
            ask(next_x.wrapping_byte_add(SIDE * stride), stride, Half::Lower);
            tiles.multiply::<0, 4, 6>();
            ask(next_lines, LINE, Half::Upper);
            tiles.multiply::<1, 4, 7>();
            ask(next_lines, LINE, Half::Lower);
            tiles.multiply::<2, 5, 6>();
            ask(next_lines.wrapping_add(SIDE), LINE, Half::Upper);
            tiles.multiply::<3, 5, 7>();
            ask(next_lines.wrapping_add(SIDE), LINE, Half::Lower);
        }
    }
    let to = sums.as_flattened_mut().as_mut_ptr();
    // SAFETY: the sums are 32 rows of a line, of which these are the columns from `first` on.
    unsafe {
        tiles.store::<0>(to.add(first), LINE);
        tiles.store::<1>(to.add(first + SIDE), LINE);
        tiles.store::<2>(to.add(SIDE * PANEL + first), LINE);
        tiles.store::<3>(to.add(SIDE * PANEL + first + SIDE), LINE);
    }
}

/// At most 16 rows against the whole panel, read once from front to back.
///
/// # Safety
/// 16 rows and a panel can be read, both `steps` tiles deep.
#[inline(always)]
unsafe fn one_by_four<T: Tiles>(tiles: &mut T, operands: Operands, sums: &mut Sums) {
    let Operands { x, stride, panel, steps } = operands;
    tiles.zero::<0>();
    tiles.zero::<1>();
    tiles.zero::<2>();
    tiles.zero::<3>();
    for step in 0..steps {
        // SAFETY: the caller's.
        unsafe {
            let lines = panel.add(step * DEPTH / 2 * PANEL);
            tiles.load::<4>(x.add(step * DEPTH / 2), stride);
            tiles.load::<6>(lines, LINE);
            tiles.load::<7>(lines.add(SIDE), LINE);
            tiles.multiply::<0, 4, 6>();
            tiles.multiply::<1, 4, 7>();
            tiles.load::<6>(lines.add(2 * SIDE), LINE);
            tiles.load::<7>(lines.add(3 * SIDE), LINE);
            tiles.multiply::<2, 4, 6>();
            tiles.multiply::<3, 4, 7>();
        }
    }
    let to = sums.as_flattened_mut().as_mut_ptr();
    // SAFETY: the sums are rows of a line, more than 16.
    unsafe {
        tiles.store::<0>(to, LINE);
        tiles.store::<1>(to.add(SIDE), LINE);
        tiles.store::<2>(to.add(2 * SIDE), LINE);
        tiles.store::<3>(to.add(3 * SIDE), LINE);
    }
}
