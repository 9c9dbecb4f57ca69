//! Where keys and values live: pages of [`PAGE_TOKENS`] tokens in one arena.
//!
//! A page holds all layers of its tokens as one contiguous run of bytes, so that a page can be moved between tiers of
//! memory as a whole. Inside, per layer: keys `[kv head][dim][PAGE_TOKENS]` (tokens along the last axis, so that one
//! vector register holds one coordinate of many keys), then values `[kv head][PAGE_TOKENS][dim]`. Numbers of 8 bits are
//! followed by a scale for each head of each token, `[kv head][PAGE_TOKENS]` in `f32`, after the keys and after the
//! values: what is written for a token never depends on another one, so that it is the same in every batch.

use std::fmt;
use std::ops::Range;

use bytemuck::Pod;
use half::bf16;
use memory::{Arena, MemoryError};

use crate::Dtype;

/// Tokens of a KV page, and the absolute block of keys that attention walks.
pub const PAGE_TOKENS: usize = 32;

/// How keys and values are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvDtype {
    /// As they are computed.
    F32,
    /// Rounded to the upper half of an `F32`.
    Bf16,
    /// As whole numbers from -127 to 127 of a step that each head of each token has of its own: its largest coordinate
    /// over 127.
    Int8,
}

impl KvDtype {
    /// Bytes of one coordinate, without the scale.
    pub const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
            Self::Int8 => 1,
        }
    }

    /// Bytes of the scale of one head of one token.
    const fn scale_bytes(self) -> usize {
        match self {
            Self::F32 | Self::Bf16 => 0,
            Self::Int8 => size_of::<f32>(),
        }
    }
}

impl fmt::Display for KvDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        })
    }
}

/// The narrowest type that rounds no value of the other one.
impl From<Dtype> for KvDtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 | Dtype::F16 => Self::F32,
            Dtype::Bf16 => Self::Bf16,
        }
    }
}

/// Shape of the KV pages of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLayout {
    /// Decoder layers.
    pub layers: usize,
    /// Key and value heads.
    pub heads: usize,
    /// Width of one head.
    pub dim: usize,
    /// How they are held.
    pub dtype: KvDtype,
}

impl KvLayout {
    /// Elements of the keys (or of the values) of one layer in one page.
    pub const fn plane(&self) -> usize {
        self.heads * self.dim * PAGE_TOKENS
    }

    /// Bytes of the keys (or of the values) of one layer in one page, with their scales.
    const fn plane_bytes(&self) -> usize {
        self.plane() * self.dtype.size() + self.heads * PAGE_TOKENS * self.dtype.scale_bytes()
    }

    /// Bytes of one page.
    pub const fn page_bytes(&self) -> usize {
        self.layers * 2 * self.plane_bytes()
    }
}

/// Type in which weights are held, and keys and values may be.
pub(crate) trait Element: Pod + Send + Sync {
    /// Its name.
    const DTYPE: Dtype;
    /// As `f32`, exactly.
    fn widen(self) -> f32;
    /// Rounded to nearest, ties to even.
    fn narrow(value: f32) -> Self;
}

impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        value
    }
}

impl Element for bf16 {
    const DTYPE: Dtype = Dtype::Bf16;

    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }
}

/// Type in which keys and values are held: an [`Element`] that stands for itself, or a number that stands for itself
/// times a scale.
pub(crate) trait KvElement: Pod + Send + Sync {
    /// Whether there are scales.
    const SCALED: bool;
    /// The scale of one head of a token.
    fn scale(row: &[f32]) -> f32;
    /// What is held for a value, given one over the scale.
    fn hold(value: f32, inverse: f32) -> Self;
    /// What is held, without its scale, as `f32`, exactly.
    fn widened(self) -> f32;
}

impl<E: Element> KvElement for E {
    const SCALED: bool = false;

    #[inline(always)]
    fn scale(_: &[f32]) -> f32 {
        1.0
    }

