//! A few rows against one panel, sums in registers.

use crate::cpu::lanes::Lanes;
use crate::packed::PANEL;

use super::product::Product;

/// Rows of the largest block.
pub(super) const ROWS: usize = 6;

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
