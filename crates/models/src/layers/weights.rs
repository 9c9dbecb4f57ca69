//! From stored tensors to packed layers. Every tensor is found and its shape checked before memory is asked for.

use tensor::{Linear, Packer, Scheme};

use crate::ModelError;
use crate::family::Source;

/// How a matrix is stored in model folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// `[out, in]`, as linear layers are.
    Rows,
    /// `[in, out]`, as GPT-2's Conv1D layers are.
    Columns,
}

/// One stored matrix of a layer that may be stacked from several along the outputs.
pub(crate) struct Part {
    weight: String,
    bias: Option<String>,
    outputs: usize,
}

impl Part {
    /// The matrix `{name}.weight` without a bias.
    pub(crate) fn plain(name: &str, outputs: usize) -> Self {
        Self { weight: format!("{name}.weight"), bias: None, outputs }
    }

    /// The matrix `{name}.weight` with `{name}.bias`.
    pub(crate) fn biased(name: &str, outputs: usize) -> Self {
        Self { bias: Some(format!("{name}.bias")), ..Self::plain(name, outputs) }
    }
}

impl Source<'_> {
    /// A vector, widened to `f32`.
    pub(crate) fn vector(&self, name: &str, width: usize) -> Result<Vec<f32>, ModelError> {
        Ok(self.checkpoint.tensor(name, &[width])?.to_f32())
    }

    /// The layer of a block that `parts` make, stacked along the outputs in the order given.
    pub(crate) fn linear(&self, inputs: usize, stored: Stored, parts: &[Part]) -> Result<Linear, ModelError> {
        self.stacked(inputs, (stored, parts), self.options.quantise.map(|quantise| quantise.blocks))
    }

    /// An empty layer, to be quantised by `scheme` if there is one.
    pub(super) fn packer(
        &self,
        (inputs, outputs): (usize, usize),
        scheme: Option<Scheme>,
    ) -> Result<Packer, ModelError> {
        Ok(match scheme {
            None => Packer::new(inputs, outputs, self.dtype)?,
            Some(scheme) => Packer::quantising((inputs, outputs), scheme, self.dtype)?,
        })
    }

    /// The layer that `parts` make, quantised by `scheme` if there is one.
    pub(super) fn stacked(
        &self,
        inputs: usize,
        (stored, parts): (Stored, &[Part]),
        scheme: Option<Scheme>,
    ) -> Result<Linear, ModelError> {
        let stored = self.checkpoint.stored(stored);
        let mut found = Vec::with_capacity(parts.len());
        for part in parts {
            let shape = match stored {
                Stored::Rows => [part.outputs, inputs],
                Stored::Columns => [inputs, part.outputs],
            };
            let weight = self.checkpoint.tensor(&part.weight, &shape)?;
            let bias =
                part.bias.as_ref().map(|name| self.checkpoint.tensor(name, &[part.outputs])).transpose()?;
            found.push((part.outputs, weight, bias));
        }

        let outputs = parts.iter().map(|part| part.outputs).sum();
        let mut packer = self.packer((inputs, outputs), scheme)?;
        let mut first = 0;
        for (outputs, weight, bias) in &found {
            match stored {
                Stored::Rows => packer.rows(first, weight),
                Stored::Columns => packer.columns(first, weight),
            };
            if let Some(bias) = bias {
                packer.bias(first, bias);
            }
            weight.release();
            first += outputs;
        }
        Ok(packer.finish())
    }
}
