//! Weight-only quantisation, as plain data: small integers with a scale for every group of inputs.
//!
//! A matrix is seen as `[outputs, inputs]`. A group is a run of neighbouring inputs of one output; its weights are
//! `scale · q + offset`. The quantisers here are symmetric and round to nearest, so they need no offset; files made by
//! others (GGUF) may have one. This is the form in which quantised matrices are exchanged; kernels read the packed form
//! that [`crate::Packer`] makes of it.

mod stored;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use stored::SCALES;

/// What group lengths shorter than a row are a multiple of: the inputs that kernels can take at a time.
pub const GROUP_STEP: usize = 16;

/// Bits of a quantised weight.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Hash, Serialize)]
pub enum Bits {
    /// 4: numbers in `-8..=7`, or in `0..=15` where the groups have offsets.
    Four,
    /// 8: numbers in `-128..=127`.
    Eight,
}

impl Bits {
    /// The largest number that the symmetric quantiser uses, and its negative the smallest: 7 or 127.
    const fn limit(self) -> f32 {
        match self {
            Self::Four => 7.0,
            Self::Eight => 127.0,
        }
    }
}

/// How to quantise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scheme {
    /// Bits of a weight.
    pub bits: Bits,
    /// Inputs that share a scale, a multiple of [`GROUP_STEP`]; `None` is all inputs of an output ("per channel").
    pub group: Option<usize>,
}

impl Scheme {
    /// 8 bits, one scale per output.
    pub const INT8: Self = Self { bits: Bits::Eight, group: None };

    /// 8 bits, one scale per 128 inputs: 8.25 bits a weight in all.
    pub const INT8_G128: Self = Self { bits: Bits::Eight, group: Some(128) };

    /// 4 bits, one scale per 32 inputs: 5 bits a weight in all.
    pub const INT4: Self = Self { bits: Bits::Four, group: Some(32) };

    /// 4 bits, one scale per 128 inputs: 4.25 bits a weight in all.
    pub const INT4_G128: Self = Self { bits: Bits::Four, group: Some(128) };

    /// Inputs of a group in rows of `columns` inputs.
    pub fn group_of(self, columns: usize) -> usize {
        self.group.unwrap_or(columns).min(columns)
    }

    /// Quantises one row: per group `scale = max|w| / limit` and `q = w / scale`, rounded to nearest (ties to even),
    /// with `limit` 127 or 7. A group of zeros has scale 0. All arithmetic is in `f32`.
    ///
    /// `q` is as long as `row`; there is a scale for every group, of which the last may be shorter than the others.
    pub(crate) fn quantise_row(self, row: &[f32], q: &mut [i8], scales: &mut [f32]) {
        let (group, limit) = (self.group_of(row.len()), self.bits.limit());
        for ((weights, q), scale) in row.chunks(group).zip(q.chunks_mut(group)).zip(scales) {
            *scale = weights.iter().fold(0.0f32, |largest, weight| largest.max(weight.abs())) / limit;
            // Nothing is divided by zero: what is not a number becomes 0 in the cast.
            for (q, weight) in q.iter_mut().zip(weights) {
                *q = round_ties_even((weight / *scale).clamp(-limit, limit)) as i8;
            }
        }
    }
}

/// The scale of activations of which the largest is `largest`, and what they are multiplied with to be whole numbers in
/// `-127..=127`; zeros where they are too small for an inverse.
pub(crate) fn activation_scale(largest: f32) -> (f32, f32) {
    const LEAST: f32 = 1e-30;
    if largest >= LEAST { (largest / 127.0, 127.0 / largest) } else { (0.0, 0.0) }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.bits, self.group) {
            (Bits::Eight, None) => f.write_str("int8"),
            (Bits::Eight, Some(group)) => write!(f, "int8-g{group}"),
            (Bits::Four, None) => f.write_str("int4-channel"),
            (Bits::Four, Some(32)) => f.write_str("int4"),
            (Bits::Four, Some(group)) => write!(f, "int4-g{group}"),
        }
    }
}

