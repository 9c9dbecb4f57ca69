//! Functions of lanes: the exponential and what is made of it.

use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use crate::Activation;

use super::lanes::Lanes;
use crate::scan::{COEFFICIENTS, LN_2_HIGH, LN_2_REST};

/// e^x to about 1e-7 of its value; zero below -87.3, the largest finite power above 88.3, NaN for NaN.
#[inline(always)]
pub(super) fn exp<L: Lanes>(l: L, x: L::F) -> L::F {
    let lowest = l.splat(-87.336_54);
    let bounded = l.max(lowest, l.min(l.splat(88.376_26), x));
    l.if_less(x, lowest, l.splat(0.0), exp_within(l, bounded))
}

/// e^x for x from -87.3 to 88.3; of no meaning beyond.
///
/// `e^x = 2^n · e^r` with `n` the whole number next to `x / ln 2`, and for `e^r` the polynomial of Cephes' `expf`.
#[inline(always)]
pub(super) fn exp_within<L: Lanes>(l: L, x: L::F) -> L::F {
    let n = l.round(l.mul(x, l.splat(std::f32::consts::LOG2_E)));
    let r = l.fma(n, l.splat(-LN_2_HIGH), x);
    let r = l.fma(n, l.splat(LN_2_REST), r);
    let mut sum = l.splat(COEFFICIENTS[0]);
    for coefficient in &COEFFICIENTS[1..] {
        sum = l.fma(sum, r, l.splat(*coefficient));
    }
    let power = l.fma(l.mul(r, r), sum, l.add(r, l.splat(1.0)));
    l.times_power_of_two(power, n)
}

/// `2^t` to about 3e-6 of its value, for t up to 126: a weight that is rounded to the eight bits of bf16 needs no more. Below -60
/// it stays what it is there, so that no weight is too small to be normal, nor its product with a value; NaN for NaN.
#[inline(always)]
pub(super) fn power_of_two_for_bf16<L: Lanes>(l: L, t: L::F) -> L::F {
    /// Fitted to the least share by which it is off between plus and minus a half, and exactly 1 at 0.
    const COEFFICIENTS: [f32; 5] = [0.009_582_853, 0.055_906_426, 0.240_240_99, 0.693_124_2, 1.0];
    /// Floats next to it are whole numbers apart, so adding it rounds.
    const MAGIC: f32 = 12_582_912.0;
    let t = l.max(l.splat(-60.0), t);
    let n = l.sub(l.add(t, l.splat(MAGIC)), l.splat(MAGIC));
    let r = l.sub(t, n);
    let mut power = l.splat(COEFFICIENTS[0]);
    for coefficient in &COEFFICIENTS[1..] {
        power = l.fma(power, r, l.splat(*coefficient));
    }
    l.times_power_of_two(power, n)
}

/// Zero where the value is below 2^-60, the value elsewhere. Tiles take numbers for zero that are too small to be normal;
/// where nothing gets so small, lanes make their bits.
#[inline(always)]
pub(super) fn without_dust<L: Lanes>(l: L, value: L::F) -> L::F {
    const DUST: f32 = 1.0 / (1u64 << 60) as f32;
    l.if_less(l.abs(value), l.splat(DUST), l.splat(0.0), value)
}

/// x · sigmoid(x).
#[inline(always)]
pub(super) fn silu<L: Lanes>(l: L, x: L::F) -> L::F {
    x_sigmoid(l, x, x)
}

/// x · sigmoid(y).
#[inline(always)]
fn x_sigmoid<L: Lanes>(l: L, x: L::F, y: L::F) -> L::F {
    l.div(x, l.add(l.splat(1.0), exp(l, l.sub(l.splat(0.0), y))))
}

/// GELU in its tanh approximation, by `(1 + tanh z) / 2 = sigmoid(2z)`.
#[inline(always)]
fn gelu_tanh<L: Lanes>(l: L, x: L::F) -> L::F {
    const TWICE_ROOT: f32 = 1.595_769_2;
    let cubic = l.mul(l.mul(x, x), l.splat(0.044_715));
    x_sigmoid(l, x, l.mul(l.splat(TWICE_ROOT), l.fma(cubic, x, x)))
}

/// x · Φ(x), with `Φ(x) = (1 + erf(x / √2)) / 2`.
///
/// `erf z = z · P(z²) / Q(z²)`, fitted by reweighted least squares to 2e-8 between plus and minus 3.93, where it is exactly 1 in `f32`
/// and stays so. What is left are roundings: below 3e-7 for |x| up to 1, and below that share of |x| beyond. To the left, where one and
/// erf cancel out, a power for the tail would keep more, at twice the time.
#[inline(always)]
fn gelu_erf<L: Lanes>(l: L, x: L::F) -> L::F {
    const END: f32 = 3.93;
    const P: [f32; 6] =
        [2.034_738_4e-6, 2.874_779_3e-4, 3.868_281_5e-3, 5.306_034_5e-2, 1.927_630_5e-1, FRAC_2_SQRT_PI];
    const Q: [f32; 6] = [3.807_059_7e-5, 1.188_103_1e-3, 1.517_220_7e-2, 1.150_842e-1, 5.041_634_7e-1, 1.0];
    let scaled = l.mul(x, l.splat(FRAC_1_SQRT_2));
    let z = l.max(l.splat(-END), l.min(l.splat(END), scaled));
    let square = l.mul(z, z);
    let (mut p, mut q) = (l.splat(P[0]), l.splat(Q[0]));
    for (of_p, of_q) in P[1..].iter().zip(&Q[1..]) {
        p = l.fma(p, square, l.splat(*of_p));
        q = l.fma(q, square, l.splat(*of_q));
    }
    let erf = l.div(l.mul(z, p), q);
    let half = l.mul(x, l.splat(0.5));
    l.fma(half, erf, half)
}

