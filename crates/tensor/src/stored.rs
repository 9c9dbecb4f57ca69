//! Tensors as they stand in files: the bytes of a file, how elements are written in them, and a view per tensor.
//!
//! What every format of model files shares once its header has been read and checked. Nothing here is copied before
//! a kernel or the packing of a layer asks for it.

mod blocks;
mod view;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::quantised::{SCALES, Scheme};
use crate::{Dtype, TensorError};

pub use blocks::BlockFormat;
pub use view::TensorView;

/// The bytes of a file, or what stands for one: mapped, compiled in, held, or lent. Cheap to clone.
#[derive(Clone)]
pub enum FileBytes {
    /// A mapping of a file on disk.
    Mapped(Arc<memmap2::Mmap>),
    /// Bytes that are part of the program.
    Static(&'static [u8]),
    /// Bytes on the heap.
    Owned(Arc<[u8]>),
    /// Bytes that somebody else owns, who keeps them where they are for as long as this is there.
    Lent(Arc<dyn AsRef<[u8]> + Send + Sync>),
}

impl FileBytes {
    /// Maps a file for reading.
    ///
    /// The file must not be cut short while it is mapped: the operating system answers a read behind the new end
    /// with a signal, as it does for every mapped file.
    ///
    /// # Errors
    /// When the file cannot be opened or mapped.
    pub fn map(path: &Path) -> Result<Self, TensorError> {
        let io = |source| TensorError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        if file.metadata().map_err(io)?.len() == 0 {
            return Ok(Self::Static(&[]));
        }
        // SAFETY: the mapping is read-only and handed out as `&[u8]` alone. Another process that rewrites the file
        // under us could change bytes between two reads; every use of them copes with any bit pattern, because
        // numbers of headers are copied out while they are checked, texts are checked again where they are read, and
        // elements are plain numbers.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
        Ok(Self::Mapped(Arc::new(map)))
    }
}

impl FileBytes {
    /// Lets the operating system take back the memory behind whole pages of a range, where the file is mapped; the next
    /// read fetches them again from the page cache or the disk.
    pub(crate) fn release(&self, bytes: Range<usize>) {
        #[cfg(unix)]
        if let Self::Mapped(map) = self {
            let page = page_bytes();
            let first = bytes.start.next_multiple_of(page);
            let end = bytes.end.min(map.len()) / page * page;
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

impl AsRef<[u8]> for FileBytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Static(bytes) => bytes,
            Self::Owned(bytes) => bytes,
            Self::Lent(owner) => (**owner).as_ref(),
        }
    }
}

/// How the elements of a tensor are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// One floating-point number after the other.
    Float(Dtype),
    /// Blocks of small whole numbers that share scales.
    Blocks(BlockFormat),
    /// Small whole numbers, whose scales are another tensor of the file.
    Quantised(Scheme),
}

impl Encoding {
    /// Bytes of `elements` neighbouring elements of a row, which begin and end with a block.
    pub const fn bytes(self, elements: usize) -> usize {
        match self {
            Self::Float(dtype) => elements * dtype.size(),
            Self::Blocks(format) => elements / format.elements() * format.bytes(),
            Self::Quantised(scheme) => scheme.row_bytes(elements),
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float(dtype) => dtype.fmt(f),
            Self::Blocks(format) => format.fmt(f),
            Self::Quantised(scheme) => scheme.fmt(f),
        }
    }
}

/// One tensor that a header lists, checked, with its byte range counted from the start of the file.
pub(crate) struct Entry {
    /// The element type as the format names it.
    pub(crate) kind: &'static str,
    /// The element type, where it is one that is read.
    pub(crate) encoding: Option<Encoding>,
    /// Extents, outermost first.
    pub(crate) shape: Vec<usize>,
    pub(crate) range: Range<usize>,
}

/// A tensor as it stands in its file, whether its type is read or not.
#[derive(Clone, Copy, Debug)]
pub struct RawTensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its element type as the file writes it.
    pub kind: &'static str,
    /// Extents, outermost first.
    pub shape: &'a [usize],
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// The tensors of one file by name. Cheap to clone.
#[derive(Clone)]
pub struct Tensors {
    file: FileBytes,
    entries: Arc<BTreeMap<String, Entry>>,
}

impl Tensors {
    /// Entries whose ranges were found to lie inside of `file` and to be as long as their shapes ask.
    pub(crate) fn new(file: FileBytes, entries: BTreeMap<String, Entry>) -> Self {
        Self { file, entries: Arc::new(entries) }
    }

    /// A single tensor that fills `bytes`: row-major, little-endian. `None` unless they are as many as the shape asks.
    pub fn single(name: String, dtype: Dtype, shape: Vec<usize>, bytes: FileBytes) -> Option<Self> {
        let elements = shape.iter().try_fold(dtype.size(), |size, &extent| size.checked_mul(extent))?;
        let range = 0..bytes.as_ref().len();
        let kind = match dtype {
            Dtype::F32 => "F32",
            Dtype::F16 => "F16",
            Dtype::Bf16 => "BF16",
        };
        let entry = Entry { kind, encoding: Some(Encoding::Float(dtype)), shape, range };
        (elements == entry.range.len()).then(|| Self::new(bytes, BTreeMap::from([(name, entry)])))
    }

    /// The tensor of that name, if the file has it with an element type that is read.
    pub fn tensor(&self, name: &str) -> Option<TensorView> {
        let entry = self.entries.get(name)?;
        Some(TensorView::new(self.file.clone(), entry.range.clone(), entry.encoding?, entry.shape.clone()))
    }

    /// The matrix of `shape` that was quantised by `scheme` and is held as two tensors (see [`crate::quantised`]), if
    /// the file has both, with the types and shapes that follow.
    pub fn quantised(&self, name: &str, shape: [usize; 2], scheme: Scheme) -> Option<TensorView> {
        let [rows, columns] = shape;
        let numbers = self.entries.get(name)?;
        let scales = self.entries.get(&format!("{name}{SCALES}"))?;
        let is_sound = columns > 0
            && numbers.kind == scheme.kind()
            && numbers.shape == [rows, scheme.row_bytes(columns)]
            && scales.kind == "F32"
            && scales.shape == [rows, scheme.groups(columns)];
        let view = TensorView::new(
            self.file.clone(),
            numbers.range.clone(),
            Encoding::Quantised(scheme),
            shape.to_vec(),
        );
        is_sound.then(|| view.with_scales(scales.range.clone()))
    }

    /// Names of all tensors, sorted, and what they are in the file.
    pub fn raw(&self) -> impl Iterator<Item = RawTensor<'_>> {
        self.entries.iter().map(|(name, entry)| RawTensor {
            name,
            kind: entry.kind,
            shape: &entry.shape,
            bytes: &self.file.as_ref()[entry.range.clone()],
        })
    }

    /// The element type of a tensor as the file writes it (`F32`, `I64`, `Q4_K`, …), if the file has it.
    pub fn kind(&self, name: &str) -> Option<&'static str> {
        self.entries.get(name).map(|entry| entry.kind)
    }

    /// How the elements of every tensor are written, where that is read, and its shape.
    pub fn encodings(&self) -> impl Iterator<Item = (Option<Encoding>, &[usize])> {
        self.entries.values().map(|entry| (entry.encoding, entry.shape.as_slice()))
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.entries.values().map(|entry| entry.range.len() as u64).sum()
    }

    /// Names of all tensors, sorted, with their element types as the file writes them and their shapes.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &'static str, &[usize])> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry.kind, entry.shape.as_slice()))
    }
}
