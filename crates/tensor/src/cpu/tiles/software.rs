//! Tile registers in memory, for machines that have none: what the instructions do, as Intel's manual writes it
//! (SDM, volume 2, TDPBF16PS and TDPBSUD).

use half::bf16;

use super::{SIDE, Tiles};

/// Eight tiles of 16 × 16 words.
pub(in crate::cpu) struct Software {
    tiles: [[[u32; SIDE]; SIDE]; 8],
    /// Words along the inputs.
    words: usize,
}

impl Software {
    /// Tiles full of what no program should rely on.
    pub(in crate::cpu) fn new(words: usize) -> Self {
        Self { tiles: [[[0x7fc1_2345; SIDE]; SIDE]; 8], words }
    }
}

/// Numbers too small to be normal are zero for AMX, as operands and as results.
pub(in crate::cpu) fn flushed(x: f32) -> f32 {
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
        let (rows, words) = match T {
            4 | 5 => (SIDE, self.words),
            6 | 7 => (self.words, SIDE),
            _ => (SIDE, SIDE),
        };
        self.tiles[T] = [[0; SIDE]; SIDE];
        for (i, row) in self.tiles[T].iter_mut().take(rows).enumerate() {
            for (j, word) in row.iter_mut().take(words).enumerate() {
                // SAFETY: the caller's.
                *word = unsafe { from.byte_add(i * stride).add(j).read_unaligned() };
            }
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

    fn multiply_whole<const C: usize, const A: usize, const B: usize>(&mut self) {
        let (a, b) = (self.tiles[A], self.tiles[B]);
        for (sums, a) in self.tiles[C].iter_mut().zip(a) {
            for (x, b) in a.into_iter().zip(b) {
                for (sum, weights) in sums.iter_mut().zip(b) {
                    let products = x.to_le_bytes().into_iter().zip(weights.to_le_bytes());
                    let products = products.map(|(x, weight)| i32::from(x.cast_signed()) * i32::from(weight));
                    *sum = sum.cast_signed().wrapping_add(products.sum()).cast_unsigned();
                }
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
