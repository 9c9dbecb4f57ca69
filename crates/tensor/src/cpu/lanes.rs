//! One vocabulary over vector registers of different widths, so that an operation is written once.
//!
//! A value of a type that implements [`Lanes`] is the proof that the machine has the instructions; it is made in
//! [`super::dispatch`] alone. Everything here is inlined into the functions that enable the instructions, which is why
//! every body that works on lanes is `#[inline(always)]` and holds no closure.

mod avx2;
mod avx512;
mod whole;

use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};

use half::bf16;

pub(super) use avx2::Avx2;
pub(super) use avx512::{Avx512, Avx512Bf16};
pub(super) use whole::{Avx512Vnni, WholeLanes};

/// Registers of [`Lanes::N`] `f32` values.
pub(super) trait Lanes: Copy {
    /// Values in a register.
    const N: usize;

    /// A register.
    type F: Copy;

    /// Reads `N` values.
    ///
    /// # Safety
    /// `from` is valid for reading them; so it is for every method that takes a pointer. No alignment is needed.
    unsafe fn load(self, from: *const f32) -> Self::F;

    /// Reads the first `count < N` values; the other lanes are zero.
    ///
    /// # Safety
    /// `from` is valid for reading `count` values.
    unsafe fn load_first(self, from: *const f32, count: usize) -> Self::F;

    /// Reads and widens `N` values.
    ///
    /// # Safety
    /// As for `load`.
    unsafe fn load_bf16(self, from: *const bf16) -> Self::F;

    /// Reads and widens `N` numbers of 8 bits.
    ///
    /// # Safety
    /// As for `load`.
    unsafe fn load_i8(self, from: *const i8) -> Self::F;

    /// Reads `N` pairs of bf16 values and widens the first and the second members.
    ///
    /// # Safety
    /// As for `load`.
    unsafe fn load_pairs(self, from: *const u32) -> [Self::F; 2];

    /// Reads `N` words of four numbers of 8 bits, of which 0 stands for `lowest` (see `packed/grouping.rs`).
    ///
    /// # Safety
    /// As for `load`.
    #[inline(always)]
    unsafe fn load_quads(self, from: *const u32, lowest: f32) -> [Self::F; 4] {
        // SAFETY: the caller's.
        let words = unsafe { self.load(from.cast()) };
        let upper = self.upper_halves(words);
        [
            self.field::<0, 0xff>(words, lowest),
            self.field::<8, 0xff>(words, lowest),
            self.field::<0, 0xff>(upper, lowest),
            self.field::<8, 0xff>(upper, lowest),
        ]
    }

    /// Reads `N` words of eight numbers of 4 bits, of which 0 stands for `lowest`.
    ///
    /// # Safety
    /// As for `load`.
    #[inline(always)]
    unsafe fn load_octets(self, from: *const u32, lowest: f32) -> [Self::F; 8] {
        // SAFETY: the caller's.
        let words = unsafe { self.load(from.cast()) };
        let upper = self.upper_halves(words);
        [
            self.field::<0, 0xf>(words, lowest),
            self.field::<8, 0xf>(words, lowest),
            self.field::<0, 0xf>(upper, lowest),
            self.field::<8, 0xf>(upper, lowest),
            self.field::<4, 0xf>(words, lowest),
            self.field::<12, 0xf>(words, lowest),
            self.field::<4, 0xf>(upper, lowest),
            self.field::<12, 0xf>(upper, lowest),
        ]
    }

    /// The number that the bits `MASK << SHIFT` (below 16) of every lane mean, and `lowest` added.
    ///
    /// A float between 2^(23 - SHIFT) and twice that counts ones in its bit SHIFT, so the bits become a number by being
    /// put into such a float, from which what is too much is taken away, without rounding.
    #[inline(always)]
    fn field<const SHIFT: u32, const MASK: u32>(self, words: Self::F, lowest: f32) -> Self::F {
        let magic = (127 + 23 - SHIFT) << 23;
        let number = self.keep_bits(words, MASK << SHIFT, magic);
        self.sub(number, self.splat(f32::from_bits(magic) - lowest))
    }

    /// The bits of every lane that `mask` has, and `more` bits that it has not.
    fn keep_bits(self, words: Self::F, mask: u32, more: u32) -> Self::F;

    /// The upper 16 bits of every lane as its lower ones.
    fn upper_halves(self, words: Self::F) -> Self::F;

