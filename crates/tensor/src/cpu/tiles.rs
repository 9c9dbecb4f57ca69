//! The tile registers of AMX, as the machine has them and as Intel's manual says what they do.
//!
//! A tile is 16 rows of 64 bytes. `C[16 rows][16 columns]` gathers `A[16 rows][32 inputs] · B[32 inputs][16 columns]`,
//! and every element of `C` follows from its own row of `A`, its own column of `B` and the order of the inputs. So a
//! row's bits do not depend on what else is in the tile: rows behind the last one are computed and dropped.

mod hardware;
#[cfg(test)]
mod software;

use super::lanes::prefetch_near;

pub(super) use hardware::{Hardware, multiply_tiles};
#[cfg(test)]
pub(super) use software::{Software, flushed};

/// Rows of a tile, and columns of a tile of sums.
pub(super) const SIDE: usize = 16;

/// Asks for half of a tile's rows, `stride` bytes apart; they need not be valid.
///
/// That is eight instructions to stand between two of tiles. Tiles are loaded from the nearest cache in a fraction of the
/// time that the next one takes, and while a neighbour uses the tiles of the same core, two instructions of tiles that follow
/// each other with less than a group of others between them take twice as long: so loads and products alternate with these.
#[inline(always)]
pub(super) fn ask(from: *const u32, stride: usize, half: Half) {
    let first = if half == Half::Upper { 0 } else { SIDE / 2 };
    for row in first..first + SIDE / 2 {
        prefetch_near(from.wrapping_byte_add(row * stride));
    }
}

/// The rows of a tile that are asked for together.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    /// The first eight.
    Upper,
    /// The last eight.
    Lower,
}

/// Eight tile registers of 16 rows and 64 bytes; where they are configured for fewer words, tiles 4 and 5 have that many
/// words a row and tiles 6 and 7 that many rows. Numbers are constants because they are part of instructions.
pub(super) trait Tiles {
    /// Makes all elements of tile `T` zero.
    fn zero<const T: usize>(&mut self);

    /// Reads the rows of tile `T`, `stride` bytes apart: operands, or sums to go on with.
    ///
    /// # Safety
    /// The tile's rows can be read there.
    unsafe fn load<const T: usize>(&mut self, from: *const u32, stride: usize);

    /// Adds to the f32 tile `C` the products of the bf16 tiles `A` and `B` (pairs of inputs along the rows of `B`).
    fn multiply<const C: usize, const A: usize, const B: usize>(&mut self);

    /// Adds to the i32 tile `C` the products of the tiles of bytes `A`, which are signed, and `B`, which are not (four inputs
    /// along the rows of `B`).
    fn multiply_whole<const C: usize, const A: usize, const B: usize>(&mut self);

    /// Writes the rows of tile `T`, `stride` bytes apart.
    ///
    /// # Safety
    /// 16 rows of 64 bytes can be written there.
    unsafe fn store<const T: usize>(&self, to: *mut f32, stride: usize);
}
