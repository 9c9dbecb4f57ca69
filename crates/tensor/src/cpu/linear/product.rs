//! What meets what in a linear layer: a line of a panel (64 columns of one input or of several) and the activations.

use std::arch::x86_64::{__m512i, _mm512_loadu_si512, _mm512_storeu_si512};

use crate::cpu::lanes::{Avx512, Avx512Bf16, Lanes};
use crate::packed::PANEL;

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

/// A product with numbers as a quantised layer stores them.
pub(super) trait Stored: Product {
    /// Writes the numbers of a register of columns as pairs of bf16, which hold them exactly: a line for each pair of
    /// inputs of a word.
    ///
    /// # Safety
    /// `columns` is valid for reading [`Lanes::N`] of them, and `to` for writing as many to every line.
    unsafe fn widen(self, columns: *const u32, to: *mut f32);
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

/// Pairs of bf16 weights, widened in registers; activations rounded to bf16 and held as f32.
#[derive(Clone, Copy)]
pub(super) struct Widened<L>(pub(super) L);

impl<L: Lanes> Product for Widened<L> {
    type Lanes = L;
    type X = [f32; 2];
    type Weights = [L::F; 2];

    #[inline(always)]
    fn lanes(self) -> L {
        self.0
    }

    #[inline(always)]
    unsafe fn weights(self, columns: *const u32) -> [L::F; 2] {
        // SAFETY: the caller's.
        unsafe { self.0.load_pairs(columns) }
    }

    #[inline(always)]
    fn step(self, sum: L::F, x: [f32; 2], weights: [L::F; 2]) -> L::F {
        let sum = self.0.fma(self.0.splat(x[0]), weights[0], sum);
        self.0.fma(self.0.splat(x[1]), weights[1], sum)
    }
}

/// Pairs of bf16 weights and pairs of bf16 activations, by `vdpbf16ps`.
#[derive(Clone, Copy)]
pub(super) struct Paired(pub(super) Avx512Bf16);

impl Product for Paired {
    type Lanes = Avx512;
    type X = u32;
    type Weights = __m512i;

    #[inline(always)]
    fn lanes(self) -> Avx512 {
        self.0.lanes()
    }

    #[inline(always)]
    unsafe fn weights(self, columns: *const u32) -> __m512i {
        // SAFETY: the caller's for the memory; `self` proves the instruction.
        unsafe { _mm512_loadu_si512(columns.cast()) }
    }

    #[inline(always)]
    fn step(self, sum: <Avx512 as Lanes>::F, x: u32, weights: __m512i) -> <Avx512 as Lanes>::F {
        self.0.add_pair_products(sum, x, weights)
    }
}

/// Words of four numbers of 8 bits, made floats in registers; activations as f32.
#[derive(Clone, Copy)]
pub(super) struct Quads<L>(pub(super) L);

impl<L: Lanes> Product for Quads<L> {
    type Lanes = L;
    type X = [f32; 4];
    type Weights = [L::F; 4];

    #[inline(always)]
    fn lanes(self) -> L {
        self.0
    }

    #[inline(always)]
    unsafe fn weights(self, columns: *const u32) -> [L::F; 4] {
        // SAFETY: the caller's.
        unsafe { self.0.load_quads(columns) }
    }

    #[inline(always)]
    fn step(self, mut sum: L::F, x: [f32; 4], weights: [L::F; 4]) -> L::F {
        for i in 0..4 {
            sum = self.0.fma(self.0.splat(x[i]), weights[i], sum);
        }
        sum
    }
}

impl<L: Lanes> Stored for Quads<L> {
    #[inline(always)]
    unsafe fn widen(self, columns: *const u32, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe {
            let [a, b, c, d] = self.0.load_quads(columns);
            self.0.store(to, self.0.pair(a, b));
            self.0.store(to.add(PANEL), self.0.pair(c, d));
        }
    }
}

/// Words of eight numbers of 4 bits, made floats in registers; activations as f32.
#[derive(Clone, Copy)]
pub(super) struct Octets<L> {
    pub(super) lanes: L,
    /// What 0 stands for.
    pub(super) lowest: f32,
}

impl<L: Lanes> Product for Octets<L> {
    type Lanes = L;
    type X = [f32; 8];
    type Weights = [L::F; 8];

