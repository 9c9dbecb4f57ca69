//! A few rows against one panel, sums in registers.

use crate::cpu::lanes::{Lanes, prefetch};
use crate::packed::PANEL;

use super::product::Product;

/// Rows of the largest block.
pub(super) const ROWS: usize = 6;

/// Lines of a panel from where it is read to where it is asked for.
const AHEAD: usize = 16;

/// The sums of a block before the epilogue.
pub(super) type Sums = [[f32; PANEL]; ROWS];

/// A panel, and the activations that meet it.
#[derive(Clone, Copy)]
pub(super) struct Operands<X> {
    /// The first row's activations, one element per line.
    pub(super) x: *const X,
    /// Elements from one row to the next.
    pub(super) stride: usize,
    /// The first line of the panel: `[line][PANEL]`.
    pub(super) panel: *const u32,
    pub(super) lines: usize,
}

/// Multiplies `rows` (at most [`ROWS`]) rows with the panel. Every sum runs over the lines from first to last in a
/// lane of its own, so it is the same in blocks of any number of rows.
///
/// # Safety
/// `operands` point to as many rows and lines as they say.
#[inline(always)]
pub(super) unsafe fn multiply<P: Product>(
    product: P,
    operands: Operands<P::X>,
    rows: usize,
    sums: &mut Sums,
) {
    // SAFETY: the caller's.
    unsafe {
        if P::Lanes::N == 16 {
            match rows {
                1 => columns::<P, 1, 4>(product, operands, sums),
                2 => columns::<P, 2, 4>(product, operands, sums),
                3 => columns::<P, 3, 4>(product, operands, sums),
                4 => columns::<P, 4, 4>(product, operands, sums),
                5 => columns::<P, 5, 4>(product, operands, sums),
                _ => columns::<P, 6, 4>(product, operands, sums),
            }
        } else {
            match rows {
                1 => columns::<P, 1, 8>(product, operands, sums),
                2 => columns::<P, 2, 4>(product, operands, sums),
                3 => columns::<P, 3, 4>(product, operands, sums),
                4 => columns::<P, 4, 2>(product, operands, sums),
                5 => columns::<P, 5, 2>(product, operands, sums),
                _ => columns::<P, 6, 2>(product, operands, sums),
            }
        }
    }
}

/// `R` rows against the panel, `C` registers of columns at a time.
#[inline(always)]
unsafe fn columns<P: Product, const R: usize, const C: usize>(
    product: P,
    operands: Operands<P::X>,
    sums: &mut Sums,
) {
    let l = product.lanes();
    let wide = P::Lanes::N * C;
    for first in (0..PANEL).step_by(wide) {
        let mut registers = [[l.splat(0.0); C]; R];
        for line in 0..operands.lines {
            // SAFETY: `line` is below `lines` and `r` below the rows, as the caller of `multiply` promised; columns
            // `first..first + wide` are in the panel because `wide` divides its width.
            unsafe {
                let columns = operands.panel.add(line * PANEL + first);
                if wide < PANEL && first == 0 {
                    // The first pass over some columns asks for all of them, or memory would bring the panel in
                    // pieces too far apart for the machine to see where it is read next.
                    for ahead in (0..PANEL).step_by(16) {
                        prefetch(columns.wrapping_add(AHEAD * PANEL + ahead));
                    }
                }
                // One register of columns after the other, and no closure: what is not inlined here would be compiled
                // without the instructions.
                for c in 0..C {
                    let weights = product.weights(columns.add(c * P::Lanes::N));
                    for (r, registers) in registers.iter_mut().enumerate() {
                        let x = *operands.x.add(r * operands.stride + line);
                        registers[c] = product.step(registers[c], x, weights);
                    }
                }
            }
        }
        for (registers, sums) in registers.iter().zip(sums.iter_mut()) {
            for (c, &register) in registers.iter().enumerate() {
                let lanes = &mut sums[first + c * P::Lanes::N..][..P::Lanes::N];
                // SAFETY: the slice holds a register.
                unsafe { l.store(lanes.as_mut_ptr(), register) };
            }
        }
    }
}
