//! Quantised panels: the products of a group first, of whole numbers that bf16 holds exactly, then its scale.
//!
//! `y = Σ scale · (Σ q · x) + offset · (Σ x)`: the outer sum runs over the groups, the inner ones over the inputs of
//! a group, in the order of the inputs. A few rows read the numbers as they are stored, because memory is what limits
//! them. For more rows a panel is made bf16 once, where the cache keeps it, and multiplied as bf16 panels are. Both add
//! the same products in the same order, so a row's bits do not depend on which of them it was.

use crate::cpu::dispatch::Work;
use crate::cpu::lanes::{Avx512Bf16, Lanes};
use crate::packed::{Group, Grouping, PANEL, Panel};
use crate::quantised::Bits;

use super::block::{self, Operands, ROWS, Sums};
use super::product::{OctetPairs, Octets, Paired, Product, QuadPairs, Quads, Stored, Widened};
use super::{Panels, epilogue};

/// The panels of a call of a quantised layer that this worker gets hold of, all rows.
pub(super) struct Grouped<'a> {
    pub(super) panels: Panels<'a>,
    pub(super) grouping: Grouping,
    /// Sums of the activations of every group, `rows × groups`; empty where groups have no offsets.
    pub(super) group_sums: &'a [f32],
    /// Room for a panel as pairs of bf16, for this worker alone; empty where no call of as few rows needs it.
    pub(super) widened: &'a mut [f32],
}

/// Words of a panel as pairs of bf16: `[pair of inputs][PANEL]`.
pub(super) fn widened_words(grouping: Grouping) -> usize {
    grouping.depth() / 2 * PANEL
}

/// The numbers of a panel in the form that a product reads.
#[derive(Clone, Copy)]
struct Numbers<'a> {
    words: &'a [u32],
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// As they are packed, scales between them.
    Stored,
    /// As pairs of bf16.
    Widened,
}

impl Form {
    /// The first line of a group, the number of its lines, and the inputs of a line.
    fn lines(self, grouping: Grouping, group: Group) -> (usize, usize, usize) {
        match self {
            Self::Stored => (group.numbers, group.lines, grouping.per_word()),
            Self::Widened => (group.first / 2, group.inputs / 2, 2),
        }
    }
}

