//! Sums of products of whole numbers of 8 bits, in lanes of 32 bits.

use std::arch::x86_64::*;

use super::{Avx2, Avx512, Lanes, proven};

/// Registers of as many `i32` sums as the lanes have `f32` values. Weights stand in registers as four bytes to a lane, and
/// meet the four numbers of a word of activations, which are between -127 and 127.
pub(in crate::cpu) trait WholeLanes: Copy {
    type Lanes: Lanes;

    /// A register.
    type I: Copy;

    /// The weight of 8 bits that products see as 0.
    const ZERO_OF_8_BITS: i32;

    /// The same machine's floats.
    fn lanes(self) -> Self::Lanes;

    /// Reads a register.
    ///
    /// # Safety
    /// `from` is valid for reading it; no alignment is needed.
    unsafe fn load(self, from: *const u32) -> Self::I;

    /// Writes a register.
    ///
    /// # Safety
    /// `to` is valid for writing it; no alignment is needed.
    unsafe fn store(self, to: *mut u32, value: Self::I);

    fn splat(self, value: i32) -> Self::I;

    fn add(self, a: Self::I, b: Self::I) -> Self::I;

    /// The lower (0) or the upper (1) half of every byte.
    fn nibbles(self, words: Self::I, which: usize) -> Self::I;

    /// Adds to every lane the products of its four weights with those of `x`; a byte stands for its distance from
    /// [`Self::ZERO_OF_8_BITS`] where its stored zero is the lowest number.
    fn add_products_of_8_bits(self, sum: Self::I, weights: Self::I, x: u32) -> Self::I;

    /// The same with weights of 0 to 15.
    fn add_products_of_4_bits(self, sum: Self::I, weights: Self::I, x: u32) -> Self::I;

    /// As floats; sums of a step are small enough to be exact.
    fn to_float(self, sum: Self::I) -> <Self::Lanes as Lanes>::F;
}

/// Proof that the machine has what [`Avx512`] says, and AVX512_VNNI.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Avx512Vnni(Avx512);

impl Avx512Vnni {
    /// # Safety
    /// The machine has the instructions.
    #[inline(always)]
    pub(in crate::cpu) unsafe fn assume() -> Self {
        // SAFETY: the caller's.
        Self(unsafe { Avx512::assume() })
    }
}

impl WholeLanes for Avx512Vnni {
    type Lanes = Avx512;
    type I = __m512i;

    const ZERO_OF_8_BITS: i32 = -128;

    #[inline(always)]
    fn lanes(self) -> Avx512 {
        self.0
    }

    #[inline(always)]
    unsafe fn load(self, from: *const u32) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u32, value: __m512i) {
        // SAFETY: the caller's.
        unsafe { _mm512_storeu_si512(to.cast(), value) }
    }

    proven! {
        fn splat(self, value: i32) -> __m512i { _mm512_set1_epi32(value) }
        fn add(self, a: __m512i, b: __m512i) -> __m512i { _mm512_add_epi32(a, b) }
        fn nibbles(self, words: __m512i, which: usize) -> __m512i {
            let words = if which == 0 { words } else { _mm512_srli_epi32::<4>(words) };
            _mm512_and_si512(words, _mm512_set1_epi8(0xf))
        }
        fn add_products_of_8_bits(self, sum: __m512i, weights: __m512i, x: u32) -> __m512i {
            _mm512_dpbusd_epi32(sum, weights, _mm512_set1_epi32(x.cast_signed()))
        }
        fn add_products_of_4_bits(self, sum: __m512i, weights: __m512i, x: u32) -> __m512i {
            _mm512_dpbusd_epi32(sum, weights, _mm512_set1_epi32(x.cast_signed()))
        }
        fn to_float(self, sum: __m512i) -> __m512 { _mm512_cvtepi32_ps(sum) }
    }
}

impl WholeLanes for Avx2 {
    type Lanes = Self;
    type I = __m256i;

    // The products are of signed weights, because sums of two unsigned ones would not fit into 16 bits.
    const ZERO_OF_8_BITS: i32 = 0;

    #[inline(always)]
    fn lanes(self) -> Self {
        self
    }

    #[inline(always)]
    unsafe fn load(self, from: *const u32) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u32, value: __m256i) {
        // SAFETY: the caller's.
        unsafe { _mm256_storeu_si256(to.cast(), value) }
    }

    proven! {
        fn splat(self, value: i32) -> __m256i { _mm256_set1_epi32(value) }
        fn add(self, a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi32(a, b) }
        fn nibbles(self, words: __m256i, which: usize) -> __m256i {
            let words = if which == 0 { words } else { _mm256_srli_epi32::<4>(words) };
            _mm256_and_si256(words, _mm256_set1_epi8(0xf))
        }
        fn add_products_of_8_bits(self, sum: __m256i, weights: __m256i, x: u32) -> __m256i {
            // |w| · (x with the sign of w): at most 128 · 127 twice, which fits.
            let signed = _mm256_xor_si256(weights, _mm256_set1_epi8(-128));
            let x = _mm256_sign_epi8(_mm256_set1_epi32(x.cast_signed()), signed);
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(signed), x);
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
        fn add_products_of_4_bits(self, sum: __m256i, weights: __m256i, x: u32) -> __m256i {
            let pairs = _mm256_maddubs_epi16(weights, _mm256_set1_epi32(x.cast_signed()));
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
        fn to_float(self, sum: __m256i) -> __m256 { _mm256_cvtepi32_ps(sum) }
    }
}
