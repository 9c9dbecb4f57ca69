//! Loops that do nothing but multiply and add, in as many registers as hide the latency.

use std::arch::x86_64::*;
use std::hint::black_box;

use crate::Isa;
use crate::cpu::dispatch::Level;
use crate::peak::Arithmetic;

/// Multiplies for `rounds` rounds with what the level does this arithmetic with; the operations of one round. Panics
/// unless the machine runs `isa` and it is not the scalar one.
pub(crate) fn multiply_in_registers(isa: Isa, arithmetic: Arithmetic, rounds: usize) -> usize {
    let level = Level::new(isa);
    // SAFETY: a level is made where the machine runs it, and every function is asked for where its level has the
    // instructions.
    unsafe {
        match (isa, arithmetic) {
            (Isa::Amx, Arithmetic::Bf16 | Arithmetic::Int8) => {
                super::tiles::multiply_tiles(arithmetic, rounds)
            }
            (Isa::Avx512Bf16, Arithmetic::Bf16) => bf16_pairs(rounds),
            (_, Arithmetic::Int8) if level.has_vnni() => quads(rounds),
            (Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512, _) => f32_of_512_bits(rounds),
            (_, Arithmetic::Int8) => quads_of_256_bits(rounds),
            _ => f32_of_256_bits(rounds),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn bf16_pairs(rounds: usize) -> usize {
    let x = black_box(_mm512_cvtne2ps_pbh(_mm512_set1_ps(0.5), _mm512_set1_ps(0.5)));
    let mut sums = [_mm512_setzero_ps(); 16];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, x, x);
        }
    }
    black_box(sums);
    sums.len() * 64
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn quads(rounds: usize) -> usize {
    let x = black_box(_mm512_set1_epi8(1));
    let mut sums = [_mm512_setzero_si512(); 16];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, x, x);
        }
    }
    black_box(sums);
    sums.len() * 128
}

#[target_feature(enable = "avx512f")]
fn f32_of_512_bits(rounds: usize) -> usize {
    let x = black_box(_mm512_set1_ps(0.5));
    let mut sums = [_mm512_setzero_ps(); 16];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(x, x, *sum);
        }
    }
    black_box(sums);
    sums.len() * 32
}

#[target_feature(enable = "avx2")]
fn quads_of_256_bits(rounds: usize) -> usize {
    let x = black_box(_mm256_set1_epi8(1));
    let ones = black_box(_mm256_set1_epi16(1));
    let mut sums = [_mm256_setzero_si256(); 12];
    for _ in 0..rounds {
        for sum in &mut sums {
            // The sum is an operand, or the compiler would multiply once for all.
            let pairs = _mm256_maddubs_epi16(_mm256_xor_si256(x, *sum), x);
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
        }
    }
    black_box(sums);
    sums.len() * 64
}

#[target_feature(enable = "avx2,fma")]
fn f32_of_256_bits(rounds: usize) -> usize {
    let x = black_box(_mm256_set1_ps(0.5));
    let mut sums = [_mm256_setzero_ps(); 12];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(x, x, *sum);
        }
    }
    black_box(sums);
    sums.len() * 16
}