impl Grouped<'_> {
    /// `stored` multiplies numbers as they are packed, `wide` pairs of bf16; both make the same sums.
    #[inline(always)]
    fn multiply<S: Stored, W: Product>(mut self, stored: S, wide: W) {
        let Panels { rows, weight, claims, .. } = self.panels;
        for panel in claims.claim() {
            let lines = quantised(weight.panel(panel));
            if rows <= ROWS {
                self.panel(stored, (panel, lines), Numbers { words: lines, form: Form::Stored });
            } else {
                widen(stored, self.grouping, lines, self.widened);
                let widened = std::mem::take(&mut self.widened);
                let words = bytemuck::cast_slice(widened);
                self.panel(wide, (panel, lines), Numbers { words, form: Form::Widened });
                self.widened = widened;
            }
        }
    }

    /// Multiplies one panel with all rows; `lines` are the packed ones, with the scales.
    #[inline(always)]
    fn panel<P: Product>(&self, product: P, (panel, lines): (usize, &[u32]), numbers: Numbers<'_>) {
        let Panels { rows, weight, epilogue, out, .. } = self.panels;
        let l = product.lanes();
        let first_column = panel * PANEL;
        let count = (weight.outputs() - first_column).min(PANEL);
        let bias = weight.panel_bias(panel);
        let (mut sums, mut parts): (Sums, Sums) = ([[0.0; PANEL]; ROWS], [[0.0; PANEL]; ROWS]);
        for first_row in (0..rows).step_by(ROWS) {
            let block = (rows - first_row).min(ROWS);
            sums[..block].fill([0.0; PANEL]);
            for number in 0..self.grouping.groups() {
                let group = self.grouping.group(number);
                self.group(product, (first_row, block), (numbers, group), &mut parts);
                let scaling = Scaling::new(self.grouping, group, lines);
                for row in 0..block {
                    let sum = self.group_sum(first_row + row, number);
                    scaling.add(l, &parts[row], sum, &mut sums[row]);
                }
            }
            for (row, sums) in (first_row..first_row + block).zip(&sums) {
                // SAFETY: row and columns are inside of `out`, and no other worker has this panel.
                let out = unsafe { out.part(row * weight.outputs() + first_column, count) };
                epilogue::finish(l, &sums[..count], bias, epilogue, out);
            }
        }
    }

    /// Multiplies one group with a block of rows.
    #[inline(always)]
    fn group<P: Product>(
        &self,
        product: P,
        (first_row, block): (usize, usize),
        (Numbers { words, form }, group): (Numbers<'_>, Group),
        parts: &mut Sums,
    ) {
        let Panels { x, stride, .. } = self.panels;
        let (first, lines, inputs) = form.lines(self.grouping, group);
        let x_size = size_of::<P::X>() / size_of::<f32>();
        assert!((first + lines) * PANEL <= words.len());
        assert!((group.first / inputs + lines) * x_size <= stride && (first_row + block) * stride <= x.len());
        // SAFETY: the lines are in `words`, and the rows of the block are in `x`, each with an element for every line.
        unsafe {
            let x = x.as_ptr().add(first_row * stride).cast::<P::X>().add(group.first / inputs);
            let panel = words.as_ptr().add(first * PANEL);
            let operands = Operands { x, stride: stride / x_size, panel, lines };
            block::multiply(product, operands, block, parts);
        }
    }

    /// The sum of a row's activations of a group; 0 where nobody asks.
    pub(super) fn group_sum(&self, row: usize, group: usize) -> f32 {
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
pub(super) struct Scaling<'a> {
    scales: &'a [f32],
    offsets: Option<&'a [f32]>,
}

impl<'a> Scaling<'a> {
    pub(super) fn new(grouping: Grouping, group: Group, lines: &'a [u32]) -> Self {
        let line = |number: usize| bytemuck::cast_slice(&lines[number * PANEL..(number + 1) * PANEL]);
        Self { scales: line(group.scales), offsets: grouping.offsets.then(|| line(group.scales + 1)) }
    }

    /// Adds a row's products of the group, scaled; `sum` is the sum of the row's activations of the group.
    #[inline(always)]
    pub(super) fn add<L: Lanes>(self, l: L, parts: &[f32; PANEL], sum: f32, sums: &mut [f32; PANEL]) {
        for first in (0..PANEL).step_by(L::N) {
            let mut y = l.fma(l.read(&parts[first..]), l.read(&self.scales[first..]), l.read(&sums[first..]));
            if let Some(offsets) = self.offsets {
                y = l.fma(l.splat(sum), l.read(&offsets[first..]), y);
            }
            l.write(&mut sums[first..], y);
        }
    }
}

/// Writes the numbers of a panel as pairs of bf16.
#[inline(always)]
pub(super) fn widen<S: Stored>(stored: S, grouping: Grouping, lines: &[u32], to: &mut [f32]) {
    assert!(lines.len() == grouping.lines() * PANEL && to.len() >= widened_words(grouping));
    let pairs = grouping.per_word() / 2;
    for number in 0..grouping.groups() {
        let group = grouping.group(number);
        for line in 0..group.lines {
            for column in (0..PANEL).step_by(S::Lanes::N) {
                // SAFETY: the grouping's lines are in `lines`, a word has half as many pairs as inputs, and the pairs
                // of all inputs are in `to`.
                unsafe {
                    let from = lines.as_ptr().add((group.numbers + line) * PANEL + column);
                    stored
                        .widen(from, to.as_mut_ptr().add((group.first / 2 + line * pairs) * PANEL + column));
                }
            }
        }
    }
}

/// Activations held as f32.
impl<L: Lanes> Work<L> for Grouped<'_> {
    #[inline(always)]
    fn run(self, l: L) {
        match self.grouping.bits {
            Bits::Eight => self.multiply(Quads(l), Widened(l)),
            Bits::Four => {
                let lowest = f32::from(self.grouping.lowest());
                self.multiply(Octets { lanes: l, lowest }, Widened(l));
            }
        }
    }
}

/// Activations held as pairs of bf16.
pub(super) struct GroupedPairs<'a>(pub(super) Grouped<'a>);

impl Work<Avx512Bf16> for GroupedPairs<'_> {
    #[inline(always)]
    fn run(self, proof: Avx512Bf16) {
        match self.0.grouping.bits {
            Bits::Eight => self.0.multiply(QuadPairs(proof), Paired(proof)),
            Bits::Four => {
                let table = proof.nibbles(self.0.grouping.lowest());
                self.0.multiply(OctetPairs { proof, table }, Paired(proof));
            }
        }
    }
}

/// Sums the activations of every group of every row, as the products see them: into `rows × groups`.
pub(super) struct GroupSums<'a> {
    pub(super) x: &'a [f32],
    pub(super) inputs: usize,
    pub(super) group: usize,
    /// Whether the activations are rounded to bf16 first.
    pub(super) rounded: bool,
    pub(super) out: &'a mut [f32],
}

impl<L: Lanes> Work<L> for GroupSums<'_> {
    #[inline(always)]
    fn run(self, l: L) {
        let Self { x, inputs, group, rounded, out } = self;
        for (row, out) in x.chunks_exact(inputs).zip(out.chunks_exact_mut(inputs.div_ceil(group))) {
            for (x, out) in row.chunks(group).zip(out) {
                let mut sum = l.splat(0.0);
                for first in (0..x.len()).step_by(L::N) {
                    let x = l.read(&x[first..]);
                    sum = l.add(sum, if rounded { l.round_bf16(x) } else { x });
                }
                *out = l.sum(sum);
            }
        }
    }
}
