//! Weights in the order in which kernels read them.
//!
//! Outputs are cut into panels of `PANEL` columns; the last panel is padded with zeros. In a layer of gates, the first half of
//! a panel's columns are gates and the other half what they are for, so that a panel needs no other to be finished. Inside a panel the inputs run
//! outermost, so that a kernel reads it once from front to back, whatever the instruction set:
//! - f32: `[input][PANEL]`;
//! - bf16: `[pair of inputs][PANEL][2]`, which is what `vdpbf16ps` and the tiles of AMX multiply. Inputs are padded
//!   with zeros to a multiple of `DEPTH`, the depth of a tile;
//! - 8 and 4 bits: words of several inputs, with the scales of every group before them; see `grouping.rs`.
//!
//! `packer.rs` says what a layer is made of, `fill.rs` fills its panels, `archive.rs` keeps them in a file, and `streamed.rs`
//! leaves them there until they are needed. Whoever changes the layout raises [`archive::LAYOUT_VERSION`].

pub mod archive;
mod fill;
mod grouping;
mod packer;
pub mod streamed;
mod strip;
#[cfg(test)]
mod tests;

use std::ops::Range;

use half::bf16;
use memory::Arena;
use serde::{Deserialize, Serialize};

use crate::Dtype;
use crate::kv::Element;
use crate::quantised::Scheme;
use crate::stored::FileBytes;

pub(crate) use grouping::{Group, Grouping, Step};
pub use packer::Packer;
use streamed::StreamedLayer;
pub(crate) use strip::Strip;

/// Outputs of a panel: four registers of 16 columns.
pub(crate) const PANEL: usize = 64;

/// Inputs of bf16 panels come in multiples of this.
pub(crate) const DEPTH: usize = 32;

/// A linear layer `y = x Wᵀ + b` with packed weights. The packing is private to this crate.
pub struct Linear {
    layout: Layout,
    weights: Weights,
    /// As many as the columns of all panels, or none.
    bias: Vec<f32>,
}

/// Where packed weights are.
enum Weights {
    Packed(Arena),
    /// In a file that was written earlier.
    Stored {
        file: FileBytes,
        range: Range<usize>,
    },
    /// In a file that is read whenever they are needed.
    Streamed(StreamedLayer),
}

/// What the packed weights of a layer are.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Layout {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) dtype: Dtype,
    /// Where the weights are quantised.
    pub(crate) grouping: Option<Grouping>,
    pub(crate) columns: Columns,
}

/// Which outputs are the columns of a panel.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) enum Columns {
    /// Neighbours.
    #[default]
    InOrder,
    /// Neighbours of the first half of the outputs, which are gates, and what they gate of the second half.
    Gated,
}

impl Layout {
    /// Number of panels.
    pub(crate) fn panels(self) -> usize {
        self.outputs.div_ceil(PANEL)
    }

    /// The panel of an output, and its column there.
    fn place(self, output: usize) -> (usize, usize) {
        let (column, half) = match self.columns {
            Columns::InOrder => return (output / PANEL, output % PANEL),
            Columns::Gated if output < self.outputs / 2 => (output, 0),
            Columns::Gated => (output - self.outputs / 2, PANEL / 2),
        };
        (column / (PANEL / 2), half + column % (PANEL / 2))
    }

    /// The outputs of a panel by runs of neighbours, each with the column of its first.
    fn runs(self, panel: usize) -> impl Iterator<Item = (Range<usize>, usize)> {
        let (width, parts) = match self.columns {
            Columns::InOrder => (self.outputs, 1),
            Columns::Gated => (self.outputs / 2, 2),
        };
        let wide = PANEL / parts;
        let run = panel * wide..((panel + 1) * wide).min(width);
        (0..parts).map(move |part| (part * width + run.start..part * width + run.end, part * wide))
    }

    /// Inputs of a panel, padding included.
    fn depth(self) -> usize {
        match self.grouping {
            Some(grouping) => grouping.depth(),
            None if self.dtype == Dtype::F32 => self.inputs,
            None => self.inputs.next_multiple_of(DEPTH),
        }
    }

