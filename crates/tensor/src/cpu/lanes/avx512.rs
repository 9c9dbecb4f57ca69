//! Sixteen lanes: AVX-512 F, BW, DQ, VL, and `vdpbf16ps` on top of them.

use std::arch::x86_64::*;

use half::bf16;

use super::{Lanes, proven};

/// Proof that the machine has AVX-512 F, BW, DQ and VL, and AVX512_BF16 if it says so.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Avx512<const BF16: bool = false>(());

/// Proof that the machine has AVX512_BF16, too.
pub(in crate::cpu) type Avx512Bf16 = Avx512<true>;

impl<const BF16: bool> Avx512<BF16> {
    /// # Safety
    /// The machine has the instructions.
    #[inline(always)]
    pub(in crate::cpu) unsafe fn assume() -> Self {
        Self(())
    }
}

impl Avx512Bf16 {
    /// Adds to every lane of `sum` the products of its pair of weights with the pair `x`.
    #[inline(always)]
    pub(in crate::cpu) fn add_pair_products(self, sum: __m512, x: u32, weights: __m512i) -> __m512 {
        // SAFETY: the value `self` exists, so the machine has the instructions; the casts keep all bits.
        unsafe {
            let x = _mm512_set1_epi32(x.cast_signed());
            _mm512_dpbf16_ps(
                sum,
                std::mem::transmute::<__m512i, __m512bh>(x),
                std::mem::transmute::<__m512i, __m512bh>(weights),
            )
        }
    }
}

#[inline(always)]
fn first(count: usize) -> __mmask16 {
    if count >= 16 { !0 } else { (1 << count) - 1 }
}

impl<const BF16: bool> Lanes for Avx512<BF16> {
    const N: usize = 16;

    type F = __m512;

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m512 {
        // SAFETY: the caller's.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_first(self, from: *const f32, count: usize) -> __m512 {
        // SAFETY: the caller's; lanes outside of the mask are not read.
        unsafe { _mm512_maskz_loadu_ps(first(count), from) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> __m512 {
        // SAFETY: the caller's.
        unsafe {
            let narrow = _mm256_loadu_si256(from.cast());
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(narrow)))
        }
    }

    #[inline(always)]
    unsafe fn load_i8(self, from: *const i8) -> __m512 {
        // SAFETY: the caller's.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn load_pairs(self, from: *const u32) -> [__m512; 2] {
        // SAFETY: the caller's.
        unsafe {
            let pairs = _mm512_loadu_si512(from.cast());
            let second = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32.cast_signed()));
            [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)), _mm512_castsi512_ps(second)]
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: __m512) {
        // SAFETY: the caller's.
        unsafe { _mm512_storeu_ps(to, value) }
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize, value: __m512) {
        // SAFETY: the caller's; lanes outside of the mask are not written.
        unsafe { _mm512_mask_storeu_ps(to, first(count), value) }
    }

    #[inline(always)]
    unsafe fn store_within(
        self,
        to: *mut f32,
        value: __m512,
        (low, high): (__m512, __m512),
        count: usize,
    ) -> usize {
        // SAFETY: the caller's; a whole register is written, since writing parts of one is slow on some machines.
        unsafe {
            let reaching = _mm512_mask_cmp_ps_mask::<_CMP_GE_OQ>(first(count), value, low);
            let within = _mm512_mask_cmp_ps_mask::<_CMP_NGE_UQ>(reaching, value, high);
            _mm512_storeu_ps(to, _mm512_maskz_compress_ps(within, value));
            within.count_ones() as usize
        }
    }

    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16, value: __m512) {
        // SAFETY: the caller's, and where `BF16` is set the machine has the instruction, which rounds in the same way but
        // for numbers too small to be normal.
        unsafe {
            if BF16 {
                let narrow = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(value));
                return _mm256_storeu_si256(to.cast(), narrow);
            }
            let rounded = self.round_bf16(value);
            let upper = _mm512_srli_epi32::<16>(_mm512_castps_si512(rounded));
            _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(upper));
        }
    }

    #[inline(always)]
    unsafe fn store_i8(self, to: *mut i8, value: __m512) {
        // SAFETY: the caller's.
        unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(value))) }
    }

    proven! {
        fn round_bf16(self, value: __m512) -> __m512 {
            let bits = _mm512_castps_si512(value);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let nearest = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            // A NaN could be carried into an infinity: it keeps its upper half and gets a quiet bit instead.
            let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x0040_0000));
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(value, value);
            let chosen = _mm512_mask_blend_epi32(nan, nearest, quiet);
            _mm512_castsi512_ps(_mm512_and_si512(chosen, _mm512_set1_epi32(0xffff_0000_u32.cast_signed())))
        }
        fn keep_bits(self, words: __m512, mask: u32, more: u32) -> __m512 {
            let (mask, more) = (_mm512_set1_epi32(mask.cast_signed()), _mm512_set1_epi32(more.cast_signed()));
            // (words & mask) | more
            _mm512_castsi512_ps(_mm512_ternarylogic_epi32::<0xea>(_mm512_castps_si512(words), mask, more))
        }
        fn upper_halves(self, words: __m512) -> __m512 {
            _mm512_castsi512_ps(_mm512_srli_epi32::<16>(_mm512_castps_si512(words)))
        }
        fn join_halves(self, low: __m512, high: __m512) -> __m512 {
            let low = _mm512_srli_epi32::<16>(_mm512_castps_si512(low));
            _mm512_castsi512_ps(_mm512_mask_blend_epi16(0xaaaa_aaaa, low, _mm512_castps_si512(high)))
        }
        fn splat(self, value: f32) -> __m512 { _mm512_set1_ps(value) }
        fn add(self, a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn sub(self, a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        fn mul(self, a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn div(self, a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
        fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn min(self, a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) }
        fn max(self, a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
        fn abs(self, value: __m512) -> __m512 { _mm512_abs_ps(value) }
        fn round(self, value: __m512) -> __m512 {
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(value)
        }
        fn power_of_two(self, n: __m512) -> __m512 {
            let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
        }
        fn times_power_of_two(self, value: __m512, n: __m512) -> __m512 { _mm512_scalef_ps(value, n) }
        fn if_less(self, a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 {
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes)
        }
        fn keep_first(self, count: usize, value: __m512, rest: __m512) -> __m512 {
            _mm512_mask_blend_ps(first(count), rest, value)
        }
        fn sum(self, value: __m512) -> f32 { _mm512_reduce_add_ps(value) }
        fn highest(self, value: __m512) -> f32 { _mm512_reduce_max_ps(value) }
    }
}
