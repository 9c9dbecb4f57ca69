//! What happens to the sums of a block: bias, activation, write.

use crate::cpu::lanes::Lanes;
use crate::cpu::math::activate;
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
