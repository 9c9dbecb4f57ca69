//! Weights in the order in which kernels read them.
//!
//! Outputs are cut into panels of [`PANEL`] columns; the last panel is padded with zeros. Inside a panel the inputs run
//! outermost, so that a kernel reads it once from front to back, whatever the instruction set:
//! - f32: `[input][PANEL]`;
//! - bf16: `[pair of inputs][PANEL][2]`, which is what `vdpbf16ps` and the tiles of AMX multiply. Inputs are padded
//!   with zeros to a multiple of [`DEPTH`], the depth of a tile.

#[cfg(test)]
mod tests;

use half::bf16;
use memory::Arena;

use crate::kv::Element;
use crate::stored::{Encoding, TensorView};
use crate::{Dtype, TensorError};

/// Outputs of a panel: four registers of 16 columns.
pub(crate) const PANEL: usize = 64;

/// Inputs of bf16 panels come in multiples of this.
pub(crate) const DEPTH: usize = 32;

/// A linear layer `y = x Wᵀ + b` with packed weights. The packing is private to this crate; int8 and int4 will join.
pub struct Linear {
    inputs: usize,
    outputs: usize,
    dtype: Dtype,
    weights: Arena,
    /// As many as the columns of all panels, or none.
    bias: Vec<f32>,
}

/// One panel of a layer, in the type that it is held as.
#[derive(Clone, Copy)]
pub(crate) enum Panel<'a> {
    /// `[input][PANEL]`.
    F32(&'a [f32]),
    /// `[pair of inputs][PANEL][2]`.
    Bf16(&'a [bf16]),
}

impl Linear {
    /// Width of an input row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Width of an output row.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Type that the weights are held as.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Bytes of the packed weights and the bias.
    pub fn bytes(&self) -> usize {
        self.weights.bytes().len() + size_of_val(self.bias.as_slice())
    }

    /// Number of panels.
    pub(crate) fn panels(&self) -> usize {
        self.outputs.div_ceil(PANEL)
    }

    /// Inputs of a panel, padding included.
    pub(crate) fn depth(&self) -> usize {
        depth(self.inputs, self.dtype)
    }

    /// The weights of a panel.
    pub(crate) fn panel(&self, panel: usize) -> Panel<'_> {
        let elements = self.depth() * PANEL;
        let bytes = elements * self.dtype.size();
        let bytes = &self.weights.bytes()[panel * bytes..(panel + 1) * bytes];
        match self.dtype {
            Dtype::F32 => Panel::F32(bytemuck::cast_slice(bytes)),
            _ => Panel::Bf16(bytemuck::cast_slice(bytes)),
        }
    }

    /// The bias of the columns of a panel, if the layer has one; [`PANEL`] long.
    pub(crate) fn panel_bias(&self, panel: usize) -> Option<&[f32]> {
        self.bias.get(panel * PANEL..(panel + 1) * PANEL)
    }

    /// The bias of an output; zero where the layer has none.
    pub(crate) fn bias(&self, output: usize) -> f32 {
        self.bias.get(output).copied().unwrap_or(0.0)
    }

    /// Unpacks the weights of one output.
    pub(crate) fn row_into(&self, output: usize, row: &mut [f32]) {
        let column = output % PANEL;
        match self.panel(output / PANEL) {
            Panel::F32(panel) => unpack(panel, column, row),
            Panel::Bf16(panel) => unpack(panel, column, row),
        }
    }
}

fn unpack<E: Element>(panel: &[E], column: usize, row: &mut [f32]) {
    for (k, weight) in row.iter_mut().enumerate() {
        *weight = panel[place::<E>(k, column)].widen();
    }
}

/// Builds a [`Linear`] from one or several stored matrices stacked along the outputs (q, k, v; gate, up).
pub struct Packer {
    layer: Linear,
}

impl Packer {
    /// An empty layer of the given widths whose weights will be held as `dtype` (`F32` or `Bf16`). Outputs that are
    /// never filled are zero.
    ///
    /// # Errors
    /// When the memory is refused.
    pub fn new(inputs: usize, outputs: usize, dtype: Dtype) -> Result<Self, TensorError> {
        assert!(dtype != Dtype::F16, "weights are held as f32 or bf16, not as {dtype}");
        let columns = outputs.div_ceil(PANEL) * PANEL;
        let weights = Arena::zeroed(columns * depth(inputs, dtype) * dtype.size())?;
        Ok(Self { layer: Linear { inputs, outputs, dtype, weights, bias: Vec::new() } })
    }

