//! The tile registers of the machine. The intrinsics are not stable yet, so the instructions are written out.

use std::arch::asm;
use std::marker::PhantomData;

use super::{SIDE, Tiles};
use crate::packed::DEPTH;
use crate::peak::Arithmetic;

/// This thread's tile registers, configured; released when dropped, so that the operating system has less to save.
pub(in crate::cpu) struct Hardware {
    /// Tile registers belong to a thread.
    thread: PhantomData<*mut ()>,
}

/// What `ldtilecfg` reads (Intel SDM, volume 1, section 18.3).
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Hardware {
    /// Configures the tile registers of this thread, for operands of `words` words (at most 16) along their inputs.
    ///
    /// # Safety
    /// The machine has AMX-TILE and AMX-BF16 and the operating system permits them to this process.
    pub(in crate::cpu) unsafe fn configure(words: usize) -> Self {
        let mut configuration =
            Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        configuration.row_bytes[..8].fill(4 * SIDE as u16);
        configuration.rows[..8].fill(SIDE as u8);
        configuration.row_bytes[4..6].fill(4 * words as u16);
        configuration.rows[6..8].fill(words as u8);
        // SAFETY: the caller's for the instruction; it reads the 64 bytes of the configuration.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, readonly, preserves_flags));
        }
        Self { thread: PhantomData }
    }
}

impl Drop for Hardware {
    fn drop(&mut self) {
        // SAFETY: `self` exists, so the machine has the instruction; nobody reads this thread's tiles any more.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}

impl Tiles for Hardware {
    #[inline(always)]
    fn zero<const T: usize>(&mut self) {
        // SAFETY: `self` exists, so the machine has the instruction and the tiles are configured.
        unsafe { asm!("tilezero tmm{t}", t = const T, options(nostack, nomem, preserves_flags)) };
    }

    #[inline(always)]
    unsafe fn load<const T: usize>(&mut self, from: *const u32, stride: usize) {
        // SAFETY: as in `zero`; the memory is the caller's.
        unsafe {
            asm!(
                "tileloadd tmm{t}, [{from} + {stride} * 1]",
                t = const T, from = in(reg) from, stride = in(reg) stride,
                options(nostack, readonly, preserves_flags)
            );
        }
    }

    #[inline(always)]
    fn multiply<const C: usize, const A: usize, const B: usize>(&mut self) {
        // SAFETY: as in `zero`.
        unsafe {
            asm!(
                "tdpbf16ps tmm{c}, tmm{a}, tmm{b}",
                c = const C, a = const A, b = const B,
                options(nostack, nomem, preserves_flags)
            );
        }
    }

    #[inline(always)]
    fn multiply_whole<const C: usize, const A: usize, const B: usize>(&mut self) {
        // SAFETY: as in `zero`; AMX counts only where AMX-INT8 is there too.
        unsafe {
            asm!(
                "tdpbsud tmm{c}, tmm{a}, tmm{b}",
                c = const C, a = const A, b = const B,
                options(nostack, nomem, preserves_flags)
            );
        }
    }

    #[inline(always)]
    unsafe fn store<const T: usize>(&self, to: *mut f32, stride: usize) {
        // SAFETY: as in `zero`; the memory is the caller's.
        unsafe {
            asm!(
                "tilestored [{to} + {stride} * 1], tmm{t}",
                t = const T, to = in(reg) to, stride = in(reg) stride,
                options(nostack, preserves_flags)
            );
        }
    }
}

/// Multiplies tiles of bf16 or of bytes for `rounds` rounds, and returns the operations of a round.
///
/// # Safety
/// As for [`Hardware::configure`].
pub(in crate::cpu) unsafe fn multiply_tiles(arithmetic: Arithmetic, rounds: usize) -> usize {
    // SAFETY: the caller's.
    let mut tiles = unsafe { Hardware::configure(SIDE) };
    tiles.zero::<4>();
    tiles.zero::<6>();
    let bytes = arithmetic == Arithmetic::Int8;
    for _ in 0..rounds {
        if bytes {
            tiles.multiply_whole::<0, 4, 6>();
            tiles.multiply_whole::<1, 4, 6>();
            tiles.multiply_whole::<2, 4, 6>();
            tiles.multiply_whole::<3, 4, 6>();
        } else {
            tiles.multiply::<0, 4, 6>();
            tiles.multiply::<1, 4, 6>();
            tiles.multiply::<2, 4, 6>();
            tiles.multiply::<3, 4, 6>();
        }
    }
    4 * 2 * SIDE * SIDE * if bytes { 4 * SIDE } else { DEPTH }
}
