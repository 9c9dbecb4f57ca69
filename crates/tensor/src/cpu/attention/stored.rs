//! Reading keys and values in the type that they are stored as.

use half::bf16;

use crate::cpu::lanes::Lanes;
use crate::kv::KvElement;

/// An element type that lanes can widen.
pub(super) trait Stored: KvElement {
    /// Reads and widens `N` elements.
    ///
    /// # Safety
    /// `from` is valid for reading them.
    unsafe fn load<L: Lanes>(l: L, from: *const Self) -> L::F;

    /// Reads and widens the first `count < N` elements; the other lanes are zero.
    ///
    /// # Safety
    /// `from` is valid for reading `count` elements.
    unsafe fn load_first<L: Lanes>(l: L, from: *const Self, count: usize) -> L::F;
}

impl Stored for f32 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(l: L, from: *const Self) -> L::F {
        // SAFETY: the caller's.
        unsafe { l.load(from) }
    }

    #[inline(always)]
    unsafe fn load_first<L: Lanes>(l: L, from: *const Self, count: usize) -> L::F {
        // SAFETY: the caller's.
        unsafe { l.load_first(from, count) }
    }
}

impl Stored for bf16 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(l: L, from: *const Self) -> L::F {
        // SAFETY: the caller's.
        unsafe { l.load_bf16(from) }
    }

    #[inline(always)]
    unsafe fn load_first<L: Lanes>(l: L, from: *const Self, count: usize) -> L::F {
        // SAFETY: the caller's; a register has at most 16 lanes.
        unsafe { l.load_bf16(first(from, count).as_ptr()) }
    }
}

impl Stored for i8 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(l: L, from: *const Self) -> L::F {
        // SAFETY: the caller's.
        unsafe { l.load_i8(from) }
    }

    #[inline(always)]
    unsafe fn load_first<L: Lanes>(l: L, from: *const Self, count: usize) -> L::F {
        // SAFETY: the caller's; a register has at most 16 lanes.
        unsafe { l.load_i8(first(from, count).as_ptr()) }
    }
}

/// The first `count` elements, and zeros.
///
/// # Safety
/// `from` is valid for reading `count` elements.
#[inline(always)]
unsafe fn first<E: KvElement>(from: *const E, count: usize) -> [E; 16] {
    let mut whole = [E::zeroed(); 16];
    for (i, element) in whole.iter_mut().take(count).enumerate() {
        // SAFETY: `i` is below `count`, which the caller vouches for.
        *element = unsafe { *from.add(i) };
    }
    whole
}
