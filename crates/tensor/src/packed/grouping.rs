//! The layout of quantised panels, and filling it.
//!
//! A panel is a sequence of lines of [`PANEL`] words of 32 bits, a word per column, as panels of f32 and bf16 are. Group
//! after group: a line of scales, a line of offsets if the layer has them, then the numbers of the group's inputs, 4
//! inputs of 8 bits or 8 inputs of 4 bits to a word. So a kernel reads a panel once from front to back, and a scale
//! comes with the numbers that it belongs to.
//!
//! Numbers are stored as their distance from the lowest one ([`Grouping::lowest`]), which is what the kernels' way of
//! making floats of them wants:
//! - 8 bits: input `i` of a word in byte `i`;
//! - 4 bits: input `i` at bit `8 · (i mod 4) + 4 · (i div 4)`, so that the lower halves of a word's bytes are its first four
//!   inputs, and the upper halves its last four.

use serde::{Deserialize, Serialize};

use super::{DEPTH, PANEL};
use crate::quantised::{Bits, GROUP_STEP, Quantised, Scheme};
use crate::stored::{Encoding, TensorView};

/// How the weights of a quantised layer are grouped and stored.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Grouping {
    pub(crate) bits: Bits,
    /// Inputs of a group, the last one aside.
    pub(crate) group: usize,
    /// Inputs of the layer.
    pub(crate) inputs: usize,
    /// Whether there are lines of offsets.
    pub(crate) offsets: bool,
}

/// One group of a panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// The line of its scales; offsets follow, if there are any.
    pub(crate) scales: usize,
    /// The first line of its numbers.
    pub(crate) numbers: usize,
    /// How many lines of numbers it has.
    pub(crate) lines: usize,
    /// Its first input.
    pub(crate) first: usize,
    /// Its inputs, padding included.
    pub(crate) inputs: usize,
}

/// Inputs of the longest step.
const STEP: usize = 128;

/// Inputs that share a scale of the weights in every column, and a scale of the activations in every row where those are
/// quantised too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Its first input.
    pub(crate) first: usize,
    /// Its inputs, padding included: a multiple of [`GROUP_STEP`].
    pub(crate) inputs: usize,
}

impl Grouping {
    /// Steps of a row.
    pub(crate) fn steps(self) -> usize {
        self.inputs.div_ceil(self.step_inputs())
    }

    /// Step `number`; the last one takes the padding.
    pub(crate) fn step(self, number: usize) -> Step {
        let first = number * self.step_inputs();
        let end = if number + 1 == self.steps() { self.depth() } else { first + self.step_inputs() };
        Step { first, inputs: end - first }
    }

    /// All steps in order, each with the group that it is in. Kernels walk instead of asking for each, since to ask takes
    /// divisions, and a step of few rows is over before they are.
    #[inline(always)]
    pub(crate) fn walk(self) -> impl Iterator<Item = (Step, Group)> {
        let (steps, inputs, depth) = (self.steps(), self.step_inputs(), self.depth());
        let (mut number, mut group) = (0, self.group(0));
        (0..steps).map(move |step| {
            let first = step * inputs;
            if first >= group.first + group.inputs {
                number += 1;
                group = self.group(number);
            }
            let end = if step + 1 == steps { depth } else { first + inputs };
            (Step { first, inputs: end - first }, group)
        })
    }

    /// Inputs of a step, the last one aside: a group, or a part of it where it is long.
    fn step_inputs(self) -> usize {
        match self.group {
            group if group == self.inputs || group.is_multiple_of(STEP) => STEP,
            group if group < STEP => group,
            _ => GROUP_STEP,
        }
    }

    /// The grouping that a scheme makes of rows of `inputs`.
    pub(super) fn of_scheme(scheme: Scheme, inputs: usize) -> Self {
        Self { bits: scheme.bits, group: scheme.group_of(inputs), inputs, offsets: false }
    }

    /// The grouping that a quantised matrix has.
    pub(super) fn of_matrix(matrix: &Quantised) -> Self {
        let Quantised { bits, group, columns, ref offsets, .. } = *matrix;
        Self { bits, group, inputs: columns, offsets: offsets.is_some() }
    }

    /// The grouping that a stored matrix has, if it is quantised.
    pub(super) fn of_stored(view: &TensorView) -> Option<Self> {
        let [_, inputs] = *view.shape() else { return None };
        match view.encoding() {
            Encoding::Float(_) => None,
            Encoding::Quantised(scheme) => Some(Self::of_scheme(scheme, inputs)),
            Encoding::Blocks(format) => {
                let (bits, offsets) = (format.held_bits(), format.has_offsets());
                Some(Self { bits, group: format.group().min(inputs), inputs, offsets })
            }
        }
    }

    /// The coarsest grouping that holds what either holds. Numbers of 4 bits have another range where there are offsets,
    /// so 4 bits hold both only if both have offsets or neither.
    pub(super) fn common(self, other: Self) -> Self {
        assert_eq!(self.inputs, other.inputs, "matrices of one layer have the same inputs");
        let alike = self.bits == other.bits && self.offsets == other.offsets;
        Self {
            bits: if alike { self.bits } else { Bits::Eight },
            // Both are powers of two, or all inputs.
            group: self.group.min(other.group),
            inputs: self.inputs,
            offsets: self.offsets || other.offsets,
        }
    }

