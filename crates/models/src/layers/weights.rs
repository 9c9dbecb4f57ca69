//! From stored tensors to packed layers. Every tensor is found and its shape checked before memory is asked for.

use tensor::stored::TensorView;
use tensor::{Linear, Packer};

use crate::ModelError;
use crate::family::Source;
use crate::loaded::Holding;

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

/// A stored matrix that was found, and what belongs to it.
pub(super) struct Found {
    pub(super) name: String,
    pub(super) outputs: usize,
    pub(super) weight: TensorView,
    pub(super) bias: Option<TensorView>,
}

impl Source<'_> {
    /// A vector, widened to `f32`.
    pub(crate) fn vector(&self, name: &str, width: usize) -> Result<Vec<f32>, ModelError> {
        Ok(self.checkpoint.tensor(name, &[width])?.to_f32())
    }

    /// The layer of a block that `parts` make, stacked along the outputs in the order given.
    pub(crate) fn linear(&self, inputs: usize, stored: Stored, parts: &[Part]) -> Result<Linear, ModelError> {
        self.stacked(inputs, (stored, parts), self.holding.blocks())
    }

    /// The layer of gates and of what they are for.
    pub(crate) fn gated(&self, inputs: usize, parts: [Part; 2]) -> Result<Linear, ModelError> {
        let holding = self.holding.blocks();
        let (stored, found) = self.found(inputs, (Stored::Rows, &parts), holding)?;
        let packer = self.packer(inputs, &found, holding)?.gated();
        self.filled(packer, (stored, &found), holding)
    }

    /// A layer of a vision tower.
    pub(crate) fn seeing(&self, inputs: usize, part: Part) -> Result<Linear, ModelError> {
        self.stacked(inputs, (Stored::Rows, &[part]), self.holding.tower())
    }

    /// The layer that a convolution is whose kernels touch each input once: its matrix is stored as `shape`, `[out, …]`.
    pub(crate) fn convolution(&self, name: &str, shape: &[usize]) -> Result<Linear, ModelError> {
        let (outputs, inputs) = (shape[0], shape[1..].iter().product());
        let weight_name = format!("{name}.weight");
        let weight = self.checkpoint.tensor(&weight_name, shape)?.reshaped(&[outputs, inputs]);
        let bias = Some(self.checkpoint.tensor(&format!("{name}.bias"), &[outputs])?);
        let found = [Found { name: weight_name, outputs, weight, bias }];
        self.packed(inputs, (Stored::Rows, &found), Holding::Floats)
    }

    /// The layer that `parts` make, held as `holding` says.
    pub(super) fn stacked(
        &self,
        inputs: usize,
        (stored, parts): (Stored, &[Part]),
        holding: Holding,
    ) -> Result<Linear, ModelError> {
        let (stored, found) = self.found(inputs, (stored, parts), holding)?;
        self.packed(inputs, (stored, &found), holding)
    }

    /// The matrices of `parts`, and how they are stored.
    fn found(
        &self,
        inputs: usize,
        (stored, parts): (Stored, &[Part]),
        holding: Holding,
    ) -> Result<(Stored, Vec<Found>), ModelError> {
        let stored = self.checkpoint.stored(stored);
        let mut found = Vec::with_capacity(parts.len());
        for part in parts {
            let shape = match stored {
                Stored::Rows => [part.outputs, inputs],
                Stored::Columns => [inputs, part.outputs],
            };
            let weight = match holding {
                Holding::Quantised(scheme) if self.checkpoint.is_quantised() => {
                    self.checkpoint.count(shape);
                    self.checkpoint.matrix(&part.weight, shape, scheme)?
                }
                _ => self.checkpoint.tensor(&part.weight, &shape)?,
            };
            let bias =
                part.bias.as_ref().map(|name| self.checkpoint.tensor(name, &[part.outputs])).transpose()?;
            found.push(Found { name: part.weight.clone(), outputs: part.outputs, weight, bias });
        }
        Ok((stored, found))
    }

    /// Packs matrices that were found.
    pub(super) fn packed(
        &self,
        inputs: usize,
        (stored, found): (Stored, &[Found]),
        holding: Holding,
    ) -> Result<Linear, ModelError> {
        self.filled(self.packer(inputs, found, holding)?, (stored, found), holding)
    }

    /// The layer that `packer` makes of matrices that were found.
    fn filled(
        &self,
        mut packer: Packer,
        (stored, found): (Stored, &[Found]),
        holding: Holding,
    ) -> Result<Linear, ModelError> {
        if self.packing.lists() {
            found.iter().for_each(|part| self.packing.list(part, stored, holding));
            return Ok(packer.finish());
        }
        let mut first = 0;
        for Found { outputs, weight, bias, .. } in found {
            match stored {
                Stored::Rows => packer.rows(first, weight),
                Stored::Columns => packer.columns(first, weight),
            };
            if let Some(bias) = bias {
                packer.bias(first, bias);
            }
            first += outputs;
        }
        let layer = self.packing.layer(&found[0].name, packer, &*self.kernels)?;
        self.progress.add(found.iter().map(|part| part.weight.bytes().len() as u64).sum())?;
        Ok(layer)
    }

    /// An empty layer that is held as `holding` says.
    fn packer(&self, inputs: usize, found: &[Found], holding: Holding) -> Result<Packer, ModelError> {
        let outputs = found.iter().map(|part| part.outputs).sum();
        Ok(match holding {
            Holding::Floats => Packer::new(inputs, outputs, self.dtype)?,
            Holding::Quantised(scheme) if !self.checkpoint.is_quantised() => {
                Packer::quantising((inputs, outputs), scheme, self.dtype)?
            }
            Holding::Quantised(_) | Holding::Stored => {
                let views: Vec<&TensorView> = found.iter().map(|part| &part.weight).collect();
                match Packer::keeping(outputs, &views, self.dtype)? {
                    Some(packer) => packer,
                    // Of a matrix of floats that is stacked with quantised ones, all become floats.
                    None => Packer::new(inputs, outputs, self.dtype)?,
                }
            }
        })
    }
}
