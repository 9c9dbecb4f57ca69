//! Quantised matrices as two tensors of a file: numbers and scales.
//!
//! The numbers of a matrix `[outputs, inputs]` are `I8` of that shape, or for 4 bits `U8` with two numbers to a byte, each
//! as its distance from -8: the even input in the lower half, rows padded to whole bytes. The scales are `F32`
//! `[outputs, groups]`, under the name of the numbers with [`SCALES`] behind it.

use std::ops::Range;

use super::{Bits, Quantised, Scheme};
use crate::stored::TensorView;

/// Ending of the name of the scales.
pub const SCALES: &str = ".scales";

impl Scheme {
    /// The element type of the numbers, as safetensors files name it.
    pub fn kind(self) -> &'static str {
        match self.bits {
            Bits::Four => "U8",
            Bits::Eight => "I8",
        }
    }

    /// Bytes of the numbers of `columns` inputs.
    pub const fn row_bytes(self, columns: usize) -> usize {
        match self.bits {
            Bits::Four => columns.div_ceil(2),
            Bits::Eight => columns,
        }
    }

    /// Groups of a row of `columns` inputs.
    pub fn groups(self, columns: usize) -> usize {
        columns.div_ceil(self.group_of(columns).max(1))
    }
}

impl Quantised {
    /// Quantises some rows of a matrix stored `[out, in]`.
    pub fn of_rows(scheme: Scheme, stored: &TensorView, rows: Range<usize>) -> Self {
        let [_, inputs] = *stored.shape() else { panic!("a matrix, not {:?}", stored.shape()) };
        let mut weights = vec![0.0; rows.len() * inputs];
        for (row, weights) in rows.zip(weights.chunks_exact_mut(inputs)) {
            stored.row_into(row, weights);
        }
        Self::from_f32(scheme, &weights, inputs)
    }

    /// Quantises some columns of a matrix stored `[in, out]`, each as a row.
    pub fn of_columns(scheme: Scheme, stored: &TensorView, columns: Range<usize>) -> Self {
        let [inputs, _] = *stored.shape() else { panic!("a matrix, not {:?}", stored.shape()) };
        let mut weights = vec![0.0; columns.len() * inputs];
        stored.columns_into(columns, &mut weights);
        Self::from_f32(scheme, &weights, inputs)
    }

    /// The numbers as files hold them, row after row.
    pub fn number_bytes(&self) -> Vec<u8> {
        match self.bits {
            Bits::Eight => self.q.iter().map(|q| q.cast_unsigned()).collect(),
            Bits::Four => self.q.chunks(self.columns).flat_map(|row| row.chunks(2).map(nibbles)).collect(),
        }
    }

    /// Rows of `columns` inputs from the numbers and the scales of a file, which are as long as `scheme` says.
    pub(crate) fn from_bytes(scheme: Scheme, columns: usize, numbers: &[u8], scales: &[u8]) -> Self {
        let rows = numbers.len() / scheme.row_bytes(columns).max(1);
        let mut q = Vec::with_capacity(rows * columns);
        for row in numbers.chunks_exact(scheme.row_bytes(columns).max(1)) {
            match scheme.bits {
                Bits::Eight => q.extend(row.iter().map(|byte| byte.cast_signed())),
                Bits::Four => {
                    let halves = row.iter().flat_map(|byte| [byte & 0x0F, byte >> 4]);
                    q.extend(halves.take(columns).map(|half| half.cast_signed() - 8));
                }
            }
        }
        let scales = scales.as_chunks::<4>().0.iter().map(|scale| f32::from_le_bytes(*scale)).collect();
        Self { rows, columns, bits: scheme.bits, group: scheme.group_of(columns), q, scales, offsets: None }
    }
}

/// One or two numbers of 4 bits as a byte.
fn nibbles(numbers: &[i8]) -> u8 {
    let half = |i: usize| (numbers.get(i).copied().unwrap_or(-8) + 8).cast_unsigned();
    half(0) | half(1) << 4
}