    /// Bytes of a panel.
    fn panel_bytes(self) -> usize {
        match self.grouping {
            Some(grouping) => grouping.lines() * PANEL * size_of::<u32>(),
            None => self.depth() * PANEL * self.dtype.size(),
        }
    }

    /// Bytes of all panels.
    fn bytes(self) -> usize {
        self.panels() * self.panel_bytes()
    }

    /// Bytes of all panels of a layout that a file states, if it can be: no width is larger than any model's, and the
    /// groups are such as kernels read.
    fn checked_bytes(self) -> Option<usize> {
        const WIDEST: usize = 1 << 24;
        let Self { inputs, outputs, dtype, grouping, columns } = self;
        let is_grouped = grouping.is_none_or(|grouping| grouping.inputs == inputs && grouping.is_sound());
        let has_halves = columns == Columns::InOrder || outputs.is_multiple_of(2);
        let can_be = (1..=WIDEST).contains(&inputs) && (1..=WIDEST).contains(&outputs) && has_halves;
        (can_be && is_grouped && dtype != Dtype::F16).then(|| self.bytes())
    }
}

/// One panel of a layer, in the type that it is held as.
#[derive(Clone, Copy)]
pub(crate) enum Panel<'a> {
    /// `[input][PANEL]`.
    F32(&'a [f32]),
    /// `[pair of inputs][PANEL][2]`.
    Bf16(&'a [bf16]),
    /// Lines of `PANEL` words, as the grouping says.
    Quantised(&'a [u32]),
}

impl Linear {
    /// Width of an input row.
    pub fn inputs(&self) -> usize {
        self.layout.inputs
    }

    /// Width of an output row.
    pub fn outputs(&self) -> usize {
        self.layout.outputs
    }

    /// Type that weights are held as where they are not quantised, `F32` or `Bf16`; with `F32` activations stay as they are
    /// (see [`crate::Kernels::linear`]).
    pub fn dtype(&self) -> Dtype {
        self.layout.dtype
    }

    /// How the weights are quantised, if they are.
    pub fn scheme(&self) -> Option<Scheme> {
        self.layout.grouping.map(Grouping::scheme)
    }

    /// How the weights are grouped, if they are quantised.
    pub(crate) fn grouping(&self) -> Option<Grouping> {
        self.layout.grouping
    }

    /// Bytes of the packed weights and the bias.
    pub fn bytes(&self) -> usize {
        self.layout.bytes() + size_of_val(self.bias.as_slice())
    }

    /// Inputs of a panel, padding included.
    pub(crate) fn depth(&self) -> usize {
        self.layout.depth()
    }

    /// Whether it is a layer of gates and what they are for ([`Packer::gated`]).
    pub fn is_gated(&self) -> bool {
        self.layout.columns == Columns::Gated
    }

    /// The bias of the columns of a panel, if the layer has one; `PANEL` long.
    pub(crate) fn panel_bias(&self, panel: usize) -> Option<&[f32]> {
        self.bias.get(panel * PANEL..(panel + 1) * PANEL)
    }

    /// The bias of an output; zero where the layer has none.
    pub(crate) fn bias(&self, output: usize) -> f32 {
        let (panel, column) = self.layout.place(output);
        self.bias.get(panel * PANEL + column).copied().unwrap_or(0.0)
    }
}

fn unpack<E: Element>(panel: &[E], column: usize, row: &mut [f32]) {
    for (k, weight) in row.iter_mut().enumerate() {
        *weight = panel[place::<E>(k, column)].widen();
    }
}

/// Where the weight of input `k` and column `column` stands in a panel of `E`.
fn place<E: Element>(k: usize, column: usize) -> usize {
    match E::DTYPE {
        Dtype::F32 => k * PANEL + column,
        _ => (k / 2 * PANEL + column) * 2 + k % 2,
    }
}