    #[inline(always)]
    fn hold(value: f32, _: f32) -> Self {
        Self::narrow(value)
    }

    #[inline(always)]
    fn widened(self) -> f32 {
        self.widen()
    }
}

/// The largest number of 8 bits that keys and values are held as.
const INT8_MAX: f32 = 127.0;

impl KvElement for i8 {
    const SCALED: bool = true;

    /// What is no number makes the scale none, so that sums that ran over are seen and not hidden.
    #[inline(always)]
    fn scale(row: &[f32]) -> f32 {
        if row.iter().any(|value| value.is_nan()) {
            return f32::NAN;
        }
        row.iter().fold(0.0, |widest: f32, value| widest.max(value.abs())) / INT8_MAX
    }

    /// Nearest, ties to even. A row of zeros has the scale zero, whose inverse turns them into no numbers, and those
    /// into zeros.
    #[inline(always)]
    fn hold(value: f32, inverse: f32) -> Self {
        (value * inverse).clamp(-INT8_MAX, INT8_MAX).round_ties_even() as Self
    }

    #[inline(always)]
    fn widened(self) -> f32 {
        f32::from(self)
    }
}

/// Byte ranges of an arena: the keys (or the values) of one layer of a page, and their scales, which are none where
/// numbers stand for themselves.
#[derive(Clone)]
pub(crate) struct Plane {
    /// The numbers.
    pub(crate) numbers: Range<usize>,
    /// `[kv head][PAGE_TOKENS]` in `f32`.
    pub(crate) scales: Range<usize>,
}

/// The memory of all KV pages.
pub struct KvArena {
    layout: KvLayout,
    pages: usize,
    arena: Arena,
}

impl KvArena {
    /// Reserves `pages` pages, zeroed.
    ///
    /// # Errors
    /// When the operating system refuses the memory.
    pub fn new(layout: KvLayout, pages: usize) -> Result<Self, MemoryError> {
        let arena = Arena::zeroed(layout.page_bytes() * pages)?;
        Ok(Self { layout, pages, arena })
    }

    /// The shape of a page.
    pub fn layout(&self) -> KvLayout {
        self.layout
    }

    /// Number of pages.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// The bytes of the arena; page `p` starts at `p · page_bytes`.
    pub fn bytes(&self) -> &[u8] {
        self.arena.bytes()
    }

    /// The bytes of the arena, for writing.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.arena.bytes_mut()
    }

    /// Forgets what pages hold; their memory goes back to the system until they are written to.
    pub fn forget(&mut self, pages: &[u32]) {
        let bytes = self.layout.page_bytes();
        for page in pages.iter().map(|page| *page as usize) {
            self.arena.forget(page * bytes..(page + 1) * bytes);
        }
    }

    /// The numbers of a plane.
    pub(crate) fn numbers<E: KvElement>(&self, plane: &Plane) -> &[E] {
        bytemuck::cast_slice(&self.bytes()[plane.numbers.clone()])
    }

    /// The scales of a plane: none where numbers stand for themselves.
    pub(crate) fn scales(&self, plane: &Plane) -> &[f32] {
        bytemuck::cast_slice(&self.bytes()[plane.scales.clone()])
    }

    /// The keys, `[kv head][dim][PAGE_TOKENS]`, and the values, `[kv head][PAGE_TOKENS][dim]`, of one layer of a page.
    pub(crate) fn planes(&self, page: u32, layer: usize) -> (Plane, Plane) {
        let layout = self.layout;
        assert!(layer < layout.layers, "layer {layer} of {}", layout.layers);
        let (numbers, whole) = (layout.plane() * layout.dtype.size(), layout.plane_bytes());
        let plane =
            |start: usize| Plane { numbers: start..start + numbers, scales: start + numbers..start + whole };
        let keys = page as usize * layout.page_bytes() + 2 * layer * whole;
        (plane(keys), plane(keys + whole))
    }
}
