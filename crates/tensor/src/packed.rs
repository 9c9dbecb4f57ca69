//! Weights in the order in which kernels read them.
//!
//! Outputs are cut into panels of `PANEL` columns; the last panel is padded with zeros. Inside a panel the inputs run
//! outermost, so that a kernel reads it once from front to back, whatever the instruction set:
//! - f32: `[input][PANEL]`;
//! - bf16: `[pair of inputs][PANEL][2]`, which is what `vdpbf16ps` and the tiles of AMX multiply. Inputs are padded
//!   with zeros to a multiple of `DEPTH`, the depth of a tile;
//! - 8 and 4 bits: words of several inputs, with the scales of every group before them; see `grouping.rs`.

mod grouping;
#[cfg(test)]
mod tests;

use half::bf16;
use memory::Arena;

use crate::kv::Element;
use crate::quantised::{Quantised, Scheme};
use crate::stored::{Encoding, TensorView};
use crate::{Dtype, TensorError};

use grouping::Row;
pub(crate) use grouping::{Group, Grouping, Step};

/// Outputs of a panel: four registers of 16 columns.
pub(crate) const PANEL: usize = 64;

/// Inputs of bf16 panels come in multiples of this.
pub(crate) const DEPTH: usize = 32;

/// A linear layer `y = x Wᵀ + b` with packed weights. The packing is private to this crate.
pub struct Linear {
    inputs: usize,
    outputs: usize,
    dtype: Dtype,
    /// Where the weights are quantised.
    grouping: Option<Grouping>,
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
    /// Lines of `PANEL` words, as the grouping says.
    Quantised(&'a [u32]),
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

    /// Type that weights are held as where they are not quantised, `F32` or `Bf16`; with `F32` activations stay as they are
    /// (see [`crate::Kernels::linear`]).
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// How the weights are quantised, if they are.
    pub fn scheme(&self) -> Option<Scheme> {
        self.grouping.map(Grouping::scheme)
    }

    /// How the weights are grouped, if they are quantised.
    pub(crate) fn grouping(&self) -> Option<Grouping> {
        self.grouping
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
        self.grouping.map_or_else(|| depth(self.inputs, self.dtype), Grouping::depth)
    }

    /// Bytes of a panel.
    fn panel_bytes(&self) -> usize {
        match self.grouping {
            Some(grouping) => grouping.lines() * PANEL * size_of::<u32>(),
            None => self.depth() * PANEL * self.dtype.size(),
        }
    }

    /// The weights of a panel.
    pub(crate) fn panel(&self, panel: usize) -> Panel<'_> {
        let bytes = self.panel_bytes();
        let bytes = &self.weights.bytes()[panel * bytes..(panel + 1) * bytes];
        match (self.grouping, self.dtype) {
            (Some(_), _) => Panel::Quantised(bytemuck::cast_slice(bytes)),
            (None, Dtype::F32) => Panel::F32(bytemuck::cast_slice(bytes)),
            (None, _) => Panel::Bf16(bytemuck::cast_slice(bytes)),
        }
    }

    /// The bias of the columns of a panel, if the layer has one; `PANEL` long.
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
        match (self.panel(output / PANEL), self.grouping) {
            (Panel::F32(panel), _) => unpack(panel, column, row),
            (Panel::Bf16(panel), _) => unpack(panel, column, row),
            (Panel::Quantised(panel), Some(grouping)) => grouping.read(panel, column, row),
            (Panel::Quantised(_), None) => unreachable!("panels are quantised where there is a grouping"),
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
        Self::of(Linear {
            inputs,
            outputs,
            dtype,
            grouping: None,
            weights: Arena::zeroed(0)?,
            bias: Vec::new(),
        })
    }

    /// An empty layer whose weights will be quantised as they are packed; `dtype` (`F32` or `Bf16`) is what activations
    /// are rounded to. Outputs that are never filled are zero.
    ///
    /// # Errors
    /// When the memory is refused.
    pub fn quantising(
        (inputs, outputs): (usize, usize),
        scheme: Scheme,
        dtype: Dtype,
    ) -> Result<Self, TensorError> {
        let grouping = Some(Grouping::of_scheme(scheme, inputs));
        Self::of(Linear { inputs, outputs, dtype, grouping, weights: Arena::zeroed(0)?, bias: Vec::new() })
    }

    /// An empty layer of `outputs` outputs that holds quantised matrices such as `like`, whose inputs, bits, groups and
    /// presence of offsets all of them share; `dtype` (`F32` or `Bf16`) is what activations are rounded to.
    ///
    /// # Errors
    /// When the memory is refused.
    pub fn of_quantised(outputs: usize, like: &Quantised, dtype: Dtype) -> Result<Self, TensorError> {
        let (inputs, grouping) = (like.columns, Some(Grouping::of_matrix(like)));
        Self::of(Linear { inputs, outputs, dtype, grouping, weights: Arena::zeroed(0)?, bias: Vec::new() })
    }