/// The point-wise function of a linear layer's epilogue.
#[inline(always)]
pub(super) fn activate<L: Lanes>(l: L, x: L::F, activation: Activation) -> L::F {
    match activation {
        Activation::None => x,
        Activation::GeluTanh => gelu_tanh(l, x),
        Activation::GeluErf => gelu_erf(l, x),
        Activation::Silu => silu(l, x),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::cpu::dispatch::{Level, Work};
    use crate::reference::erf::erf;

    /// A function of every value, in place.
    struct Each<'a>(Function, &'a mut [f32]);

    #[derive(Clone, Copy)]
    enum Function {
        Exp,
        PowerForBf16,
        GeluErf,
    }

    impl<L: Lanes> Work<L> for Each<'_> {
        #[inline(always)]
        fn run(self, l: L) {
            for values in self.1.chunks_mut(L::N) {
                let x = l.read(values);
                let y = match self.0 {
                    Function::Exp => exp(l, x),
                    Function::PowerForBf16 => power_of_two_for_bf16(l, x),
                    Function::GeluErf => gelu_erf(l, x),
                };
                l.write(values, y);
            }
        }
    }

    #[test]
    fn exp_is_accurate_to_a_unit_or_two_in_the_last_place() {
        let x: Vec<f32> = (-87_300..88_300).map(|i| i as f32 * 0.001 + 1e-5).collect();
        for isa in Isa::available().into_iter().filter(|&isa| isa != Isa::Scalar) {
            let mut found = x.clone();
            Level::new(isa).run(Each(Function::Exp, &mut found));
            for (&x, found) in x.iter().zip(found) {
                let expected = f64::from(x).exp();
                let error = (f64::from(found) / expected - 1.0).abs();
                assert!(error < 1.6e-7, "{isa}: e^{x} is {found}, off by {error:e}");
            }
            let mut ends = [f32::NEG_INFINITY, -88.0, 0.0, f32::NAN, f32::INFINITY];
            Level::new(isa).run(Each(Function::Exp, &mut ends));
            assert_eq!(ends[..3], [0.0, 0.0, 1.0]);
            assert!(ends[3].is_nan() && ends[4] > 2e38, "{isa}: {ends:?}");
        }
    }

    #[test]
    fn powers_for_bf16_are_off_by_less_than_a_hundredth_of_its_last_bit() {
        let x: Vec<f32> = (-60_000..1_000).map(|i| i as f32 * 0.001).collect();
        for isa in Isa::available().into_iter().filter(|&isa| isa != Isa::Scalar) {
            let mut found = x.clone();
            Level::new(isa).run(Each(Function::PowerForBf16, &mut found));
            for (&x, found) in x.iter().zip(found) {
                let error = (f64::from(found) / f64::from(x).exp2() - 1.0).abs();
                assert!(error < 3e-6, "{isa}: 2^{x} is {found}, off by {error:e}");
            }
            let mut ends = [f32::NEG_INFINITY, f32::MIN, -60.0, 0.0, f32::NAN];
            Level::new(isa).run(Each(Function::PowerForBf16, &mut ends));
            let least = 60.0f32.exp2().recip();
            assert_eq!(ends[..4], [least, least, least, 1.0], "{isa}");
            assert!(ends[4].is_nan(), "{isa}");
        }
    }

    #[test]
    fn gelu_is_as_accurate_as_its_sum_in_f32() {
        let x: Vec<f32> = (-200_000..200_000).map(|i| i as f32 * 1e-4 + 3e-6).collect();
        for isa in Isa::available().into_iter().filter(|&isa| isa != Isa::Scalar) {
            let mut found = x.clone();
            Level::new(isa).run(Each(Function::GeluErf, &mut found));
            for (&x, found) in x.iter().zip(found) {
                let expected =
                    0.5 * f64::from(x) * (1.0 + erf(f64::from(x) * std::f64::consts::FRAC_1_SQRT_2));
                let error = (f64::from(found) - expected).abs() / f64::from(x.abs().max(1.0));
                assert!(error < 3e-7, "{isa}: GELU of {x} is {found}, not {expected}");
            }
            let mut ends = [f32::NEG_INFINITY, f32::MIN, 0.0, f32::MAX, f32::INFINITY, f32::NAN];
            Level::new(isa).run(Each(Function::GeluErf, &mut ends));
            assert_eq!(ends[1..5], [0.0, 0.0, f32::MAX, f32::INFINITY], "{isa}");
            assert!(ends[5].is_nan(), "{isa}");
        }
    }
}
