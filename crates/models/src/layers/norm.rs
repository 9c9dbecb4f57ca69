//! Weights of a normalisation.

use tensor::Norm;

use crate::ModelError;
use crate::family::Source;

/// Weights of a normalisation over the last axis.
pub(crate) enum NormWeights {
    Rms { weight: Vec<f32>, eps: f32 },
    Layer { weight: Vec<f32>, bias: Vec<f32>, eps: f32 },
}

impl NormWeights {
    /// Reads `{name}.weight`.
    pub(crate) fn rms(source: &Source<'_>, name: &str, width: usize, eps: f32) -> Result<Self, ModelError> {
        Ok(Self::Rms { weight: source.vector(&format!("{name}.weight"), width)?, eps })
    }

    /// Reads `{name}.weight` and `{name}.bias`.
    pub(crate) fn layer(source: &Source<'_>, name: &str, width: usize, eps: f32) -> Result<Self, ModelError> {
        let weight = source.vector(&format!("{name}.weight"), width)?;
        let bias = source.vector(&format!("{name}.bias"), width)?;
        Ok(Self::Layer { weight, bias, eps })
    }

    /// The weights as kernels take them.
    pub(crate) fn view(&self) -> Norm<'_> {
        match self {
            Self::Rms { weight, eps } => Norm::Rms { weight, eps: *eps },
            Self::Layer { weight, bias, eps } => Norm::Layer { weight, bias, eps: *eps },
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Rms { weight, .. } => size_of_val(weight.as_slice()),
            Self::Layer { weight, bias, .. } => size_of_val(weight.as_slice()) + size_of_val(bias.as_slice()),
        }
    }
}
