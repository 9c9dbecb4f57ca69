//! Large, page-aligned, zeroed memory, backed by huge pages where the system offers them.
//!
//! A huge page is 2 MiB, and the matrices of a small model are not much more, or less. Each in a mapping of its own would
//! mostly stand on small pages, from which memory was read at two thirds of its speed. So arenas share regions, end to
//! end.

use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use crate::MemoryError;

/// What the start of an arena is a multiple of, also where there are no bytes: a view of them as wider elements must
/// not fail for being empty.
const ALIGNMENT: NonZeroUsize = NonZeroUsize::new(4096).expect("4096 is not zero");

/// What regions start at a multiple of.
const HUGE_PAGE: usize = 2 << 20;

/// Bytes of a region that arenas share. Only what is touched takes memory.
const REGION: usize = 64 << 20;

/// Bytes of the largest arena that shares a region.
const SHARING: usize = REGION / 4;

/// The region that arenas are taken from, and how much of it is taken. What was taken is never given out again.
static OPEN: Mutex<Option<(Arc<Region>, usize)>> = Mutex::new(None);

/// A mapping of zeros.
struct Region {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a region is an address and a length; who may touch which bytes is the affair of the arenas in it.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    fn map(bytes: usize) -> Result<Self, MemoryError> {
        let refused = || MemoryError::Refused { bytes, source: io::Error::last_os_error() };
        // The kernel aligns mappings to small pages, so there is room to move up to the next huge one.
        let slack = if bytes >= HUGE_PAGE { HUGE_PAGE } else { 0 };
        let mapped = bytes.checked_add(slack).ok_or_else(refused)?;
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(refused());
        }
        let before = if slack > 0 { start.cast::<u8>().align_offset(HUGE_PAGE).min(slack) } else { 0 };
        // SAFETY: `before` is at most the slack, so `bytes` bytes of the mapping follow this address. What is before and
        // behind them belongs to nobody. Advice may be ignored, so its result is not looked at.
        let start = unsafe {
            let first = start.cast::<u8>().add(before);
            let whole_before = before / ALIGNMENT.get() * ALIGNMENT.get();
            if whole_before > 0 {
                libc::munmap(start, whole_before);
            }
            #[cfg(target_os = "linux")]
            if slack > 0 {
                libc::madvise(first.cast(), bytes, libc::MADV_HUGEPAGE);
            }
            first
        };
        NonNull::new(start).map(|start| Self { start, bytes: mapped - before }).ok_or_else(refused)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: what is left of the mapping made in `map`, which begins at a small page; nobody borrows it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// A fixed run of zeroed bytes, aligned to at least 4 KiB. Physical memory is taken when a byte is first touched;
/// transparent huge pages are requested wherever one fits.
pub struct Arena {
    start: NonNull<u8>,
    bytes: usize,
    /// Where the bytes are, if there are any.
    region: Option<Arc<Region>>,
}

// SAFETY: an arena owns its bytes exclusively, like a `Box<[u8]>`.
unsafe impl Send for Arena {}
// SAFETY: shared access gives out shared slices only.
unsafe impl Sync for Arena {}

impl Default for Arena {
    /// No bytes.
    fn default() -> Self {
        Self { start: NonNull::without_provenance(ALIGNMENT), bytes: 0, region: None }
    }
}

impl Arena {
    /// Reserves `bytes` zeroed bytes.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn zeroed(bytes: usize) -> Result<Self, MemoryError> {
        if bytes == 0 {
            return Ok(Self::default());
        }
        if bytes > SHARING {
            let region = Region::map(bytes)?;
            return Ok(Self { start: region.start, bytes, region: Some(Arc::new(region)) });
        }
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let (region, taken) = match open.take() {
            Some((region, taken)) if taken + bytes <= REGION => (region, taken),
            _ => (Arc::new(Region::map(REGION)?), 0),
        };
        // SAFETY: the region is at least `REGION` long, and these bytes of it were given to nobody else.
        let start = unsafe { region.start.add(taken) };
        *open = Some((Arc::clone(&region), (taken + bytes).next_multiple_of(ALIGNMENT.get())));
        Ok(Self { start, bytes, region: Some(region) })
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the region has these bytes, initialised to zero, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }

