//! What a layer is made of, and packing it on the compute threads.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use memory::Arena;

use super::archive::Archive;
use super::fill::{Filling, write_row};
use super::streamed::Streaming;
use super::{Columns, Grouping, Layout, Linear, PANEL, Weights};
use crate::quantised::{Quantised, Scheme};
use crate::stored::{Encoding, TensorView};
use crate::{Dtype, Pool, TensorError};

/// Builds a [`Linear`] from one or several stored matrices stacked along the outputs (q, k, v; gate, up).
///
/// Matrices are named first and read when the layer is finished, panel by panel, so that nothing but a panel of each
/// thread is ever held beside the layer itself.
pub struct Packer {
    layout: Layout,
    source: Source,
    weights: Arena,
    bias: Vec<f32>,
    parts: Vec<Part>,
}

/// What numbers are made of the stored ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The nearest floats.
    Floats,
    /// Small whole numbers, by rounding to nearest.
    Quantised(Scheme),
    /// The whole numbers and scales that are stored, as they are.
    Kept,
}

/// How a matrix is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// `[out, in]`.
    Rows,
    /// `[in, out]`.
    Columns,
}

/// One stored matrix and the outputs that it is for.
pub(super) struct Part {
    pub(super) outputs: Range<usize>,
    pub(super) stored: TensorView,
    pub(super) order: Order,
}

impl Packer {
    /// An empty layer of the given widths whose weights will be held as `dtype` (`F32` or `Bf16`). Outputs that are
    /// never filled are zero.
    ///
    /// # Errors
    /// When the memory is refused.
    pub fn new(inputs: usize, outputs: usize, dtype: Dtype) -> Result<Self, TensorError> {
        Self::of((inputs, outputs), (dtype, None), Source::Floats)
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
        Self::of((inputs, outputs), (dtype, grouping), Source::Quantised(scheme))
    }

    /// An empty layer of `outputs` outputs for matrices that are stored quantised, such as those of `parts`; it will
    /// hold their numbers and scales as they are. Matrices that are stored in several ways are held in the coarsest way
    /// that holds all of them exactly. `None` if some part is not quantised, or there is none. `dtype` (`F32` or
    /// `Bf16`) is what activations are rounded to.
    ///
    /// # Errors
    /// When the memory is refused.
    pub fn keeping(outputs: usize, parts: &[&TensorView], dtype: Dtype) -> Result<Option<Self>, TensorError> {
        let mut groupings = parts.iter().map(|part| Grouping::of_stored(part));
        let Some(Some(first)) = groupings.next() else { return Ok(None) };
        let Some(grouping) = groupings.try_fold(first, |all, next| Some(all.common(next?))) else {
            return Ok(None);
        };
        Self::of((grouping.inputs, outputs), (dtype, Some(grouping)), Source::Kept).map(Some)
    }

    /// An empty layer of `outputs` outputs that holds quantised matrices such as `like`, whose inputs, bits, groups and
    /// presence of offsets all of them share; `dtype` (`F32` or `Bf16`) is what activations are rounded to.
    ///
    /// # Errors
    /// When the memory is refused.
    pub fn of_quantised(outputs: usize, like: &Quantised, dtype: Dtype) -> Result<Self, TensorError> {
        let grouping = Some(Grouping::of_matrix(like));
        Self::of((like.columns, outputs), (dtype, grouping), Source::Kept)
    }

    /// Takes the memory of a layer.
    fn of(
        (inputs, outputs): (usize, usize),
        (dtype, grouping): (Dtype, Option<Grouping>),
        source: Source,
    ) -> Result<Self, TensorError> {
        let layout = Layout { inputs, outputs, dtype, grouping, columns: Columns::InOrder };
        assert!(dtype != Dtype::F16, "weights and activations are f32 or bf16, not {dtype}");
        let weights = Arena::zeroed(layout.bytes())?;
        Ok(Self { layout, source, weights, bias: Vec::new(), parts: Vec::new() })
    }

    /// Makes it a layer for [`crate::Kernels::gated`]: the first half of its outputs are gates, the second half what they
    /// are for. To be said before any of them is named.
    #[must_use]
    pub fn gated(mut self) -> Self {
        let outputs = self.layout.outputs;
        assert!(outputs.is_multiple_of(2), "as many gates as values, not {outputs} of both");
        assert!(self.bias.is_empty() && self.parts.is_empty(), "gates are told of before their weights");
        self.layout.columns = Columns::Gated;
        self
    }

    /// The outputs from `first` on are a matrix stored `[out, in]`.
    ///
    /// Panics unless the matrix is as wide as the layer and ends inside of it; so do `columns` and `bias`.
    pub fn rows(&mut self, first: usize, stored: &TensorView) -> &mut Self {
        let [outputs, inputs] = *stored.shape() else { panic!("a matrix, not {:?}", stored.shape()) };
        self.part(first, (inputs, outputs), stored, Order::Rows)
    }

    /// The outputs from `first` on are a matrix of floats stored `[in, out]` (GPT-2's Conv1D).
    pub fn columns(&mut self, first: usize, stored: &TensorView) -> &mut Self {
        let [inputs, outputs] = *stored.shape() else { panic!("a matrix, not {:?}", stored.shape()) };
        assert!(matches!(stored.encoding(), Encoding::Float(_)), "blocks run along the inputs");
        self.part(first, (inputs, outputs), stored, Order::Columns)
    }

