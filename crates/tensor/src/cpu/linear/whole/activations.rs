//! Activations as whole numbers of 8 bits, a scale for each step of inputs, once per call.

use crate::cpu::dispatch::Work;
use crate::cpu::lanes::Lanes;
use crate::packed::{Grouping, Step};
use crate::quantised::activation_scale;

/// How a row of activations is laid out, in words: the numbers, four to a word, then for every step its scale, what its
/// sums begin with, and the sum of its activations.
#[derive(Clone, Copy, Debug)]
pub(in crate::cpu::linear) struct RowLayout {
    grouping: Grouping,
    steps: usize,
    numbers: usize,
}

impl RowLayout {
    pub(in crate::cpu::linear) fn of(grouping: Grouping) -> Self {
        Self { grouping, steps: grouping.steps(), numbers: grouping.depth() / 4 }
    }

    /// Words of a row.
    pub(in crate::cpu::linear) fn words(self) -> usize {
        self.numbers + 3 * self.steps
    }

    pub(in crate::cpu::linear) fn steps(self) -> usize {
        self.steps
    }

    #[inline(always)]
    pub(in crate::cpu::linear) fn step(self, number: usize) -> Step {
        self.grouping.step(number)
    }

    /// The word of a step's scale, an f32.
    #[inline(always)]
    pub(in crate::cpu::linear) fn scale(self, step: usize) -> usize {
        self.numbers + step
    }

    /// The word of what a step's sums begin with, an i32: the sum of its numbers times the weight that is stored as 0.
    #[inline(always)]
    pub(in crate::cpu::linear) fn correction(self, step: usize) -> usize {
        self.numbers + self.steps + step
    }

    /// The word of the sum of a step's activations, an f32, for layers with offsets.
    #[inline(always)]
    pub(in crate::cpu::linear) fn sum(self, step: usize) -> usize {
        self.numbers + 2 * self.steps + step
    }
}

/// Quantises rows of `inputs` values into rows of `stride` words.
pub(in crate::cpu::linear) struct Quantise<'a> {
    pub(in crate::cpu::linear) x: &'a [f32],
    pub(in crate::cpu::linear) grouping: Grouping,
    /// The weight that the products see as 0.
    pub(in crate::cpu::linear) zero: i32,
    pub(in crate::cpu::linear) stride: usize,
    pub(in crate::cpu::linear) out: &'a mut [f32],
}

impl<L: Lanes> Work<L> for Quantise<'_> {
    #[inline(always)]
    fn run(self, l: L) {
        let Self { x, grouping, zero, stride, out } = self;
        let layout = RowLayout::of(grouping);
        assert!(layout.words() <= stride);
        for (x, out) in x.chunks_exact(grouping.inputs).zip(out.chunks_exact_mut(stride)) {
            for number in 0..layout.steps() {
                let Step { first, inputs } = layout.step(number);
                let x = &x[first.min(x.len())..(first + inputs).min(x.len())];
                let (scale, inverse) = scale_of(l, x);
                let (numbers, inverse) = (&mut out[first / 4..(first + inputs) / 4], l.splat(inverse));
                let numbers: &mut [i8] = bytemuck::cast_slice_mut(numbers);
                let mut sum = l.splat(0.0);
                for at in (0..inputs).step_by(L::N) {
                    let whole = l.round(l.mul(l.read(&x[at.min(x.len())..]), inverse));
                    sum = l.add(sum, whole);
                    // SAFETY: a step's inputs are a multiple of a register's lanes, and it has a byte for each.
                    unsafe { l.store_i8(numbers.as_mut_ptr().add(at), whole) };
                }
                let sum = l.sum(sum);
                out[layout.scale(number)] = scale;
                out[layout.correction(number)] = f32::from_bits((sum as i32 * zero).cast_unsigned());
                out[layout.sum(number)] = scale * sum;
            }
        }
    }
}

/// The scale of some activations, and its inverse; not a number if one of them is none.
#[inline(always)]
fn scale_of<L: Lanes>(l: L, x: &[f32]) -> (f32, f32) {
    let (mut largest, mut poison) = (l.splat(0.0), l.splat(0.0));
    for at in (0..x.len()).step_by(L::N) {
        let x = l.read(&x[at..]);
        // The second operand is taken where the first is not a number.
        largest = l.max(l.abs(x), largest);
        poison = l.fma(x, l.splat(0.0), poison);
    }
    let (scale, inverse) = activation_scale(l.highest(largest));
    (scale + l.sum(poison), inverse)
}
