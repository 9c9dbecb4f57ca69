//! Large, page-aligned, zeroed memory, backed by huge pages where the system offers them.

use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use crate::MemoryError;

/// What the start of an arena is a multiple of, also where there are no bytes: a view of them as wider elements must
/// not fail for being empty.
const ALIGNMENT: NonZeroUsize = NonZeroUsize::new(4096).expect("4096 is not zero");

/// A fixed run of zeroed bytes, aligned to at least 4 KiB. Physical memory is taken when a byte
/// is first touched; transparent huge pages are requested for arenas of 4 MiB and more.
pub struct Arena {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: an arena owns its mapping exclusively, like a `Box<[u8]>`.
unsafe impl Send for Arena {}
// SAFETY: shared access gives out shared slices only.
unsafe impl Sync for Arena {}

impl Arena {
    /// Reserves `bytes` zeroed bytes.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn zeroed(bytes: usize) -> Result<Self, MemoryError> {
        if bytes == 0 {
            return Ok(Self { start: NonNull::without_provenance(ALIGNMENT), bytes });
        }
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        let refused = || MemoryError::Refused { bytes, source: io::Error::last_os_error() };
        if start == libc::MAP_FAILED {
            return Err(refused());
        }
        #[cfg(target_os = "linux")]
        if bytes >= 4 << 20 {
            // SAFETY: the range is the mapping made above. Advice may be ignored, so its result is not looked at.
            unsafe { libc::madvise(start, bytes, libc::MADV_HUGEPAGE) };
        }
        NonNull::new(start.cast()).map(|start| Self { start, bytes }).ok_or_else(refused)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is `bytes` long, initialised to zero, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }

    /// The bytes, for writing.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // SAFETY: the range is exactly the mapping made in `zeroed`, and nobody borrows it any more.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
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
    fn absurd_size_is_refused() {
        let refused = Arena::zeroed(usize::MAX / 2);
        assert!(matches!(refused, Err(MemoryError::Refused { .. })));
    }
}
