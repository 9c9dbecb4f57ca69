//! Activations in the form in which the products read them: padded, and rounded to bf16 or not, once per call.

use half::bf16;

use crate::cpu::dispatch::Work;
use crate::cpu::lanes::Lanes;

/// How activations are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Pairs of bf16, one word a pair.
    Pairs,
    /// Rounded, as f32, two words a pair.
    Widened,
    /// As they are.
    Exact,
}

impl Form {
    /// Words of a row of `depth` activations.
    pub(super) fn words(self, depth: usize) -> usize {
        match self {
            Self::Pairs => depth / 2,
            Self::Widened | Self::Exact => depth,
        }
    }
}

/// Rounds rows of `inputs` values into rows of `stride` words; what a row is padded with is zero.
pub(super) struct Round<'a> {
    pub(super) x: &'a [f32],
    pub(super) inputs: usize,
    /// Inputs with padding, a multiple of [`crate::packed::DEPTH`].
    pub(super) depth: usize,
    pub(super) form: Form,
    pub(super) stride: usize,
    pub(super) out: &'a mut [f32],
}

impl<L: Lanes> Work<L> for Round<'_> {
    #[inline(always)]
    fn run(self, l: L) {
        let Self { x, inputs, depth, form, stride, out } = self;
        assert!(form.words(depth) <= stride && depth.is_multiple_of(L::N) && inputs <= depth);
        for (x, out) in x.chunks_exact(inputs).zip(out.chunks_exact_mut(stride)) {
            for first in (0..depth).step_by(L::N) {
                let count = inputs.saturating_sub(first);
                // SAFETY: at most `count` values are read from the `inputs - first` that follow; `N` elements of the
                // form are written into the `depth - first` that follow, and `N` divides `depth`.
                unsafe {
                    let value = match count {
                        0 => l.splat(0.0),
                        _ if count < L::N => l.load_first(x.as_ptr().add(first), count),
                        _ => l.load(x.as_ptr().add(first)),
                    };
                    match form {
                        Form::Pairs => l.store_bf16(out.as_mut_ptr().cast::<bf16>().add(first), value),
                        Form::Widened => l.store(out.as_mut_ptr().add(first), l.round_bf16(value)),
                        Form::Exact => l.store(out.as_mut_ptr().add(first), value),
                    }
                }
            }
        }
    }
}
