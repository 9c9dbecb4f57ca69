//! Blocks of quantised numbers, as GGUF files hold them.
//!
//! A block is a run of neighbouring elements of a row: small whole numbers in groups, with a scale and for some formats
//! an offset for each group, so that an element is `scale · q + offset`. Scales are stored as half precision, in the
//! `K` formats as products of a half-precision number and a 6-bit or 8-bit one; the products are exact in `f32`. The
//! layouts are those of `ggml-quants` in llama.cpp, and the values are those that its `gguf` package for Python
//! computes.

use std::fmt;

use half::f16;

use crate::quantised::{Bits, Quantised};

/// Elements of the largest block.
const MOST: usize = 256;

/// The formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockFormat {
    /// 4 bits, symmetric, groups of 32.
    Q4_0,
    /// 4 bits with offsets, groups of 32.
    Q4_1,
    /// 5 bits, symmetric, groups of 32.
    Q5_0,
    /// 5 bits with offsets, groups of 32.
    Q5_1,
    /// 8 bits, symmetric, groups of 32.
    Q8_0,
    /// 4 bits with offsets, groups of 32 in blocks of 256 that share the scale of their scales.
    Q4K,
    /// 5 bits with offsets, groups of 32 in blocks of 256 that share the scale of their scales.
    Q5K,
    /// 6 bits, symmetric, groups of 16 in blocks of 256 that share the scale of their scales.
    Q6K,
}

/// The numbers of one block; as many are meaningful as the format says.
pub(crate) struct Unpacked {
    /// Whole numbers, in the order of the elements.
    pub(crate) q: [i8; MOST],
    /// One per group.
    pub(crate) scales: [f32; 16],
    /// One per group; zeros for the symmetric formats.
    pub(crate) offsets: [f32; 16],
}

impl Unpacked {
    pub(crate) const fn new() -> Self {
        Self { q: [0; MOST], scales: [0.0; 16], offsets: [0.0; 16] }
    }
}

impl BlockFormat {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Q4_0, Self::Q4_1, Self::Q5_0, Self::Q5_1, Self::Q8_0, Self::Q4K, Self::Q5K, Self::Q6K];

    /// Elements of a block.
    pub const fn elements(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => MOST,
        }
    }

    /// Bytes of a block.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Neighbouring elements that share a scale.
    pub const fn group(self) -> usize {
        match self {
            Self::Q6K => 16,
            _ => 32,
        }
    }

    /// Bits of a whole number.
    pub const fn bits(self) -> u32 {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q4K => 4,
            Self::Q5_0 | Self::Q5_1 | Self::Q5K => 5,
            Self::Q6K => 6,
            Self::Q8_0 => 8,
        }
    }

    /// Bits that its whole numbers are held in.
    pub(crate) const fn held_bits(self) -> Bits {
        if self.bits() == 4 { Bits::Four } else { Bits::Eight }
    }

    /// Whether groups have offsets.
    pub const fn has_offsets(self) -> bool {
        matches!(self, Self::Q4_1 | Self::Q5_1 | Self::Q4K | Self::Q5K)
    }

    /// Widens blocks to `f32`; as many as `out` holds.
    pub(crate) fn dequantise(self, blocks: &[u8], out: &mut [f32]) {
        let mut unpacked = Unpacked::new();
        let blocks = blocks.chunks_exact(self.bytes());
        for (block, out) in blocks.zip(out.chunks_exact_mut(self.elements())) {
            self.unpack(block, &mut unpacked);
            let groups = out.chunks_exact_mut(self.group()).zip(unpacked.q.chunks_exact(self.group()));
            for ((out, q), (scale, offset)) in groups.zip(unpacked.scales.iter().zip(&unpacked.offsets)) {
                if self.has_offsets() {
                    out.iter_mut().zip(q).for_each(|(out, &q)| *out = scale * f32::from(q) + offset);
                } else {
                    out.iter_mut().zip(q).for_each(|(out, &q)| *out = scale * f32::from(q));
                }
            }
        }
    }

    /// The same numbers as plain data, in rows of `columns` elements.
    pub(crate) fn quantised(self, blocks: &[u8], columns: usize) -> Quantised {
        let (elements, group) = (blocks.len() / self.bytes() * self.elements(), self.group());
        let (mut q, mut scales) = (Vec::with_capacity(elements), Vec::with_capacity(elements / group));
        let mut offsets = self.has_offsets().then(|| Vec::with_capacity(elements / group));
        let (mut unpacked, groups) = (Unpacked::new(), self.elements() / group);
        for block in blocks.chunks_exact(self.bytes()) {
            self.unpack(block, &mut unpacked);
            q.extend_from_slice(&unpacked.q[..self.elements()]);
            scales.extend_from_slice(&unpacked.scales[..groups]);
            if let Some(offsets) = &mut offsets {
                offsets.extend_from_slice(&unpacked.offsets[..groups]);
            }
        }
        let bits = self.held_bits();
        Quantised {
            rows: elements.checked_div(columns).unwrap_or(0),
            columns,
            bits,
            group,
            q,
            scales,
            offsets,
        }
    }

    /// Takes one block apart.
    pub(crate) fn unpack(self, block: &[u8], to: &mut Unpacked) {
        match self {
            Self::Q4_0 => {
                to.scales[0] = half(block, 0);
                nibbles(&block[2..18], &mut to.q);
                to.q[..32].iter_mut().for_each(|q| *q -= 8);
            }
            Self::Q4_1 => {
                (to.scales[0], to.offsets[0]) = (half(block, 0), half(block, 2));
                nibbles(&block[4..20], &mut to.q);
            }
            Self::Q5_0 => {
                to.scales[0] = half(block, 0);
                nibbles(&block[6..22], &mut to.q);
                fifth_bits(word(&block[2..6]), &mut to.q);
                to.q[..32].iter_mut().for_each(|q| *q -= 16);
            }
            Self::Q5_1 => {
                (to.scales[0], to.offsets[0]) = (half(block, 0), half(block, 2));
                nibbles(&block[8..24], &mut to.q);
                fifth_bits(word(&block[4..8]), &mut to.q);
            }
            Self::Q8_0 => {
                to.scales[0] = half(block, 0);
                to.q.iter_mut().zip(&block[2..34]).for_each(|(q, &byte)| *q = byte.cast_signed());
            }
            Self::Q4K => {
                scales_and_offsets(block, to);
                for (q, bytes) in to.q.chunks_exact_mut(64).zip(block[16..144].chunks_exact(32)) {
                    nibbles(bytes, q);
                }
            }
            Self::Q5K => {
                scales_and_offsets(block, to);
                let (high, low) = (&block[16..48], &block[48..176]);
                for (q, bytes) in to.q.chunks_exact_mut(64).zip(low.chunks_exact(32)) {
                    nibbles(bytes, q);
                }
                for (group, q) in to.q.chunks_exact_mut(32).enumerate() {
                    q.iter_mut()
                        .zip(high)
                        .for_each(|(q, byte)| *q |= ((byte >> group & 1) << 4).cast_signed());
                }
            }
            Self::Q6K => six_bits(block, to),
        }
    }
}

