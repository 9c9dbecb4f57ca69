//! Quantised panels by tiles: made bf16 in the cache, multiplied group by group, and every group scaled by itself.
//!
//! Short groups cost more here than elsewhere, because the sums leave the tiles after each of them.

use crate::cpu::dispatch::Work;
use crate::cpu::lanes::Lanes;
use crate::cpu::linear::grouped::{Grouped, Scaling, quantised, widen};
use crate::cpu::linear::product::{Octets, Quads};
use crate::cpu::linear::{Panels, epilogue};
use crate::packed::{DEPTH, Grouping, PANEL};
use crate::quantised::Bits;

use super::{Operands, SIDE, Sums, Tiles, multiply};

/// The panels of a call of a quantised layer that this worker gets hold of, all rows, by tiles.
pub(in crate::cpu::linear) struct TiledGroups<'a, T> {
    pub(in crate::cpu::linear) groups: Grouped<'a>,
    pub(in crate::cpu::linear) tiles: T,
}

impl<T> TiledGroups<'_, T> {
    /// Whether groups are as deep as whole tiles.
    pub(in crate::cpu::linear) fn fits(grouping: Grouping) -> bool {
        grouping.groups() == 1 || grouping.group.is_multiple_of(DEPTH)
    }
}

impl<L: Lanes, T: Tiles> Work<L> for TiledGroups<'_, T> {
    #[inline(always)]
    fn run(mut self, l: L) {
        let Panels { rows, weight, epilogue, out, claims, .. } = self.groups.panels;
        for panel in claims.claim() {
            let lines = quantised(weight.panel(panel));
            self.widen(l, lines);
            let first_column = panel * PANEL;
            let count = (weight.outputs() - first_column).min(PANEL);
            let bias = weight.panel_bias(panel);
            for first_row in (0..rows).step_by(2 * SIDE) {
                let block = (rows - first_row).min(2 * SIDE);
                let sums = self.block(l, lines, first_row..first_row + block);
                for (row, sums) in (first_row..first_row + block).zip(&sums) {
                    // SAFETY: row and columns are inside of `out`, and no other worker has this panel.
                    let out = unsafe { out.part(row * weight.outputs() + first_column, count) };
                    epilogue::finish(l, &sums[..count], bias, epilogue, out);
                }
            }
        }
    }
}

impl<T: Tiles> TiledGroups<'_, T> {
    #[inline(always)]
    fn widen<L: Lanes>(&mut self, l: L, lines: &[u32]) {
        let Grouped { grouping, widened, .. } = &mut self.groups;
        match grouping.bits {
            Bits::Eight => widen(Quads(l), *grouping, lines, widened),
            Bits::Four => {
                let lowest = f32::from(grouping.lowest());
                widen(Octets { lanes: l, lowest }, *grouping, lines, widened);
            }
        }
    }

    /// The sums of some rows, at most 32, with the panel that was widened last.
    #[inline(always)]
    fn block<L: Lanes>(&mut self, l: L, lines: &[u32], rows: std::ops::Range<usize>) -> Sums {
        let Grouped { panels: Panels { x, stride, .. }, grouping, .. } = self.groups;
        let whole = rows.start + rows.len().next_multiple_of(SIDE);
        assert!(grouping.depth() / 2 <= stride && whole * stride <= x.len() && Self::fits(grouping));
        let (mut sums, mut parts): (Sums, Sums) = ([[0.0; PANEL]; 2 * SIDE], [[0.0; PANEL]; 2 * SIDE]);
        for number in 0..grouping.groups() {
            let group = grouping.group(number);
            // SAFETY: `x` has rows up to the next multiple of a tile's, each as deep as the layer, and so is the
            // widened panel; groups are whole tiles deep.
            unsafe {
                let x = x.as_ptr().add(rows.start * stride + group.first / 2).cast();
                let panel = self.groups.widened.as_ptr().add(group.first / 2 * PANEL).cast();
                let operands = Operands { x, stride: stride * 4, panel, steps: group.inputs / DEPTH };
                multiply(&mut self.tiles, operands, rows.len(), &mut parts);
            }
            let scaling = Scaling::new(grouping, group, lines);
            for (row, (parts, sums)) in rows.clone().zip(parts.iter().zip(&mut sums)) {
                scaling.add(l, parts, self.groups.group_sum(row, number), sums);
            }
        }
        sums
    }
}
