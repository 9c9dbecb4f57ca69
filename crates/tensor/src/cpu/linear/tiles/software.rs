//! Tile registers in memory, for machines that have none: what the instructions do, as Intel's manual writes it
//! (SDM, volume 2, TDPBF16PS).

use half::bf16;

use super::{SIDE, Tiles};

/// Eight tiles of 16 × 16 words.
pub(super) struct Software {
    tiles: [[[u32; SIDE]; SIDE]; 8],
}

impl Software {
    /// Tiles full of what no program should rely on.
    pub(super) fn new() -> Self {
        Self { tiles: [[[0x7fc1_2345; SIDE]; SIDE]; 8] }
    }
}

/// Numbers too small to be normal are zero for AMX, as operands and as results.
pub(super) fn flushed(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}

/// The two bf16 numbers of a word, widened.
fn pair(word: u32) -> [f32; 2] {
    [word as u16, (word >> 16) as u16].map(|bits| flushed(bf16::from_bits(bits).to_f32()))
}

impl Tiles for Software {
    fn zero<const T: usize>(&mut self) {
        self.tiles[T] = [[0; SIDE]; SIDE];
    }

    unsafe fn load<const T: usize>(&mut self, from: *const u32, stride: usize) {
        for (i, row) in self.tiles[T].iter_mut().enumerate() {
            // SAFETY: the caller's.
            *row = unsafe { from.byte_add(i * stride).cast::<[u32; SIDE]>().read_unaligned() };
        }
    }

    fn multiply<const C: usize, const A: usize, const B: usize>(&mut self) {
        let (a, b) = (self.tiles[A], self.tiles[B]);
        for (sums, a) in self.tiles[C].iter_mut().zip(a) {
            let mut products = [[0.0f32; 2]; SIDE];
            for (x, b) in a.into_iter().zip(b) {
                let x = pair(x);
                for (products, weights) in products.iter_mut().zip(b) {
                    let weights = pair(weights);
                    for i in 0..2 {
                        products[i] = flushed(x[i].mul_add(weights[i], products[i]));
                    }
                }
            }
            for (sum, products) in sums.iter_mut().zip(products) {
                let both = flushed(products[0] + products[1]);
                *sum = flushed(flushed(f32::from_bits(*sum)) + both).to_bits();
            }
        }
    }

    unsafe fn store<const T: usize>(&self, to: *mut f32, stride: usize) {
        for (i, row) in self.tiles[T].iter().enumerate() {
            // SAFETY: the caller's.
            unsafe { to.byte_add(i * stride).cast::<[u32; SIDE]>().write_unaligned(*row) };
        }
    }
}
