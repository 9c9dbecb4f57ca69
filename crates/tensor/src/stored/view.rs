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
}

impl TensorView {
    /// A view of `range`, which the header's checks found to be inside `file` and as long as the shape asks.
    pub(super) fn new(file: FileBytes, range: Range<usize>, encoding: Encoding, shape: Vec<usize>) -> Self {
        Self { file, range, encoding, shape }
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
        Self { file, range, encoding: Encoding::Float(dtype), shape: shape.to_vec() }
    }

    /// How the elements are written.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Extents, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements as the file writes them, row-major, little-endian; not necessarily aligned.
    pub fn bytes(&self) -> &[u8] {
        &self.file.as_ref()[self.range.clone()]
    }

    /// All elements widened to `f32`.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.shape.iter().product()];
        widen(self.encoding, self.bytes(), &mut out);
        out
    }

    /// Row `row` of a tensor seen as `[rows, out.len()]`, widened to `f32`. Rows are whole blocks, where the tensor is
    /// written in blocks. Panics if the tensor ends before it.
    pub fn row_into(&self, row: usize, out: &mut [f32]) {
        let stride = self.encoding.bytes(out.len());
        widen(self.encoding, &self.bytes()[row * stride..(row + 1) * stride], out);
    }

    /// The whole numbers and scales of a matrix that is written in blocks; `None` of any other tensor. Rows are as long
    /// as the last extent.
    pub fn quantised(&self) -> Option<Quantised> {
        match (self.encoding, self.shape.as_slice()) {
            (Encoding::Blocks(format), [_, columns]) => Some(format.quantised(self.bytes(), *columns)),
            _ => None,
        }
    }

    /// Lets the operating system take back the memory behind this view, where the view is of a mapped file; the next
    /// read fetches it again from the page cache or the disk. For weights that have been packed.
    pub fn release(&self) {
        #[cfg(unix)]
        if let FileBytes::Mapped(map) = &self.file {
            let page = page_bytes();
            let first = self.range.start.next_multiple_of(page);
            let end = self.range.end / page * page;
            if first < end {
                // SAFETY: the mapping is shared and read-only, so dropping its pages loses nothing: a later read
                // through any reference sees the file's bytes again. The range lies inside of the mapping.
                let advised = unsafe {
                    map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, first, end - first)
                };
                // Advice that is refused costs memory and changes no result.
                drop(advised);
            }
        }
    }
}

#[cfg(unix)]
fn page_bytes() -> usize {
    // SAFETY: `sysconf` reads a constant of the system and touches no memory of ours.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4096).max(4096)
}

/// Widens elements to `f32`; as many as `out` holds.
fn widen(encoding: Encoding, bytes: &[u8], out: &mut [f32]) {
    match encoding {
        Encoding::Float(dtype) => widen_floats(dtype, bytes, out),
        Encoding::Blocks(format) => format.dequantise(bytes, out),
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