    /// Where the bytes begin, for owners of parts of them that do not overlap.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Gives the memory of whole small pages back to the system; they read as zeros when they are touched again. The range
    /// belongs to nobody, and `offset` and `length` are multiples of 4 KiB.
    pub(crate) fn give_back(&self, offset: usize, length: usize) {
        assert!(offset + length <= self.bytes && (offset | length).is_multiple_of(ALIGNMENT.get()));
        #[cfg(target_os = "linux")]
        if length > 0 {
            // SAFETY: the range is inside of the arena and whole pages of it, and the caller vouches that nobody borrows it.
            // Advice may be ignored, so its result is not looked at.
            unsafe { libc::madvise(self.start.as_ptr().add(offset).cast(), length, libc::MADV_DONTNEED) };
        }
    }

    /// Forgets a range: the memory of its whole small pages goes back to the system, and they read as zeros from now on.
    pub fn forget(&mut self, range: Range<usize>) {
        let first = range.start.next_multiple_of(ALIGNMENT.get());
        let end = range.end.min(self.bytes) / ALIGNMENT.get() * ALIGNMENT.get();
        self.give_back(first, end.saturating_sub(first));
    }

    /// Keeps the first `bytes` bytes from being swapped out, and touches all of them.
    ///
    /// # Errors
    /// When the system refuses, mostly because the process may not lock so much (`ulimit -l`).
    pub(crate) fn lock(&self, bytes: usize) -> io::Result<()> {
        let bytes = bytes.min(self.bytes);
        // SAFETY: the range is inside of the mapping; locking changes no byte. The lock ends with the mapping.
        match unsafe { libc::mlock(self.start.as_ptr().cast(), bytes) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The bytes, for writing.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        #[cfg(target_os = "linux")]
        if self.region.is_some() {
            // SAFETY: whole pages of this arena alone, which nobody borrows any more; others of the region keep theirs.
            unsafe { libc::madvise(self.start.as_ptr().cast(), self.bytes, libc::MADV_DONTNEED) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arena_is_zeroed_aligned_and_writable() {
        for bytes in [0, 1, 4096, (4 << 20) + 1] {
            let mut arena = Arena::zeroed(bytes).unwrap();
            assert!(arena.bytes().iter().all(|&byte| byte == 0));
            assert_eq!(arena.bytes().len(), bytes);
            assert_eq!(arena.bytes().as_ptr() as usize % ALIGNMENT, 0);
            if let Some(last) = arena.bytes_mut().last_mut() {
                *last = 7;
                assert_eq!(arena.bytes()[bytes - 1], 7);
            }
        }
    }

    #[test]
    fn arenas_of_a_region_are_apart_and_outlive_each_other() {
        let sizes = [1, 5000, 3 << 20, 7, SHARING, SHARING + 1, SHARING, SHARING, SHARING];
        let mut arenas: Vec<Arena> = sizes.iter().map(|&bytes| Arena::zeroed(bytes).unwrap()).collect();
        for (number, arena) in (1..).zip(&mut arenas) {
            assert!(arena.bytes().iter().all(|&byte| byte == 0));
            arena.bytes_mut().fill(number);
        }
        let kept: Vec<(u8, Arena)> = (1..).zip(arenas).filter(|(number, _)| number % 2 == 1).collect();
        for (number, arena) in &kept {
            assert!(arena.bytes().iter().all(|byte| byte == number), "arena {number}");
        }
    }

    #[test]
    fn what_is_forgotten_reads_as_zeros_and_nothing_else_does() {
        let mut arena = Arena::zeroed(5 * 4096).unwrap();
        arena.bytes_mut().fill(7);
        arena.forget(4096..4 * 4096 + 100);
        let zeros = arena.bytes().iter().position(|byte| *byte == 0).unwrap();
        let after = arena.bytes()[zeros..].iter().position(|byte| *byte == 7).unwrap();
        assert_eq!((zeros, after), (4096, 3 * 4096));
        arena.forget(10..20);
        assert_eq!(arena.bytes()[15], 7);
    }

    #[test]
    fn absurd_size_is_refused() {
        let refused = Arena::zeroed(usize::MAX / 2);
        assert!(matches!(refused, Err(MemoryError::Refused { .. })));
    }
}
