//! Panels by the tiles of AMX.

#[cfg(test)]
mod tests;
mod whole;

use std::ops::Range;

use crate::cpu::dispatch::Work;
use crate::cpu::lanes::{Lanes, prefetch};
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
            let from = From::of(rows.len());
            for first_row in rows.clone().step_by(2 * SIDE) {
                let block = (rows.end - first_row).min(2 * SIDE);
                // SAFETY: `x` has rows up to the next multiple of a tile's, each of at least `steps` tiles, and so has
                // the panel.
                unsafe {
                    let x = x.as_ptr().add(first_row * stride).cast();
                    let operands = Operands { x, stride: stride * 4, panel: weights.as_ptr().cast(), steps };
                    multiply(&mut tiles, operands, (block, from), &mut sums);
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
unsafe fn multiply<T: Tiles>(
    tiles: &mut T,
    operands: Operands,
    (rows, from): (usize, From),
    sums: &mut Sums,
) {
    // SAFETY: the caller's.
    unsafe {
        if rows > SIDE {
            for first in [0, 2 * SIDE] {
                match from {
                    From::Memory => two_by_two::<_, true>(tiles, operands, first, sums),
                    From::Cache => two_by_two::<_, false>(tiles, operands, first, sums),
                }
            }
        } else {
            one_by_four(tiles, operands, sums);
        }
    }
}

/// Where a panel comes from when a block of rows meets it.
#[derive(Clone, Copy)]
enum From {
    /// No other block meets it, so reading takes most of the time and memory is asked ahead.
    Memory,
    /// It is read once for many blocks.
    Cache,
}

impl From {
    /// Where the panel comes from that so many rows meet.
    fn of(rows: usize) -> Self {
        if rows > 2 * SIDE { Self::Cache } else { Self::Memory }
    }
}

/// Bytes of a line of a panel, which is a row of its tiles.
const LINE: usize = PANEL * 4;

/// How far ahead of the tiles memory is asked for, in bytes; behind a panel stands the next one.
const AHEAD: usize = 16 << 10;

/// Asks memory for one of `PARTS` parts of the step that is [`AHEAD`] of the one at `lines`, and of each of its lines for
/// `bytes` bytes. What a machine brings by itself is less than memory gives.
#[inline(always)]
fn ask_memory<const PARTS: usize>(lines: *const u32, bytes: usize, part: usize) {
    for line in part * SIDE / PARTS..(part + 1) * SIDE / PARTS {
        for at in (0..bytes).step_by(64) {
            prefetch(lines.wrapping_byte_add(AHEAD + line * LINE + at));
        }
    }
}

/// 32 rows against the 32 columns from `first` on: four loads for four products.
///
/// # Safety
/// 32 rows and a panel can be read, both `steps` tiles deep.
#[inline(always)]
unsafe fn two_by_two<T: Tiles, const MEMORY: bool>(
    tiles: &mut T,
    operands: Operands,
    first: usize,
    sums: &mut Sums,
) {
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
            let memory = |part| {
                if MEMORY {
                    ask_memory::<8>(lines, LINE / 2, part);
                }
            };
            tiles.load::<4>(x, stride);
            ask(next_x, stride, Half::Upper);
            memory(0);
            tiles.load::<6>(lines, LINE);
            ask(next_x, stride, Half::Lower);
            memory(1);
            tiles.load::<7>(lines.add(SIDE), LINE);
            ask(next_x.wrapping_byte_add(SIDE * stride), stride, Half::Upper);
            memory(2);
            tiles.load::<5>(x.byte_add(SIDE * stride), stride);
            ask(next_x.wrapping_byte_add(SIDE * stride), stride, Half::Lower);
            memory(3);
            tiles.multiply::<0, 4, 6>();
            ask(next_lines, LINE, Half::Upper);
            memory(4);
            tiles.multiply::<1, 4, 7>();
            ask(next_lines, LINE, Half::Lower);
            memory(5);
            tiles.multiply::<2, 5, 6>();
            ask(next_lines.wrapping_add(SIDE), LINE, Half::Upper);
            memory(6);
            tiles.multiply::<3, 5, 7>();
            ask(next_lines.wrapping_add(SIDE), LINE, Half::Lower);
            memory(7);
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
            ask_memory::<4>(lines, LINE, 0);
            tiles.load::<7>(lines.add(SIDE), LINE);
            ask_memory::<4>(lines, LINE, 1);
            tiles.multiply::<0, 4, 6>();
            tiles.multiply::<1, 4, 7>();
            tiles.load::<6>(lines.add(2 * SIDE), LINE);
            ask_memory::<4>(lines, LINE, 2);
            tiles.load::<7>(lines.add(3 * SIDE), LINE);
            ask_memory::<4>(lines, LINE, 3);
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