    /// The scheme that quantises into this grouping.
    pub(super) fn scheme(self) -> Scheme {
        Scheme { bits: self.bits, group: (self.group < self.inputs).then_some(self.group) }
    }

    /// Whether kernels read such groups.
    pub(super) fn is_sound(self) -> bool {
        let Self { group, inputs, .. } = self;
        inputs > 0 && (group == inputs || (group > 0 && group < inputs && group.is_multiple_of(GROUP_STEP)))
    }

    /// Inputs with padding.
    pub(crate) fn depth(self) -> usize {
        self.inputs.next_multiple_of(DEPTH)
    }

    /// Inputs whose numbers share a word.
    pub(crate) fn per_word(self) -> usize {
        match self.bits {
            Bits::Four => 8,
            Bits::Eight => 4,
        }
    }

    /// The number that is stored as 0.
    pub(crate) fn lowest(self) -> i8 {
        match self.bits {
            Bits::Four if self.offsets => 0,
            Bits::Four => -8,
            Bits::Eight => -128,
        }
    }

    /// Groups of a row.
    pub(crate) fn groups(self) -> usize {
        self.inputs.div_ceil(self.group)
    }

    /// Lines of a panel.
    pub(crate) fn lines(self) -> usize {
        self.groups() * self.header() + self.depth() / self.per_word()
    }

    /// Group `number`; the last one takes the padding.
    pub(crate) fn group(self, number: usize) -> Group {
        let first = number * self.group;
        let end = if number + 1 == self.groups() { self.depth() } else { first + self.group };
        let scales = number * self.header() + first / self.per_word();
        let lines = (end - first) / self.per_word();
        Group { scales, numbers: scales + self.header(), lines, first, inputs: end - first }
    }

    /// Lines before the numbers of a group.
    fn header(self) -> usize {
        if self.offsets { 2 } else { 1 }
    }

    /// Where input `i` of a word stands in it.
    fn shift(self, i: usize) -> usize {
        match self.bits {
            Bits::Four => 8 * (i % 4) + 4 * (i / 4),
            Bits::Eight => 8 * i,
        }
    }

    /// The word of as many numbers as there are, the rest zeros.
    fn word(self, numbers: &[i8]) -> u32 {
        let number = |i| i32::from(numbers.get(i).copied().unwrap_or(0)) - i32::from(self.lowest());
        (0..self.per_word()).fold(0, |word, i| word | (number(i) as u32) << self.shift(i))
    }

    /// The number of input `i` of a word.
    fn number(self, word: u32, i: usize) -> f32 {
        let mask = if self.bits == Bits::Four { 0xf } else { 0xff };
        (word >> self.shift(i) & mask) as f32 + f32::from(self.lowest())
    }

    /// Writes one column of a panel: the numbers, the scales and the offsets of one output.
    pub(super) fn write(self, panel: &mut [u32], column: usize, row: Row<'_>) {
        for (number, q) in row.q.chunks(self.group).enumerate() {
            let group = self.group(number);
            panel[group.scales * PANEL + column] = row.scales[number].to_bits();
            if let Some(offsets) = row.offsets {
                panel[(group.scales + 1) * PANEL + column] = offsets[number].to_bits();
            }
            for (line, numbers) in q.chunks(self.per_word()).enumerate() {
                panel[(group.numbers + line) * PANEL + column] = self.word(numbers);
            }
        }
    }

    /// Reads one column of a panel: the weights of one output.
    pub(super) fn read(self, panel: &[u32], column: usize, weights: &mut [f32]) {
        for (number, weights) in weights.chunks_mut(self.group).enumerate() {
            let group = self.group(number);
            let scale = f32::from_bits(panel[group.scales * PANEL + column]);
            let offset = match self.offsets {
                true => f32::from_bits(panel[(group.scales + 1) * PANEL + column]),
                false => 0.0,
            };
            for (k, weight) in weights.iter_mut().enumerate() {
                let word = panel[(group.numbers + k / self.per_word()) * PANEL + column];
                *weight = scale * self.number(word, k % self.per_word()) + offset;
            }
        }
    }
}

/// One output of a quantised matrix.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) q: &'a [i8],
    pub(super) scales: &'a [f32],
    pub(super) offsets: Option<&'a [f32]>,
}

impl<'a> Row<'a> {
    /// Output `row` of a matrix.
    pub(super) fn of(matrix: &'a Quantised, row: usize) -> Self {
        let (columns, groups) = (matrix.columns, matrix.groups());
        let groups = row * groups..(row + 1) * groups;
        Self {
            q: &matrix.q[row * columns..(row + 1) * columns],
            scales: &matrix.scales[groups.clone()],
            offsets: matrix.offsets.as_ref().map(|offsets| &offsets[groups]),
        }
    }
}