    #[inline(always)]
    fn lanes(self) -> L {
        self.lanes
    }

    #[inline(always)]
    unsafe fn weights(self, columns: *const u32) -> [L::F; 8] {
        // SAFETY: the caller's.
        unsafe { self.lanes.load_octets(columns, self.lowest) }
    }

    #[inline(always)]
    fn step(self, mut sum: L::F, x: [f32; 8], weights: [L::F; 8]) -> L::F {
        for i in 0..8 {
            sum = self.lanes.fma(self.lanes.splat(x[i]), weights[i], sum);
        }
        sum
    }
}

impl<L: Lanes> Stored for Octets<L> {
    #[inline(always)]
    unsafe fn widen(self, columns: *const u32, to: *mut f32) {
        let l = self.lanes;
        // SAFETY: the caller's.
        unsafe {
            let [a, b, c, d, e, f, g, h] = l.load_octets(columns, self.lowest);
            l.store(to, l.pair(a, b));
            l.store(to.add(PANEL), l.pair(c, d));
            l.store(to.add(2 * PANEL), l.pair(e, f));
            l.store(to.add(3 * PANEL), l.pair(g, h));
        }
    }
}

/// Words of four numbers of 8 bits, made pairs of bf16 in registers, and pairs of bf16 activations.
#[derive(Clone, Copy)]
pub(super) struct QuadPairs(pub(super) Avx512Bf16);

impl Product for QuadPairs {
    type Lanes = Avx512;
    type X = [u32; 2];
    type Weights = [__m512i; 2];

    #[inline(always)]
    fn lanes(self) -> Avx512 {
        self.0.lanes()
    }

    #[inline(always)]
    unsafe fn weights(self, columns: *const u32) -> [__m512i; 2] {
        // SAFETY: the caller's.
        unsafe { self.0.load_quads(columns) }
    }

    #[inline(always)]
    fn step(self, mut sum: <Avx512 as Lanes>::F, x: [u32; 2], weights: [__m512i; 2]) -> <Avx512 as Lanes>::F {
        for i in 0..2 {
            sum = self.0.add_pair_products(sum, x[i], weights[i]);
        }
        sum
    }
}

impl Stored for QuadPairs {
    #[inline(always)]
    unsafe fn widen(self, columns: *const u32, to: *mut f32) {
        // SAFETY: the caller's for the memory; `self` proves the instructions.
        unsafe {
            let pairs = self.weights(columns);
            _mm512_storeu_si512(to.cast(), pairs[0]);
            _mm512_storeu_si512(to.add(PANEL).cast(), pairs[1]);
        }
    }
}

/// Words of eight numbers of 4 bits, made pairs of bf16 in registers, and pairs of bf16 activations.
#[derive(Clone, Copy)]
pub(super) struct OctetPairs {
    pub(super) proof: Avx512Bf16,
    /// The numbers that 4 bits stand for.
    pub(super) table: __m512i,
}

impl Product for OctetPairs {
    type Lanes = Avx512;
    type X = [u32; 4];
    type Weights = [__m512i; 4];

    #[inline(always)]
    fn lanes(self) -> Avx512 {
        self.proof.lanes()
    }

    #[inline(always)]
    unsafe fn weights(self, columns: *const u32) -> [__m512i; 4] {
        // SAFETY: the caller's.
        unsafe { self.proof.load_octets(columns, self.table) }
    }

    #[inline(always)]
    fn step(self, mut sum: <Avx512 as Lanes>::F, x: [u32; 4], weights: [__m512i; 4]) -> <Avx512 as Lanes>::F {
        for i in 0..4 {
            sum = self.proof.add_pair_products(sum, x[i], weights[i]);
        }
        sum
    }
}

impl Stored for OctetPairs {
    #[inline(always)]
    unsafe fn widen(self, columns: *const u32, to: *mut f32) {
        // SAFETY: the caller's for the memory; `self` proves the instructions.
        unsafe {
            let pairs = self.weights(columns);
            _mm512_storeu_si512(to.cast(), pairs[0]);
            _mm512_storeu_si512(to.add(PANEL).cast(), pairs[1]);
            _mm512_storeu_si512(to.add(2 * PANEL).cast(), pairs[2]);
            _mm512_storeu_si512(to.add(3 * PANEL).cast(), pairs[3]);
        }
    }
}
