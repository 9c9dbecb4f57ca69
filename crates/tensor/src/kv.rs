//! Where keys and values live: pages of [`PAGE_TOKENS`] tokens in one arena.
//!
//! A page holds all layers of its tokens as one contiguous run of bytes, so that a page can be moved between tiers of
//! memory as a whole. Inside, per layer: keys `[kv head][dim][PAGE_TOKENS]` (tokens along the last axis, so that one
//! vector register holds one coordinate of many keys), then values `[kv head][PAGE_TOKENS][dim]`.

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
}
