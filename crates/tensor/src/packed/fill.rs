//! Filling the panels of a layer from stored matrices, one panel at a time.

use std::ops::Range;

use half::bf16;

use super::grouping::Row;
use super::packer::{Order, Part, Source};
use super::{Grouping, Layout, PANEL, place};
use crate::Dtype;
use crate::kv::Element;
use crate::quantised::{Quantised, Scheme};
use crate::stored::{Encoding, TensorView};

/// Pairs of inputs that are moved at a time: a cache line of a stored row.
const PAIRS: usize = 16;

/// Fills panels of one layer; has the memory that one thread needs for it.
pub(super) struct Filling {
    layout: Layout,
    source: Source,
    /// The weights of one output, or for matrices stored by columns those of all outputs of a panel.
    wide: Vec<f32>,
    q: Vec<i8>,
    scales: Vec<f32>,
}

impl Filling {
    pub(super) fn new(layout: Layout, source: Source) -> Self {
        let groups = layout.grouping.map_or(0, Grouping::groups);
        Self { layout, source, wide: Vec::new(), q: vec![0; layout.inputs], scales: vec![0.0; groups] }
    }

    /// Fills a panel with those of its outputs that `parts` have, and lets go of what has been read of them.
    pub(super) fn panel(&mut self, panel: usize, bytes: &mut [u8], parts: &[Part]) {
        for (run, column) in self.layout.runs(panel) {
            for part in parts {
                let outputs = part.outputs.start.max(run.start)..part.outputs.end.min(run.end);
                if outputs.is_empty() {
                    continue;
                }
                let first = column + outputs.start - run.start;
                let stored = outputs.start - part.outputs.start..outputs.end - part.outputs.start;
                match part.order {
                    Order::Rows => {
                        self.rows(bytes, first, (&part.stored, stored.clone()));
                        part.stored.release_rows(stored);
                    }
                    Order::Columns => self.columns(bytes, first, (&part.stored, stored)),
                }
            }
        }
    }

    /// Fills the columns from `first` on with rows of a matrix.
    fn rows(&mut self, bytes: &mut [u8], first: usize, (stored, rows): (&TensorView, Range<usize>)) {
        let Layout { inputs, dtype, grouping, .. } = self.layout;
        if let (Source::Kept, Some(grouping)) = (self.source, grouping) {
            let matrix = stored.quantised(rows).unwrap_or_else(|| unreachable!("the parts are quantised"));
            let panel = bytemuck::cast_slice_mut(bytes);
            (0..matrix.rows).for_each(|row| write_row(grouping, panel, first + row, &matrix, row));
            return;
        }
        if self.source == Source::Floats
            && dtype == Dtype::Bf16
            && stored.encoding() == Encoding::Float(Dtype::Bf16)
        {
            let rows: Vec<&[u8]> = rows.map(|row| stored.row_bytes(row)).collect();
            return pairs(bytemuck::cast_slice_mut(bytes), first, &rows);
        }
        let mut wide = std::mem::take(&mut self.wide);
        wide.resize(inputs, 0.0);
        for (row, column) in rows.zip(first..) {
            stored.row_into(row, &mut wide);
            self.column(bytes, column, &wide);
        }
        self.wide = wide;
    }

    /// Fills the columns from `first` on with columns of a matrix. Groups run along the inputs, so the columns are
    /// gathered first.
    fn columns(&mut self, bytes: &mut [u8], first: usize, (stored, columns): (&TensorView, Range<usize>)) {
        let (inputs, count) = (self.layout.inputs, columns.len());
        let mut wide = std::mem::take(&mut self.wide);
        wide.resize(inputs * PANEL, 0.0);
        stored.columns_into(columns, &mut wide[..inputs * count]);
        for (column, weights) in (first..first + count).zip(wide.chunks_exact(inputs)) {
            self.column(bytes, column, weights);
        }
        self.wide = wide;
    }

    /// Writes the weights of one output.
    fn column(&mut self, bytes: &mut [u8], column: usize, weights: &[f32]) {
        match (self.source, self.layout.grouping, self.layout.dtype) {
            (Source::Quantised(scheme), Some(grouping), _) => self.quantise(scheme, weights, |row| {
                grouping.write(bytemuck::cast_slice_mut(bytes), column, row);
            }),
            (_, _, Dtype::F32) => narrow::<f32>(bytemuck::cast_slice_mut(bytes), column, weights),
            _ => narrow::<bf16>(bytemuck::cast_slice_mut(bytes), column, weights),
        }
    }

    fn quantise(&mut self, scheme: Scheme, weights: &[f32], write: impl FnOnce(Row<'_>)) {
        scheme.quantise_row(weights, &mut self.q, &mut self.scales);
        write(Row { q: &self.q, scales: &self.scales, offsets: None });
    }
}

fn narrow<E: Element>(panel: &mut [E], column: usize, weights: &[f32]) {
    for (k, &weight) in weights.iter().enumerate() {
        panel[place::<E>(k, column)] = E::narrow(weight);
    }
}

/// Moves rows that are stored as bf16 into a panel of pairs.
fn pairs(panel: &mut [u32], first: usize, rows: &[&[u8]]) {
    let inputs = rows.first().map_or(0, |row| row.len() / size_of::<bf16>());
    for from in (0..inputs / 2).step_by(PAIRS) {
        let to = (from + PAIRS).min(inputs / 2);
        for (row, column) in rows.iter().zip(first..) {
            for (pair, stored) in (from..to).zip(row[4 * from..4 * to].as_chunks::<4>().0) {
                panel[pair * PANEL + column] = u32::from_le_bytes(*stored);
            }
        }
    }
    if inputs % 2 == 1 {
        for (row, column) in rows.iter().zip(first..) {
            let last = [row[2 * inputs - 2], row[2 * inputs - 1], 0, 0];
            panel[inputs / 2 * PANEL + column] = u32::from_le_bytes(last);
        }
    }
}

/// Writes row `row` of a quantised matrix into a panel whose grouping holds it exactly: it has its groups or parts of
/// them, room for its numbers, and offsets if the matrix has them.
pub(super) fn write_row(
    grouping: Grouping,
    panel: &mut [u32],
    column: usize,
    matrix: &Quantised,
    row: usize,
) {
    let whole = Row::of(matrix, row);
    if grouping == Grouping::of_matrix(matrix) {
        return grouping.write(panel, column, whole);
    }
    let coarse = |group: usize| group * grouping.group / matrix.group;
    let scales: Vec<f32> = (0..grouping.groups()).map(|group| whole.scales[coarse(group)]).collect();
    let offsets: Option<Vec<f32>> = grouping.offsets.then(|| {
        (0..grouping.groups()).map(|group| whole.offsets.map_or(0.0, |all| all[coarse(group)])).collect()
    });
    grouping.write(panel, column, Row { q: whole.q, scales: &scales, offsets: offsets.as_deref() });
}