    fn part(
        &mut self,
        first: usize,
        (inputs, outputs): (usize, usize),
        stored: &TensorView,
        order: Order,
    ) -> &mut Self {
        self.check_fit(first, inputs, outputs);
        if let (Source::Kept, Some(grouping)) = (self.source, self.layout.grouping) {
            let holds = Grouping::of_stored(stored).is_some_and(|own| own.common(grouping) == grouping);
            assert!(holds, "{grouping:?} does not hold a matrix of {}", stored.encoding());
        }
        self.parts.push(Part { outputs: first..first + outputs, stored: stored.clone(), order });
        self
    }

    /// The outputs from `first` on are a quantised matrix as it stands.
    ///
    /// Panics as `rows` does, and unless the matrix has the bits, the groups and the offsets of this layer.
    pub fn quantised(&mut self, first: usize, matrix: &Quantised) -> &mut Self {
        matrix.assert_shape();
        self.check_fit(first, matrix.columns, matrix.rows);
        let grouping = Grouping::of_matrix(matrix);
        assert_eq!(self.layout.grouping, Some(grouping), "the grouping of the layer");
        let panel_words = grouping.lines() * PANEL;
        let words: &mut [u32] = bytemuck::cast_slice_mut(self.weights.bytes_mut());
        for (row, output) in (first..first + matrix.rows).enumerate() {
            let (panel, column) = self.layout.place(output);
            let panel = &mut words[panel * panel_words..][..panel_words];
            write_row(grouping, panel, column, matrix, row);
        }
        self
    }

    /// Sets the bias of the outputs from `first` on.
    pub fn bias(&mut self, first: usize, stored: &TensorView) -> &mut Self {
        let bias = stored.to_f32();
        self.check_fit(first, self.layout.inputs, bias.len());
        self.bias.resize(self.layout.panels() * PANEL, 0.0);
        for (output, bias) in (first..).zip(bias) {
            let (panel, column) = self.layout.place(output);
            self.bias[panel * PANEL + column] = bias;
        }
        self
    }

    /// The packed layer, packed on the calling thread.
    pub fn finish(self) -> Linear {
        self.pack(None)
    }

    /// The packed layer, packed on the threads of `pool`; it has the same bits as from one thread.
    ///
    /// A thread packs a run of neighbouring panels and is the first to touch their memory, which therefore comes from
    /// the memory nearest to it. What has been read of mapped files is handed back to the system on the way.
    pub fn finish_on(self, pool: &Pool) -> Linear {
        self.pack(Some(pool))
    }

    /// The layer with the weights that `archive` has under `name`, if it has some of the same layout. Nothing is copied,
    /// and nothing is left to pack then.
    pub fn kept(&mut self, archive: &Archive, name: &str) -> Option<Linear> {
        let weights = archive.weights(name, self.layout)?;
        Some(Linear { layout: self.layout, weights, bias: std::mem::take(&mut self.bias) })
    }

    /// As [`Packer::kept`], with weights that are read whenever they are needed.
    pub fn streamed(&mut self, archive: &Archive, name: &str, streaming: &mut Streaming) -> Option<Linear> {
        let weights = archive.streamed(name, self.layout, streaming)?;
        Some(Linear { layout: self.layout, weights, bias: std::mem::take(&mut self.bias) })
    }

    /// Bytes of its packed weights.
    pub fn bytes(&self) -> usize {
        self.layout.bytes()
    }

    /// What the layer is.
    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// The layer with weights that are packed.
    pub(super) fn with(self, weights: Weights) -> Linear {
        // Pages that two panels share are handed back here at the latest.
        self.parts.iter().for_each(|part| part.stored.release());
        Linear { layout: self.layout, weights, bias: self.bias }
    }

    fn pack(mut self, pool: Option<&Pool>) -> Linear {
        let mut weights = std::mem::take(&mut self.weights);
        self.fill(0..self.layout.panels(), weights.bytes_mut(), pool);
        self.with(Weights::Packed(weights))
    }

    /// Fills neighbouring panels, which are zeros where no part has anything for them.
    pub(super) fn fill(&self, panels: Range<usize>, bytes: &mut [u8], pool: Option<&Pool>) {
        let (layout, panel_bytes) = (self.layout, self.layout.panel_bytes());
        let threads = pool.map_or(1, Pool::threads);
        let share = |worker| pool.map_or(0..panels.len(), |pool| pool.share(panels.len(), 1, worker));
        let mut rest = if self.parts.is_empty() { &mut [] } else { bytes };
        let mut runs = Vec::with_capacity(threads);
        for worker in 0..threads {
            let share = share(worker);
            let bytes = (share.len() * panel_bytes).min(rest.len());
            let (run, after) = std::mem::take(&mut rest).split_at_mut(bytes);
            rest = after;
            runs.push((panels.start + share.start, Mutex::new(run)));
        }
        let work = |worker: usize| {
            let (first, run) = &runs[worker];
            let mut run = run.lock().unwrap_or_else(PoisonError::into_inner);
            let mut filling = Filling::new(layout, self.source);
            for (panel, bytes) in (*first..).zip(run.chunks_exact_mut(panel_bytes.max(1))) {
                filling.panel(panel, bytes, &self.parts);
            }
        };
        match pool {
            Some(pool) => pool.run(&work),
            None => work(0),
        }
    }

    fn check_fit(&self, first: usize, inputs: usize, outputs: usize) {
        let Layout { inputs: width, outputs: height, .. } = self.layout;
        assert!(
            inputs == width && first + outputs <= height,
            "outputs {first}..{} of {inputs} inputs do not fit a layer of {width} inputs and {height} outputs",
            first + outputs
        );
    }
}
