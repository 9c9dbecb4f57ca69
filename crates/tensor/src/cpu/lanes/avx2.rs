//! Eight lanes: AVX2 with FMA.

use std::arch::x86_64::*;

use half::bf16;

use super::{Lanes, proven};

/// Proof that the machine has AVX2 and FMA.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Avx2(());

impl Avx2 {
    /// # Safety
    /// The machine has the instructions.
    #[inline(always)]
    pub(in crate::cpu) unsafe fn assume() -> Self {
        Self(())
    }

    proven! {
        /// All bits set in the first `count` lanes.
        fn first(self, count: usize) -> __m256i {
            let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            _mm256_cmpgt_epi32(_mm256_set1_epi32(count.min(8) as i32), lane)
        }
        /// Folds the upper half onto the lower one, so that four lanes are left.
        fn halves(self, value: __m256) -> [__m128; 2] {
            [_mm256_castps256_ps128(value), _mm256_extractf128_ps::<1>(value)]
        }
    }
}

/// For every mask, the lanes whose bits are set.
static FRONT: [[u8; 8]; 256] = {
    let mut lanes = [[0; 8]; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut lane, mut count) = (0, 0);
        while lane < 8 {
            if mask >> lane & 1 == 1 {
                lanes[mask][count] = lane as u8;
                count += 1;
            }
            lane += 1;
        }
        mask += 1;
    }
    lanes
};

impl Lanes for Avx2 {
    const N: usize = 8;

    type F = __m256;

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m256 {
        // SAFETY: the caller's.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_first(self, from: *const f32, count: usize) -> __m256 {
        // SAFETY: the caller's; lanes outside of the mask are not read.
        unsafe { _mm256_maskload_ps(from, self.first(count)) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> __m256 {
        // SAFETY: the caller's.
        unsafe {
            let narrow = _mm_loadu_si128(from.cast());
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(narrow)))
        }
    }

    #[inline(always)]
    unsafe fn load_i8(self, from: *const i8) -> __m256 {
        // SAFETY: the caller's.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn load_pairs(self, from: *const u32) -> [__m256; 2] {
        // SAFETY: the caller's.
        unsafe {
            let pairs = _mm256_loadu_si256(from.cast());
            let second = _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000_u32.cast_signed()));
            [_mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)), _mm256_castsi256_ps(second)]
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: __m256) {
        // SAFETY: the caller's.
        unsafe { _mm256_storeu_ps(to, value) }
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize, value: __m256) {
        // SAFETY: the caller's; lanes outside of the mask are not written.
        unsafe { _mm256_maskstore_ps(to, self.first(count), value) }
    }

    #[inline(always)]
    unsafe fn store_within(
        self,
        to: *mut f32,
        value: __m256,
        (low, high): (__m256, __m256),
        count: usize,
    ) -> usize {
        // SAFETY: the caller's; the table has an entry for each of the 256 masks, of as many indices as lanes.
        unsafe {
            let reaching = _mm256_cmp_ps::<_CMP_GE_OQ>(value, low);
            let within = _mm256_and_ps(reaching, _mm256_cmp_ps::<_CMP_NGE_UQ>(value, high));
            let within = _mm256_and_ps(within, _mm256_castsi256_ps(self.first(count)));
            let within = _mm256_movemask_ps(within) as usize;
            let order = _mm_loadl_epi64(FRONT[within].as_ptr().cast());
            let chosen = _mm256_permutevar8x32_ps(value, _mm256_cvtepu8_epi32(order));
            _mm256_storeu_ps(to, chosen);
            within.count_ones() as usize
        }
    }

    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16, value: __m256) {
        let rounded = self.round_bf16(value);
        // SAFETY: the caller's.
        unsafe {
            let upper = _mm256_srli_epi32::<16>(_mm256_castps_si256(rounded));
            let both = _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256::<1>(upper));
            _mm_storeu_si128(to.cast(), both);
        }
    }

    #[inline(always)]
    unsafe fn store_i8(self, to: *mut i8, value: __m256) {
        // SAFETY: the caller's.
        unsafe {
            let words = _mm256_cvtps_epi32(value);
            let halves = _mm_packs_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storel_epi64(to.cast(), _mm_packs_epi16(halves, halves));
        }
    }

    proven! {
        fn round_bf16(self, value: __m256) -> __m256 {
            let bits = _mm256_castps_si256(value);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let nearest = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
            // A NaN could be carried into an infinity: it keeps its upper half and gets a quiet bit instead.
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(value, value));
            let chosen = _mm256_blendv_epi8(nearest, quiet, nan);
            _mm256_castsi256_ps(_mm256_and_si256(chosen, _mm256_set1_epi32(0xffff_0000_u32.cast_signed())))
        }
        fn keep_bits(self, words: __m256, mask: u32, more: u32) -> __m256 {
            let kept = _mm256_and_ps(words, _mm256_set1_ps(f32::from_bits(mask)));
            _mm256_or_ps(kept, _mm256_set1_ps(f32::from_bits(more)))
        }
        fn upper_halves(self, words: __m256) -> __m256 {
            _mm256_castsi256_ps(_mm256_srli_epi32::<16>(_mm256_castps_si256(words)))
        }
        fn join_halves(self, low: __m256, high: __m256) -> __m256 {
            let low = _mm256_srli_epi32::<16>(_mm256_castps_si256(low));
            _mm256_castsi256_ps(_mm256_blend_epi16::<0xaa>(low, _mm256_castps_si256(high)))
        }
        fn splat(self, value: f32) -> __m256 { _mm256_set1_ps(value) }
        fn add(self, a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
        fn sub(self, a: __m256, b: __m256) -> __m256 { _mm256_sub_ps(a, b) }
        fn mul(self, a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
        fn div(self, a: __m256, b: __m256) -> __m256 { _mm256_div_ps(a, b) }
        fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) }
        fn min(self, a: __m256, b: __m256) -> __m256 { _mm256_min_ps(a, b) }
        fn max(self, a: __m256, b: __m256) -> __m256 { _mm256_max_ps(a, b) }
        fn abs(self, value: __m256) -> __m256 { _mm256_andnot_ps(_mm256_set1_ps(-0.0), value) }
        fn round(self, value: __m256) -> __m256 {
            _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(value)
        }
        fn power_of_two(self, n: __m256) -> __m256 {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
        }
        fn if_less(self, a: __m256, b: __m256, yes: __m256, no: __m256) -> __m256 {
            _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b))
        }
        fn keep_first(self, count: usize, value: __m256, rest: __m256) -> __m256 {
            _mm256_blendv_ps(rest, value, _mm256_castsi256_ps(self.first(count)))
        }
        fn sum(self, value: __m256) -> f32 {
            let [low, high] = self.halves(value);
            let four = _mm_add_ps(low, high);
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
        fn highest(self, value: __m256) -> f32 {
            let [low, high] = self.halves(value);
            let four = _mm_max_ps(low, high);
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }
}