    /// Takes the memory of a layer.
    fn of(mut layer: Linear) -> Result<Self, TensorError> {
        let dtype = layer.dtype;
        assert!(dtype != Dtype::F16, "weights and activations are f32 or bf16, not {dtype}");
        layer.weights = Arena::zeroed(layer.panels() * layer.panel_bytes())?;
        Ok(Self { layer })
    }

    /// Fills the outputs from `first` on with a matrix stored `[out, in]`.
    ///
    /// Panics unless the matrix is as wide as the layer and ends inside of it; so do `columns` and `bias`.
    pub fn rows(&mut self, first: usize, stored: &TensorView) -> &mut Self {
        let [outputs, inputs] = *stored.shape() else { panic!("a matrix, not {:?}", stored.shape()) };
        self.check_fit(first, inputs, outputs);
        match (self.layer.grouping, self.layer.dtype) {
            (Some(_), _) => self.layer.quantise_rows(first, stored, outputs),
            (None, Dtype::F32) => self.layer.pack_rows::<f32>(first, stored, (outputs, inputs)),
            (None, _) => self.layer.pack_rows::<bf16>(first, stored, (outputs, inputs)),
        }
        self
    }

    /// Fills the outputs from `first` on with a quantised matrix as it stands.
    ///
    /// Panics as `rows` does, and unless the matrix has the bits, the groups and the offsets of this layer.
    pub fn quantised(&mut self, first: usize, matrix: &Quantised) -> &mut Self {
        matrix.assert_shape();
        self.check_fit(first, matrix.columns, matrix.rows);
        assert_eq!(self.layer.grouping, Some(Grouping::of_matrix(matrix)), "the grouping of the layer");
        for row in 0..matrix.rows {
            self.layer.write_output(first + row, Row::of(matrix, row));
        }
        self
    }

    /// Fills the outputs from `first` on with a matrix stored `[in, out]` (GPT-2's Conv1D).
    pub fn columns(&mut self, first: usize, stored: &TensorView) -> &mut Self {
        let [inputs, outputs] = *stored.shape() else { panic!("a matrix, not {:?}", stored.shape()) };
        self.check_fit(first, inputs, outputs);
        match (self.layer.grouping, self.layer.dtype) {
            (Some(_), _) => self.layer.quantise_columns(first, stored, (inputs, outputs)),
            (None, Dtype::F32) => self.layer.pack_columns::<f32>(first, stored, (inputs, outputs)),
            (None, _) => self.layer.pack_columns::<bf16>(first, stored, (inputs, outputs)),
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

impl Linear {
    /// Quantises and packs outputs stored one after the other, a row at a time.
    fn quantise_rows(&mut self, first: usize, stored: &TensorView, outputs: usize) {
        let mut weights = vec![0.0; self.inputs];
        let mut quantised = Quantising::new(self);
        for row in 0..outputs {
            stored.row_into(row, &mut weights);
            quantised.output(first + row, &weights);
        }
    }

    /// Quantises and packs inputs stored one after the other. Groups run along the inputs, so the matrix is transposed
    /// first, as `f32`.
    fn quantise_columns(&mut self, first: usize, stored: &TensorView, (inputs, outputs): (usize, usize)) {
        let (mut weights, mut line) = (vec![0.0; inputs * outputs], vec![0.0; outputs]);
        for k in 0..inputs {
            stored.row_into(k, &mut line);
            for (output, &weight) in line.iter().enumerate() {
                weights[output * inputs + k] = weight;
            }
        }
        let mut quantised = Quantising::new(self);
        for (output, weights) in (first..).zip(weights.chunks(inputs)) {
            quantised.output(output, weights);
        }
    }

    fn write_output(&mut self, output: usize, row: Row<'_>) {
        let Some(grouping) = self.grouping else { unreachable!("quantised rows are for quantised layers") };
        let words: &mut [u32] = bytemuck::cast_slice_mut(self.weights.bytes_mut());
        let panel = grouping.lines() * PANEL;
        grouping.write(&mut words[output / PANEL * panel..][..panel], output % PANEL, row);
    }
}

/// A layer that is being quantised, one output at a time.
struct Quantising<'a> {
    layer: &'a mut Linear,
    scheme: Scheme,
    q: Vec<i8>,
    scales: Vec<f32>,
}

impl<'a> Quantising<'a> {
    fn new(layer: &'a mut Linear) -> Self {
        let Some(grouping) = layer.grouping else { unreachable!("this layer has a grouping") };
        let (inputs, groups) = (layer.inputs, grouping.groups());
        assert!(!grouping.offsets, "the quantisers make no offsets");
        Self { layer, scheme: grouping.scheme(), q: vec![0; inputs], scales: vec![0.0; groups] }
    }

    fn output(&mut self, output: usize, weights: &[f32]) {
        self.scheme.quantise_row(weights, &mut self.q, &mut self.scales);
        self.layer.write_output(output, Row { q: &self.q, scales: &self.scales, offsets: None });
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
