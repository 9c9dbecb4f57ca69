//! Quantised panels against activations in f32: the products of a group first, then its scale.
//!
//! `y = Σ scale · (Σ q · x) + offset · (Σ x)`: the outer sum runs over the groups, the inner ones over the inputs of
//! a group, in the order of the inputs. Numbers are made floats in registers as they are read. Where activations may be
//! rounded, `whole.rs` is the road.

use crate::cpu::dispatch::Work;
use crate::cpu::lanes::Lanes;
use crate::packed::{Group, Grouping, PANEL, Panel};
use crate::quantised::Bits;

use super::Panels;
use super::block::{self, Operands, ROWS, Sums};
use super::product::{Product, Spread};

/// The panels of a call of a quantised layer that this worker gets hold of, all rows.
#[derive(Clone, Copy)]
pub(super) struct Grouped<'a> {
    pub(super) panels: Panels<'a>,
    pub(super) grouping: Grouping,
    /// Sums of the activations of every group, `rows × groups`; empty where groups have no offsets.
    pub(super) group_sums: &'a [f32],
}

impl Grouped<'_> {
    #[inline(always)]
    fn multiply<P: Product>(self, product: P) {
        let Panels { rows, strip, claims, .. } = self.panels;
        let l = product.lanes();
        let (mut sums, mut parts): (Sums, Sums) = ([[0.0; PANEL]; ROWS], [[0.0; PANEL]; ROWS]);
        for panel in claims.claim() {
            let lines = quantised(strip.panel(panel));
            for first_row in (0..rows).step_by(ROWS) {
                let block = (rows - first_row).min(ROWS);
                sums[..block].fill([0.0; PANEL]);
                for number in 0..self.grouping.groups() {
                    let group = self.grouping.group(number);
                    self.group(product, (first_row, block), (lines, group), &mut parts);
                    let scaling = Scaling::new(self.grouping, group, lines);
                    for row in 0..block {
                        let sum = self.group_sum(first_row + row, number);
                        scaling.add(l, &parts[row], sum, &mut sums[row]);
                    }
                }
                // SAFETY: the rows are there, and no other worker has this panel.
                unsafe { self.panels.finish_rows(l, panel, first_row, &sums[..block]) };
            }
        }
    }

    /// Multiplies one group with a block of rows.
    #[inline(always)]
    fn group<P: Product>(
        &self,
        product: P,
        (first_row, block): (usize, usize),
        (words, group): (&[u32], Group),
        parts: &mut Sums,
    ) {
        let Panels { x, stride, .. } = self.panels;
        let inputs = self.grouping.per_word();
        let x_size = size_of::<P::X>() / size_of::<f32>();
        assert!((group.numbers + group.lines) * PANEL <= words.len());
        assert!((group.first / inputs + group.lines) * x_size <= stride);
        assert!((first_row + block) * stride <= x.len());
        // SAFETY: the lines are in `words`, and the rows of the block are in `x`, each with an element for every line.
        unsafe {
            let x = x.as_ptr().add(first_row * stride).cast::<P::X>().add(group.first / inputs);
            let panel = words.as_ptr().add(group.numbers * PANEL);
            let operands = Operands { x, stride: stride / x_size, panel, lines: group.lines };
            block::multiply(product, operands, block, parts);
        }
    }

    /// The sum of a row's activations of a group; 0 where nobody asks.
    fn group_sum(&self, row: usize, group: usize) -> f32 {
        self.group_sums.get(row * self.grouping.groups() + group).copied().unwrap_or(0.0)
    }
}

/// The lines of a quantised panel.
pub(super) fn quantised(panel: Panel<'_>) -> &[u32] {
    let Panel::Quantised(lines) = panel else { unreachable!("the layer is quantised") };
    lines
}

/// The scales of one group of a panel, and its offsets.
#[derive(Clone, Copy)]
struct Scaling<'a> {
    scales: &'a [f32],
    offsets: Option<&'a [f32]>,
}

impl<'a> Scaling<'a> {
    fn new(grouping: Grouping, group: Group, lines: &'a [u32]) -> Self {
        let line = |number: usize| bytemuck::cast_slice(&lines[number * PANEL..(number + 1) * PANEL]);
        Self { scales: line(group.scales), offsets: grouping.offsets.then(|| line(group.scales + 1)) }
    }

    /// Adds a row's products of the group, scaled; `sum` is the sum of the row's activations of the group.
    #[inline(always)]
    fn add<L: Lanes>(self, l: L, parts: &[f32; PANEL], sum: f32, sums: &mut [f32; PANEL]) {
        for first in (0..PANEL).step_by(L::N) {
            let mut y = l.fma(l.read(&parts[first..]), l.read(&self.scales[first..]), l.read(&sums[first..]));
            if let Some(offsets) = self.offsets {
                y = l.fma(l.splat(sum), l.read(&offsets[first..]), y);
            }
            l.write(&mut sums[first..], y);
        }
    }
}

impl<L: Lanes> Work<L> for Grouped<'_> {
    #[inline(always)]
    fn run(self, l: L) {
        let lowest = f32::from(self.grouping.lowest());
        match self.grouping.bits {
            Bits::Eight => self.multiply(Spread::<L, 4> { lanes: l, lowest }),
            Bits::Four => self.multiply(Spread::<L, 8> { lanes: l, lowest }),
        }
    }
}

/// Sums the activations of every group of every row: into `rows × groups`.
pub(super) struct GroupSums<'a> {
    pub(super) x: &'a [f32],
    pub(super) inputs: usize,
    pub(super) group: usize,
    pub(super) out: &'a mut [f32],
}

impl<L: Lanes> Work<L> for GroupSums<'_> {
    #[inline(always)]
    fn run(self, l: L) {
        let Self { x, inputs, group, out } = self;
        for (row, out) in x.chunks_exact(inputs).zip(out.chunks_exact_mut(inputs.div_ceil(group))) {
            for (x, out) in row.chunks(group).zip(out) {
                let mut sum = l.splat(0.0);
                for first in (0..x.len()).step_by(L::N) {
                    sum = l.add(sum, l.read(&x[first..]));
                }
                *out = l.sum(sum);
            }
        }
    }
}