/// To the nearest integer, ties to even, for |x| below 2^22: adding and taking away a number whose last bit counts
/// ones leaves the rounding to the processor, also where it has no instruction for it.
fn round_ties_even(x: f32) -> f32 {
    const ONES: f32 = 12_582_912.0;
    (x + ONES) - ONES
}

/// A quantised matrix before packing: `w = scale · q + offset` per group of inputs of one output.
///
/// Rows are outputs and columns are inputs, both at least 1. There are `columns.div_ceil(group)` groups in a row, and
/// the last may be shorter than the others. [`Quantised::assert_shape`] says what must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantised {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub columns: usize,
    /// Range of the numbers.
    pub bits: Bits,
    /// Inputs of a group: a multiple of [`GROUP_STEP`], or `columns` (one group per output).
    pub group: usize,
    /// The numbers, unpacked, row-major. [`Bits`] says their range.
    pub q: Vec<i8>,
    /// `[rows, groups]`.
    pub scales: Vec<f32>,
    /// `[rows, groups]`, or none: all zero.
    pub offsets: Option<Vec<f32>>,
}

impl Quantised {
    /// Quantises a row-major matrix with rows of `columns` weights.
    ///
    /// Panics unless `weights` are whole rows.
    pub fn from_f32(scheme: Scheme, weights: &[f32], columns: usize) -> Self {
        assert!(weights.len().is_multiple_of(columns), "{} weights in rows of {columns}", weights.len());
        let group = scheme.group_of(columns);
        let (rows, groups) = (weights.len() / columns, columns.div_ceil(group));
        let (mut q, mut scales) = (vec![0; weights.len()], vec![0.0; rows * groups]);
        let parts = q.chunks_mut(columns).zip(scales.chunks_mut(groups));
        for (row, (q, scales)) in weights.chunks(columns).zip(parts) {
            scheme.quantise_row(row, q, scales);
        }
        Self { rows, columns, bits: scheme.bits, group, q, scales, offsets: None }
    }

    /// Groups of a row.
    pub fn groups(&self) -> usize {
        self.columns.div_ceil(self.group)
    }

    /// The weights, row-major.
    pub fn dequantise(&self) -> Vec<f32> {
        let mut weights = vec![0.0; self.q.len()];
        for (row, weights) in weights.chunks_mut(self.columns).enumerate() {
            self.row_into(row, weights);
        }
        weights
    }

    /// The weights of one output: the product is rounded before the offset is added, as others do it.
    pub fn row_into(&self, row: usize, weights: &mut [f32]) {
        let (groups, q) = (self.groups(), &self.q[row * self.columns..][..self.columns]);
        for (number, (weights, q)) in weights.chunks_mut(self.group).zip(q.chunks(self.group)).enumerate() {
            let at = row * groups + number;
            let offset = self.offsets.as_ref().map_or(0.0, |offsets| offsets[at]);
            for (weight, &q) in weights.iter_mut().zip(q) {
                *weight = self.scales[at] * f32::from(q) + offset;
            }
        }
    }

    /// Panics unless the parts are as long as the shape asks, the group is one that kernels read, and 4-bit numbers are
    /// in their range.
    pub fn assert_shape(&self) {
        let Self { rows, columns, group, .. } = *self;
        let sound = group == columns || (group > 0 && group < columns && group.is_multiple_of(GROUP_STEP));
        assert!(columns > 0 && sound, "groups of {group} in rows of {columns} inputs");
        assert_eq!(self.q.len(), rows * columns, "numbers of a matrix {rows} × {columns}");
        let groups = rows * self.groups();
        assert_eq!(self.scales.len(), groups, "scales of a matrix {rows} × {columns} in groups of {group}");
        assert!(self.offsets.as_ref().is_none_or(|offsets| offsets.len() == groups), "an offset per scale");
        if self.bits == Bits::Four {
            let lowest = if self.offsets.is_some() { 0 } else { -8 };
            assert!(self.q.iter().all(|q| (lowest..lowest + 16).contains(q)), "numbers of 4 bits");
        }
    }
}
