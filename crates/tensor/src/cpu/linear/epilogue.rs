//! What happens to the sums of a block: bias, activation or gate, write.

use crate::cpu::lanes::Lanes;
use crate::cpu::math::{activate, silu};
use crate::packed::PANEL;
use crate::{Epilogue, Write};

/// Finishes one row of a panel; `sums`, `bias` and `out` are the columns that exist, at most [`crate::packed::PANEL`].
#[inline(always)]
pub(super) fn finish<L: Lanes>(
    l: L,
    sums: &[f32],
    bias: Option<&[f32]>,
    epilogue: Epilogue,
    out: &mut [f32],
) {
    for first in (0..sums.len()).step_by(L::N) {
        let mut y = l.read(&sums[first..]);
        if let Some(bias) = bias {
            y = l.add(y, l.read(&bias[first..]));
        }
        y = activate(l, y, epilogue.activation);
        if epilogue.write == Write::Add {
            y = l.add(l.read(&out[first..]), y);
        }
        l.write(&mut out[first..], y);
    }
}

/// Finishes one row of a panel of gates and what they are for: `out = silu(gate) · value`, for the columns that exist.
#[inline(always)]
pub(super) fn gate<L: Lanes>(l: L, sums: &[f32; PANEL], bias: Option<&[f32]>, out: &mut [f32]) {
    for first in (0..out.len()).step_by(L::N) {
        let (mut gate, mut value) = (l.read(&sums[first..]), l.read(&sums[PANEL / 2 + first..]));
        if let Some(bias) = bias {
            gate = l.add(gate, l.read(&bias[first..]));
            value = l.add(value, l.read(&bias[PANEL / 2 + first..]));
        }
        l.write(&mut out[first..], l.mul(silu(l, gate), value));
    }
}
