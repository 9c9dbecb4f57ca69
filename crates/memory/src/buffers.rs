//! A pool of reusable buffers in one arena: by size class, page-aligned, within a budget at every instant.
//!
//! All buffers stand in one mapping that is as large as the budget may ever be, so the budget holds by construction, huge
//! pages serve buffers of any size, and the whole can be locked in memory for staging. Requests are rounded up to a size
//! class (four to each doubling, so at most a fifth is rounding), and what is given back grows together with its
//! neighbours. What cannot grow together, because buffers in use stand between, is what [`BufferPool::fragments`] tells.

mod extents;
#[cfg(test)]
mod tests;

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::{Arena, MemoryError};
pub(crate) use extents::{Extent, Extents};

/// What buffers are multiples of, in address and in length.
pub(crate) const BLOCK: usize = 4096;

/// Whether buffers may be swapped out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Residency {
    /// They may.
    #[default]
    Pageable,
    /// They may not, if the system allows that: [`BufferPool::locked`] says whether it did.
    Locked,
}

/// Reusable buffers within a budget. Clones are the same pool.
#[derive(Clone)]
pub struct BufferPool {
    shared: Arc<Shared>,
}

struct Shared {
    arena: Arena,
    locked: bool,
    extents: Mutex<Extents>,
    freed: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Shared {
    fn extents(&self) -> MutexGuard<'_, Extents> {
        self.extents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BufferPool {
    /// A pool of `bytes` bytes, rounded down to whole pages. Memory is taken as buffers are first written.
    ///
    /// # Errors
    /// When the system refuses the mapping.
    pub fn new(bytes: usize, residency: Residency) -> Result<Self, MemoryError> {
        let bytes = bytes / BLOCK * BLOCK;
        let arena = Arena::zeroed(bytes)?;
        let locked = residency == Residency::Locked && bytes > 0 && arena.lock(bytes).is_ok();
        let extents = Mutex::new(Extents::new(bytes));
        Ok(Self { shared: Arc::new(Shared { arena, locked, extents, freed: OnceLock::new() }) })
    }

    /// A buffer of `bytes` bytes of unspecified content, or `None` if there is no room for one just now.
    pub fn take(&self, bytes: usize) -> Option<Buffer> {
        let extent = self.shared.extents().take(size_class(bytes))?;
        Some(Buffer { shared: Arc::clone(&self.shared), extent, bytes })
    }

    /// As [`BufferPool::take`], but only from room before `offset`.
    pub(crate) fn take_before(&self, bytes: usize, offset: usize) -> Option<Buffer> {
        let extent = self.shared.extents().take_before(size_class(bytes), offset)?;
        Some(Buffer { shared: Arc::clone(&self.shared), extent, bytes })
    }

    /// The most bytes that buffers may take.
    pub fn budget(&self) -> usize {
        self.shared.extents().limit()
    }

    /// The most that the budget can ever be.
    pub fn capacity(&self) -> usize {
        self.shared.arena.bytes().len()
    }

    /// Changes the budget, to at most the capacity. Buffers in use stay; what is free goes back to the system.
    pub fn set_budget(&self, bytes: usize) {
        let mut extents = self.shared.extents();
        extents.set_limit(bytes.min(self.capacity()) / BLOCK * BLOCK);
        // While the lock is held nobody can be given what is handed back.
        if !self.shared.locked {
            for Extent { offset, length } in extents.free() {
                self.shared.arena.give_back(offset, length);
            }
        }
    }

    /// Bytes of the buffers in use, with what their size classes round up.
    pub fn used(&self) -> usize {
        self.shared.extents().used()
    }

    /// Stretches of free room; one is the best there is.
    pub fn fragments(&self) -> usize {
        self.shared.extents().free().count()
    }

    /// Whether the memory is locked.
    pub fn locked(&self) -> bool {
        self.shared.locked
    }

    /// Calls `freed` whenever a buffer has been given back, on the thread that did so. Only the first call counts.
    pub(crate) fn on_freed(&self, freed: impl Fn() + Send + Sync + 'static) {
        // There is one owner of a pool who listens, and it asks once.
        let _ = self.shared.freed.set(Box::new(freed));
    }
}

/// The length of the buffer that is used for so many bytes: whole pages, in four steps to each doubling.
pub(crate) fn size_class(bytes: usize) -> usize {
    let pages = bytes.div_ceil(BLOCK).max(1);
    let step = (1 << pages.ilog2()).max(4) / 4;
    pages.div_ceil(step).saturating_mul(step).saturating_mul(BLOCK)
}

/// A buffer of a pool: page-aligned, of a length of its own, given back when it is dropped.
pub struct Buffer {
    shared: Arc<Shared>,
    extent: Extent,
    bytes: usize,
}

// SAFETY: a buffer owns its extent of the arena exclusively, like a `Box<[u8]>`.
unsafe impl Send for Buffer {}
// SAFETY: shared access gives out shared slices only.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Makes it shorter.
    pub fn truncate(&mut self, bytes: usize) {
        self.bytes = self.bytes.min(bytes);
    }

    /// What it takes of its pool.
    pub fn footprint(&self) -> usize {
        self.extent.length
    }

    pub(crate) fn offset(&self) -> usize {
        self.extent.offset
    }

    /// Its bytes and what follows up to the end of its last page.
    pub(crate) fn padded(&self) -> &[u8] {
        self.slice(self.bytes.next_multiple_of(BLOCK))
    }

    /// Zeroes what follows its bytes up to the end of its last page, which held something else before.
    pub(crate) fn clear_padding(&mut self) {
        let bytes = self.bytes;
        self.slice_mut(bytes.next_multiple_of(BLOCK))[bytes..].fill(0);
    }

    /// As [`Buffer::padded`], for writing.
    pub(crate) fn padded_mut(&mut self) -> &mut [u8] {
        let padded = self.bytes.next_multiple_of(BLOCK);
        self.slice_mut(padded)
    }

    fn slice(&self, length: usize) -> &[u8] {
        assert!(length <= self.extent.length);
        // SAFETY: the extent lies inside of the arena, which lives as long as `shared`, is initialised (with zeros at
        // first), and belongs to this buffer alone until it is dropped.
        unsafe {
            std::slice::from_raw_parts(self.shared.arena.start().as_ptr().add(self.extent.offset), length)
        }
    }

    fn slice_mut(&mut self, length: usize) -> &mut [u8] {
        assert!(length <= self.extent.length);
        // SAFETY: as in `slice`, and `&mut self` makes the access exclusive.
        unsafe {
            std::slice::from_raw_parts_mut(self.shared.arena.start().as_ptr().add(self.extent.offset), length)
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.slice(self.bytes)
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        let bytes = self.bytes;
        self.slice_mut(bytes)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut extents = self.shared.extents();
        if extents.limit() < self.shared.arena.bytes().len() && !self.shared.locked {
            // The next buffer may stand elsewhere, and what stays here would be in memory beside it, beyond the budget.
            self.shared.arena.give_back(self.extent.offset, self.extent.length);
        }
        extents.give(self.extent);
        drop(extents);
        if let Some(freed) = self.shared.freed.get() {
            freed();
        }
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffer").field("bytes", &self.bytes).field("extent", &self.extent).finish()
    }
}

impl std::fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BufferPool").field("used", &self.used()).field("budget", &self.budget()).finish()
    }
}
