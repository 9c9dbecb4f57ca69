//! Memory-mapped safetensors files: a view per tensor, no copies.
//!
//! A file is 8 bytes of header length (little-endian), a JSON header that names each tensor's element type, shape and
//! byte range, and the elements. Files come from strangers, so the header is believed about nothing: `header.rs`
//! checks every number against the length of the file before a view can exist.

mod defect;
mod header;
mod view;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::{Dtype, TensorError};

pub use defect::Defect;
pub use view::TensorView;

/// The bytes of a file: mapped, compiled in, or held. Cheap to clone.
#[derive(Clone)]
pub enum FileBytes {
    /// A mapping of a file on disk.
    Mapped(Arc<memmap2::Mmap>),
    /// Bytes that are part of the program.
    Static(&'static [u8]),
    /// Bytes on the heap.
    Owned(Arc<[u8]>),
}

impl AsRef<[u8]> for FileBytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Static(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// One line of the header, checked, with its byte range counted from the start of the file.
struct Entry {
    dtype: &'static str,
    /// The element type, where it is one that the kernels read.
    float: Option<Dtype>,
    shape: Vec<usize>,
    range: Range<usize>,
}

/// A parsed safetensors file.
pub struct SafeTensors {
    file: FileBytes,
    entries: BTreeMap<String, Entry>,
}

impl SafeTensors {
    /// Maps and checks a file. Every offset and shape of the header is checked before anything is allocated for it.
    ///
    /// The file must not be cut short while it is mapped: the operating system answers a read behind the new end
    /// with a signal, as it does for every mapped file.
    ///
    /// # Errors
    /// Says the file, what was expected and what was found.
    pub fn open(path: &Path) -> Result<Self, TensorError> {
        let io = |source| TensorError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        if length < header::LENGTH_BYTES as u64 {
            return Err(TensorError::Malformed {
                path: path.to_owned(),
                defect: Defect::TooShort { length },
            });
        }
        // SAFETY: the mapping is read-only and handed out as `&[u8]` alone. Another process that rewrites the file
        // under us could change bytes between two reads; every use of them copes with any bit pattern, because the
        // header is copied out while it is checked and elements are plain numbers.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
        Self::parse(path, FileBytes::Mapped(Arc::new(map)))
    }

    /// Parses bytes that are in memory; `name` stands for the path in errors.
    ///
    /// # Errors
    /// As `open`.
    pub fn parse(name: &Path, file: FileBytes) -> Result<Self, TensorError> {
        let entries = header::read(file.as_ref())
            .map_err(|defect| TensorError::Malformed { path: name.to_owned(), defect })?;
        Ok(Self { file, entries })
    }

    /// The tensor of that name, if the file has it with a floating-point type that the kernels read.
    pub fn tensor(&self, name: &str) -> Option<TensorView> {
        let entry = self.entries.get(name)?;
        Some(TensorView::new(self.file.clone(), entry.range.clone(), entry.float?, entry.shape.clone()))
    }

    /// Names of all tensors, sorted, with their dtype as the file writes it (`F32`, `I64`, …) and shape.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &str, &[usize])> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry.dtype, entry.shape.as_slice()))
    }
}
