//! What meets what in a linear layer: a line of a panel (64 columns of one input or of several) and the activations.

use std::arch::x86_64::{__m512, __m512i, _mm512_loadu_si512};

use crate::cpu::lanes::{Avx512Bf16, Lanes};

/// The innermost step of a linear layer. All weights of a line are 4 bytes a column: one f32, a
/// pair of bf16, four numbers of 8 bits, or eight of 4.
pub(super) trait Product: Copy {
    type Lanes: Lanes;

    /// The activations of one row that meet one line.
    type X: Copy;

    /// A register of columns of a line.
    type Weights: Copy;

    fn lanes(self) -> Self::Lanes;

    /// Reads one register of columns.
    ///
    /// # Safety
    /// `columns` is valid for reading [`Lanes::N`] of them.
    unsafe fn weights(self, columns: *const u32) -> Self::Weights;

    /// Adds the products of the line to the sums. Inputs are added one after the other, in order.
    fn step(
        self,
        sum: <Self::Lanes as Lanes>::F,
        x: Self::X,
        weights: Self::Weights,
    ) -> <Self::Lanes as Lanes>::F;
}

/// f32 weights, f32 activations.
#[derive(Clone, Copy)]
pub(super) struct Single<L>(pub(super) L);

impl<L: Lanes> Product for Single<L> {
    type Lanes = L;
    type X = f32;
    type Weights = L::F;

    #[inline(always)]
    fn lanes(self) -> L {
        self.0
    }

    #[inline(always)]
    unsafe fn weights(self, columns: *const u32) -> L::F {
        // SAFETY: the caller's.
        unsafe { self.0.load(columns.cast()) }
    }

    #[inline(always)]
    fn step(self, sum: L::F, x: f32, weights: L::F) -> L::F {
        self.0.fma(self.0.splat(x), weights, sum)
    }
}

/// Words of `N` weights, made floats in registers: pairs of bf16, four numbers of 8 bits or eight of 4; activations as f32,
/// rounded to bf16 where they meet pairs.
#[derive(Clone, Copy)]
pub(super) struct Spread<L, const N: usize> {
    pub(super) lanes: L,
    /// What a number that is stored as 0 stands for; pairs have none.
    pub(super) lowest: f32,
}

/// How a word is read, which is where the widths differ.
macro_rules! spread {
    ($($n:literal: $load:ident($($argument:ident)?);)*) => {$(
        impl<L: Lanes> Product for Spread<L, $n> {
            type Lanes = L;
            type X = [f32; $n];
            type Weights = [L::F; $n];

            #[inline(always)]
            fn lanes(self) -> L {
                self.lanes
            }

            #[inline(always)]
            unsafe fn weights(self, columns: *const u32) -> [L::F; $n] {
                // SAFETY: the caller's.
                unsafe { self.lanes.$load(columns $(, self.$argument)?) }
            }

            #[inline(always)]
            fn step(self, mut sum: L::F, x: [f32; $n], weights: [L::F; $n]) -> L::F {
                for i in 0..$n {
                    sum = self.lanes.fma(self.lanes.splat(x[i]), weights[i], sum);
                }
                sum
            }
        }
    )*};
}

spread! {
    2: load_pairs();
    4: load_quads(lowest);
    8: load_octets(lowest);
}

/// Pairs of bf16 weights and pairs of bf16 activations, by `vdpbf16ps`.
#[derive(Clone, Copy)]
pub(super) struct Paired(pub(super) Avx512Bf16);

impl Product for Paired {
    type Lanes = Avx512Bf16;
    type X = u32;
    type Weights = __m512i;

    #[inline(always)]
    fn lanes(self) -> Avx512Bf16 {
        self.0
    }

    #[inline(always)]
    unsafe fn weights(self, columns: *const u32) -> __m512i {
        // SAFETY: the caller's for the memory; `self` proves the instruction.
        unsafe { _mm512_loadu_si512(columns.cast()) }
    }

    #[inline(always)]
    fn step(self, sum: __m512, x: u32, weights: __m512i) -> __m512 {
        self.0.add_pair_products(sum, x, weights)
    }
}