    /// The upper 16 bits of `low` below the upper 16 bits of `high`: two bf16 numbers in a word.
    fn join_halves(self, low: Self::F, high: Self::F) -> Self::F;

    /// Writes `N` values.
    ///
    /// # Safety
    /// `to` is valid for writing them.
    unsafe fn store(self, to: *mut f32, value: Self::F);

    /// Writes the first `count < N` values.
    ///
    /// # Safety
    /// `to` is valid for writing `count` values.
    unsafe fn store_first(self, to: *mut f32, count: usize, value: Self::F);

    /// Writes those of the first `count` values that are at least the first bound and not at or above the second (which
    /// nothing is, if it is NaN) next to each other, and returns how many they are.
    ///
    /// # Safety
    /// `to` is valid for writing `N` values; what stands behind the chosen ones is of no meaning afterwards.
    unsafe fn store_within(
        self,
        to: *mut f32,
        value: Self::F,
        span: (Self::F, Self::F),
        count: usize,
    ) -> usize;

    /// Rounds to bf16 (nearest, ties to even) and widens again. NaN stays NaN.
    fn round_bf16(self, value: Self::F) -> Self::F;

    /// Writes `N` values rounded to bf16 (nearest, ties to even). NaN stays NaN; what is too small to be normal may become zero.
    ///
    /// # Safety
    /// `to` is valid for writing them.
    unsafe fn store_bf16(self, to: *mut bf16, value: Self::F);

    /// Writes `N` whole numbers between -128 and 127 as bytes.
    ///
    /// # Safety
    /// `to` is valid for writing them.
    unsafe fn store_i8(self, to: *mut i8, value: Self::F);

    /// Reads the first values of `from`, at most `N`; lanes behind its end are zero.
    #[inline(always)]
    fn read(self, from: &[f32]) -> Self::F {
        // SAFETY: no more is read than the slice holds.
        unsafe {
            if from.len() >= Self::N {
                self.load(from.as_ptr())
            } else {
                self.load_first(from.as_ptr(), from.len())
            }
        }
    }

    /// Writes to the first places of `to`, at most `N`; lanes behind its end are dropped.
    #[inline(always)]
    fn write(self, to: &mut [f32], value: Self::F) {
        // SAFETY: no more is written than the slice holds.
        unsafe {
            if to.len() >= Self::N {
                self.store(to.as_mut_ptr(), value);
            } else {
                self.store_first(to.as_mut_ptr(), to.len(), value);
            }
        }
    }

    fn splat(self, value: f32) -> Self::F;
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `b` where either is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// `b` where either is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    fn abs(self, value: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    fn round(self, value: Self::F) -> Self::F;
    /// `2^n` of whole numbers in -126..=127.
    fn power_of_two(self, n: Self::F) -> Self::F;
    /// `value · 2^n` for whole numbers `n` in -126..=127.
    #[inline(always)]
    fn times_power_of_two(self, value: Self::F, n: Self::F) -> Self::F {
        self.mul(value, self.power_of_two(n))
    }
    /// `yes` where `a < b`, else `no`; `no` where either is NaN.
    fn if_less(self, a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F;
    /// `value` in the first `count` lanes (all, if `count >= N`), `rest` in the others.
    fn keep_first(self, count: usize, value: Self::F, rest: Self::F) -> Self::F;
    /// Sum over the lanes, by halves.
    fn sum(self, value: Self::F) -> f32;
    /// Maximum over the lanes.
    fn highest(self, value: Self::F) -> f32;
}

/// Asks for the cache line at `at`, which need not be valid.
#[inline(always)]
pub(super) fn prefetch<T>(at: *const T) {
    // SAFETY: a hint that reads nothing and never faults; every x86-64 machine has the instruction.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
}

/// As [`prefetch`], into the cache that is nearest.
#[inline(always)]
pub(super) fn prefetch_near<T>(at: *const T) {
    // SAFETY: as in `prefetch`.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
}

/// Defines methods whose bodies are intrinsics, all under the same proof.
macro_rules! proven {
    ($($(#[$note:meta])* fn $name:ident($self:ident, $($arg:ident: $kind:ty),*) -> $out:ty $body:block)*) => {$(
        $(#[$note])*
        #[inline(always)]
        fn $name($self, $($arg: $kind),*) -> $out {
            // SAFETY: the value `self` exists, so the machine has the instructions (see the module's head); none of
            // these intrinsics touches memory.
            unsafe { $body }
        }
    )*};
}
use proven;
