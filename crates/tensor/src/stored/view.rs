//! One tensor of a file.

use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};

use super::{Encoding, FileBytes};
use crate::Dtype;
use crate::quantised::Quantised;

/// One tensor of a file: element type, shape, and the bytes in row-major order. Cheap to clone; keeps the file alive.
#[derive(Clone)]
pub struct TensorView {
    file: FileBytes,
    range: Range<usize>,
    encoding: Encoding,
    shape: Vec<usize>,
    /// Where the scales are of numbers that have them elsewhere; empty for all others.
    scales: Range<usize>,
}

impl TensorView {
    /// A view of `range`, which the header's checks found to be inside `file` and as long as the shape asks.
    pub(super) fn new(file: FileBytes, range: Range<usize>, encoding: Encoding, shape: Vec<usize>) -> Self {
        Self { file, range, encoding, shape, scales: 0..0 }
    }

    /// The same with the bytes of scales, which are a tensor of the same file that is as long as the shape asks.
    pub(super) fn with_scales(self, scales: Range<usize>) -> Self {
        Self { scales, ..self }
    }

    /// A tensor held on the heap as `F32`. Panics unless `values` are as many as the shape asks.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Self {
        Self::owned(shape, Dtype::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    /// A tensor held on the heap as `Bf16`, rounded to nearest, ties to even. Panics as `from_f32` does.
    pub fn from_bf16(shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect();
        Self::owned(shape, Dtype::Bf16, bytes)
    }

    /// A tensor held on the heap as `F16`, rounded to nearest, ties to even. Panics as `from_f32` does.
    pub fn from_f16(shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect();
        Self::owned(shape, Dtype::F16, bytes)
    }

    fn owned(shape: &[usize], dtype: Dtype, bytes: Vec<u8>) -> Self {
        assert_eq!(bytes.len(), shape.iter().product::<usize>() * dtype.size(), "values of shape {shape:?}");
        let range = 0..bytes.len();
        let file = FileBytes::Owned(Arc::from(bytes));
        Self::new(file, range, Encoding::Float(dtype), shape.to_vec())
    }

    /// How the elements are written.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Extents, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The same elements in another shape.
    ///
    /// # Panics
    /// Unless `shape` has as many elements.
    pub fn reshaped(self, shape: &[usize]) -> Self {
        let elements: usize = self.shape.iter().product();
        assert_eq!(shape.iter().product::<usize>(), elements, "{:?} as {shape:?}", self.shape);
        Self { shape: shape.to_vec(), ..self }
    }

    /// The elements as the file writes them, row-major, little-endian; not necessarily aligned.
    pub fn bytes(&self) -> &[u8] {
        &self.file.as_ref()[self.range.clone()]
    }

    /// All elements widened to `f32`.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.shape.iter().product()];
        match self.encoding {
            Encoding::Quantised(_) => {
                let columns = self.shape.last().copied().unwrap_or(1).max(1);
                out.chunks_exact_mut(columns).enumerate().for_each(|(row, out)| self.row_into(row, out));
            }
            encoding => widen(encoding, self.bytes(), &mut out),
        }
        out
    }

    /// Row `row` of a tensor seen as `[rows, out.len()]`, widened to `f32`. Rows are whole blocks, where the tensor is
    /// written in blocks. Panics if the tensor ends before it.
    pub fn row_into(&self, row: usize, out: &mut [f32]) {
        if let Encoding::Quantised(_) = self.encoding {
            let row = self.quantised(row..row + 1).unwrap_or_else(|| unreachable!("the tensor is quantised"));
            return row.row_into(0, out);
        }
        let stride = self.encoding.bytes(out.len());
        widen(self.encoding, &self.bytes()[row * stride..(row + 1) * stride], out);
    }

    /// The elements of row `row` of a matrix from `first` on, widened to `f32`; as many as `out` holds. Panics unless
    /// they are in the row and begin and end with a block.
    pub(crate) fn part_into(&self, row: usize, first: usize, out: &mut [f32]) {
        let (skipped, bytes) = (self.encoding.bytes(first), self.encoding.bytes(out.len()));
        widen(self.encoding, &self.row_bytes(row)[skipped..skipped + bytes], out);
    }

    /// Some columns of a matrix stored `[in, out]`, each widened to a row of `out`.
    pub(crate) fn columns_into(&self, columns: Range<usize>, out: &mut [f32]) {
        let [inputs, _] = *self.shape() else { panic!("a matrix, not {:?}", self.shape()) };
        let mut line = vec![0.0; columns.len()];
        for k in 0..inputs {
            self.part_into(k, columns.start, &mut line);
            for (column, &value) in out.chunks_exact_mut(inputs).zip(&line) {
                column[k] = value;
            }
        }
    }

    /// Row `row` of a matrix as the file writes it.
    pub(crate) fn row_bytes(&self, row: usize) -> &[u8] {
        &self.bytes()[self.rows(row..row + 1)]
    }

    /// The whole numbers and scales of some rows of a matrix that is stored quantised; `None` of any other tensor.
    pub fn quantised(&self, rows: Range<usize>) -> Option<Quantised> {
        match (self.encoding, self.shape.as_slice()) {
            (Encoding::Blocks(format), [_, columns]) => {
                Some(format.quantised(&self.bytes()[self.rows(rows)], *columns))
            }
            (Encoding::Quantised(scheme), [_, columns]) => {
                let stride = scheme.groups(*columns) * size_of::<f32>();
                let scales = &self.file.as_ref()[self.scales.clone()][rows.start * stride..rows.end * stride];
                Some(Quantised::from_bytes(scheme, *columns, &self.bytes()[self.rows(rows)], scales))
            }
            _ => None,
        }
    }

    /// Where rows of a matrix stand in its bytes.
    fn rows(&self, rows: Range<usize>) -> Range<usize> {
        let stride = self.shape.last().map_or(0, |columns| self.encoding.bytes(*columns));
        rows.start * stride..rows.end * stride
    }

    /// Lets the operating system take back the memory behind this view, where the view is of a mapped file; the next
    /// read fetches it again from the page cache or the disk. For weights that have been packed.
    pub fn release(&self) {
        self.file.release(self.range.clone());
        self.file.release(self.scales.clone());
    }

    /// As `release`, for some rows of a matrix.
    pub(crate) fn release_rows(&self, rows: Range<usize>) {
        let rows = self.rows(rows);
        self.file.release(self.range.start + rows.start..self.range.start + rows.end);
    }
}

/// Widens elements to `f32`; as many as `out` holds.
fn widen(encoding: Encoding, bytes: &[u8], out: &mut [f32]) {
    match encoding {
        Encoding::Float(dtype) => widen_floats(dtype, bytes, out),
        Encoding::Blocks(format) => format.dequantise(bytes, out),
        Encoding::Quantised(_) => unreachable!("numbers whose scales are elsewhere are widened by rows"),
    }
}

fn widen_floats(dtype: Dtype, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        Dtype::F32 => {
            for (value, stored) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *value = f32::from_le_bytes(*stored);
            }
        }
        Dtype::Bf16 => {
            for (value, stored) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *value = bf16::from_le_bytes(*stored).to_f32();
            }
        }
        Dtype::F16 => {
            for (value, stored) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *value = f16::from_le_bytes(*stored).to_f32();
            }
        }
    }
}