impl fmt::Display for BlockFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Q4_0 => "q4_0",
            Self::Q4_1 => "q4_1",
            Self::Q5_0 => "q5_0",
            Self::Q5_1 => "q5_1",
            Self::Q8_0 => "q8_0",
            Self::Q4K => "q4_k",
            Self::Q5K => "q5_k",
            Self::Q6K => "q6_k",
        })
    }
}

fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// The lower halves of all bytes, and behind them the upper halves.
fn nibbles(bytes: &[u8], q: &mut [i8]) {
    let (low, high) = q.split_at_mut(bytes.len());
    for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
        *low = (byte & 0x0F).cast_signed();
        *high = (byte >> 4).cast_signed();
    }
}

/// Adds bit `i` of `bits` to number `i` as its fifth.
fn fifth_bits(bits: u32, q: &mut [i8]) {
    for (i, q) in q[..32].iter_mut().enumerate() {
        *q |= ((bits >> i & 1) << 4) as i8;
    }
}

/// The eight scales and offsets of a block of `Q4_K` or `Q5_K`: half-precision numbers times 6-bit ones, of which the
/// first four of each kind have bytes of their own (whose upper two bits belong to the last four) and the last four
/// share bytes.
fn scales_and_offsets(block: &[u8], to: &mut Unpacked) {
    let (scale, least) = (half(block, 0), half(block, 2));
    let packed = &block[4..16];
    for i in 0..4 {
        let (first, second, shared) = (packed[i], packed[i + 4], packed[i + 8]);
        to.scales[i] = scale * f32::from(first & 0x3F);
        to.offsets[i] = -(least * f32::from(second & 0x3F));
        to.scales[i + 4] = scale * f32::from(shared & 0x0F | first >> 2 & 0x30);
        to.offsets[i + 4] = -(least * f32::from(shared >> 4 | second >> 2 & 0x30));
    }
}

/// `Q6_K`: in each half of 128 elements, 64 bytes hold the lower four bits of all and 32 bytes the upper two.
fn six_bits(block: &[u8], to: &mut Unpacked) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (factors, _) = rest.split_at(16);
    let scale = half(block, 208);
    for (to, &factor) in to.scales.iter_mut().zip(factors) {
        *to = scale * f32::from(factor.cast_signed());
    }
    let halves = to.q.chunks_exact_mut(128).zip(low.chunks_exact(64).zip(high.chunks_exact(32)));
    for (q, (low, high)) in halves {
        nibbles(low, q);
        for (group, q) in q.chunks_exact_mut(32).enumerate() {
            for (q, byte) in q.iter_mut().zip(high) {
                *q = (q.cast_unsigned() | (byte >> (2 * group) & 3) << 4).cast_signed() - 32;
            }
        }
    }
}
