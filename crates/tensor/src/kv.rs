//! Where keys and values live: pages of [`PAGE_TOKENS`] tokens in one arena.
//!
//! A page holds all layers of its tokens as one contiguous run of bytes, so that a page can be moved between tiers of
//! memory as a whole. Inside, per layer: keys `[kv head][dim][PAGE_TOKENS]` (tokens along the last axis, so that one
//! vector register holds one coordinate of many keys), then values `[kv head][PAGE_TOKENS][dim]`.

use std::ops::Range;

use bytemuck::Pod;
use half::bf16;
use memory::{Arena, MemoryError};

use crate::Dtype;

/// Tokens of a KV page, and the absolute block of keys that attention walks.
pub const PAGE_TOKENS: usize = 32;

/// Shape of the KV pages of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLayout {
    /// Decoder layers.
    pub layers: usize,
    /// Key and value heads.
    pub heads: usize,
    /// Width of one head.
    pub dim: usize,
    /// Element type: `F32` or `Bf16`.
    pub dtype: Dtype,
}

impl KvLayout {
    /// Elements of the keys (or of the values) of one layer in one page.
    pub const fn plane(&self) -> usize {
        self.heads * self.dim * PAGE_TOKENS
    }

    /// Bytes of one page.
    pub const fn page_bytes(&self) -> usize {
        self.layers * 2 * self.plane() * self.dtype.size()
    }
}

/// Type in which keys, values and weights are held.
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
        assert!(layout.dtype != Dtype::F16, "KV pages hold f32 or bf16, not {}", layout.dtype);
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

    /// The keys of one layer of a page: `[kv head][dim][PAGE_TOKENS]`.
    pub(crate) fn keys<E: Element>(&self, page: u32, layer: usize) -> &[E] {
        let (keys, _) = self.planes(page, layer);
        bytemuck::cast_slice(&self.bytes()[keys])
    }

    /// The values of one layer of a page: `[kv head][PAGE_TOKENS][dim]`.
    pub(crate) fn values<E: Element>(&self, page: u32, layer: usize) -> &[E] {
        let (_, values) = self.planes(page, layer);
        bytemuck::cast_slice(&self.bytes()[values])
    }

    /// The keys and the values of one layer of a page, for writing.
    pub(crate) fn planes_mut<E: Element>(&mut self, page: u32, layer: usize) -> (&mut [E], &mut [E]) {
        let (keys, values) = self.planes(page, layer);
        let both: &mut [E] = bytemuck::cast_slice_mut(&mut self.bytes_mut()[keys.start..values.end]);
        both.split_at_mut(both.len() / 2)
    }

    /// Byte ranges of the keys and of the values of one layer of a page; the values follow the keys.
    pub(crate) fn planes(&self, page: u32, layer: usize) -> (Range<usize>, Range<usize>) {
        assert!(layer < self.layout.layers, "layer {layer} of {}", self.layout.layers);
        let plane = self.layout.plane() * self.layout.dtype.size();
        let start = page as usize * self.layout.page_bytes() + 2 * layer * plane;
        (start..start + plane, start + plane..start + 2 * plane)
    }
}