    /// Fills the outputs from `first` on with a matrix stored `[out, in]`.
    ///
    /// Panics unless the matrix is as wide as the layer and ends inside of it; so do `columns` and `bias`.
    pub fn rows(&mut self, first: usize, stored: &TensorView) -> &mut Self {
        let [outputs, inputs] = *stored.shape() else { panic!("a matrix, not {:?}", stored.shape()) };
        self.check_fit(first, inputs, outputs);
        match self.layer.dtype {
            Dtype::F32 => self.layer.pack_rows::<f32>(first, stored, (outputs, inputs)),
            _ => self.layer.pack_rows::<bf16>(first, stored, (outputs, inputs)),
        }
        self
    }

    /// Fills the outputs from `first` on with a matrix stored `[in, out]` (GPT-2's Conv1D).
    pub fn columns(&mut self, first: usize, stored: &TensorView) -> &mut Self {
        let [inputs, outputs] = *stored.shape() else { panic!("a matrix, not {:?}", stored.shape()) };
        self.check_fit(first, inputs, outputs);
        match self.layer.dtype {
            Dtype::F32 => self.layer.pack_columns::<f32>(first, stored, (inputs, outputs)),
            _ => self.layer.pack_columns::<bf16>(first, stored, (inputs, outputs)),
        }
        self
    }

    /// Sets the bias of the outputs from `first` on.
    pub fn bias(&mut self, first: usize, stored: &TensorView) -> &mut Self {
        let bias = stored.to_f32();
        self.check_fit(first, self.layer.inputs, bias.len());
        self.layer.bias.resize(self.layer.panels() * PANEL, 0.0);
        self.layer.bias[first..first + bias.len()].copy_from_slice(&bias);
        self
    }

    /// The packed layer.
    pub fn finish(self) -> Linear {
        self.layer
    }

    fn check_fit(&self, first: usize, inputs: usize, outputs: usize) {
        let Linear { inputs: width, outputs: height, .. } = self.layer;
        assert!(
            inputs == width && first + outputs <= height,
            "outputs {first}..{} of {inputs} inputs do not fit a layer of {width} inputs and {height} outputs",
            first + outputs
        );
    }
}

impl Linear {
    /// Packs outputs stored one after the other; `E` is the type that the layer holds.
    fn pack_rows<E: Element>(
        &mut self,
        first: usize,
        stored: &TensorView,
        (outputs, inputs): (usize, usize),
    ) {
        let elements = self.depth() * PANEL;
        let packed: &mut [E] = bytemuck::cast_slice_mut(self.weights.bytes_mut());
        let (mut row, mut wide) = (vec![E::narrow(0.0); inputs], Vec::new());
        for (output, number) in (first..).zip(0..outputs) {
            read_row(stored, number, &mut row, &mut wide);
            let panel = &mut packed[output / PANEL * elements..][..elements];
            for (k, &weight) in row.iter().enumerate() {
                panel[place::<E>(k, output % PANEL)] = weight;
            }
        }
    }

    /// Packs inputs stored one after the other.
    fn pack_columns<E: Element>(
        &mut self,
        first: usize,
        stored: &TensorView,
        (inputs, outputs): (usize, usize),
    ) {
        let elements = self.depth() * PANEL;
        let packed: &mut [E] = bytemuck::cast_slice_mut(self.weights.bytes_mut());
        let (mut row, mut wide) = (vec![E::narrow(0.0); outputs], Vec::new());
        for k in 0..inputs {
            read_row(stored, k, &mut row, &mut wide);
            for (output, &weight) in (first..).zip(&row) {
                packed[output / PANEL * elements + place::<E>(k, output % PANEL)] = weight;
            }
        }
    }
}

/// Reads row `number` of a stored matrix; by way of `wide` unless it is stored as `E` already.
fn read_row<E: Element>(stored: &TensorView, number: usize, row: &mut [E], wide: &mut Vec<f32>) {
    if stored.encoding() == Encoding::Float(E::DTYPE) && cfg!(target_endian = "little") {
        let bytes = size_of_val(row);
        bytemuck::cast_slice_mut(row).copy_from_slice(&stored.bytes()[number * bytes..(number + 1) * bytes]);
        return;
    }
    wide.resize(row.len(), 0.0);
    stored.row_into(number, wide);
    row.iter_mut().zip(wide).for_each(|(weight, &mut wide)| *weight = E::narrow(wide));
}

/// Inputs of a panel, padding included.
fn depth(inputs: usize, dtype: Dtype) -> usize {
    if dtype == Dtype::F32 { inputs } else { inputs.next_multiple_of(DEPTH) }
}

/// Where the weight of input `k` and column `column` stands in a panel of `E`.
fn place<E: Element>(k: usize, column: usize) -> usize {
    match E::DTYPE {
        Dtype::F32 => k * PANEL + column,
        _ => (k / 2 * PANEL + column) * 2 + k % 2,
    }
}
