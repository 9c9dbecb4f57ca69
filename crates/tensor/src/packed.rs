//! Weights in the order in which kernels read them.

use crate::{Dtype, TensorError, safetensors::TensorView};

/// A linear layer `y = x Wᵀ + b` with packed weights. The packing is private to this crate; int8 and int4 will join.
pub struct Linear {
    inputs: usize,
    outputs: usize,
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

    /// Bytes of the packed weights and the bias.
    pub fn bytes(&self) -> usize {
        todo!()
    }
}

/// Builds a [`Linear`] from one or several stored matrices stacked along the outputs (q, k, v; gate, up).
pub struct Packer {
    inputs: usize,
    outputs: usize,
}

impl Packer {
    /// An empty layer of the given widths whose weights will be held as `dtype` (`F32` or `Bf16`).
    ///
    /// # Errors
    /// When the memory is refused.
    pub fn new(inputs: usize, outputs: usize, dtype: Dtype) -> Result<Self, TensorError> {
        let _ = dtype;
        Ok(Self { inputs, outputs })
    }

    /// Fills the outputs from `first` on with a matrix stored `[out, in]`.
    pub fn rows(&mut self, first: usize, stored: &TensorView) -> &mut Self {
        let _ = (first, stored);
        todo!()
    }

    /// Fills the outputs from `first` on with a matrix stored `[in, out]` (GPT-2's Conv1D).
    pub fn columns(&mut self, first: usize, stored: &TensorView) -> &mut Self {
        let _ = (first, stored);
        todo!()
    }

    /// Sets the bias of the outputs from `first` on.
    pub fn bias(&mut self, first: usize, stored: &TensorView) -> &mut Self {
        let _ = (first, stored);
        todo!()
    }

    /// The packed layer.
    pub fn finish(self) -> Linear {
        Linear { inputs: self.inputs, outputs: self.outputs }
    }
}
