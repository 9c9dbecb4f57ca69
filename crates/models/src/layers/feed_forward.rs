//! The pre-norm feed-forward part of a block with its residual.

use tensor::{Activation, Epilogue, Linear, Product, Write};

use super::decoder::Step;
use super::norm::NormWeights;
use super::workspace::Workspace;

/// What follows attention in a block.
pub(crate) enum FeedForward {
    /// `x += down(activation(up(norm(x))))`.
    Plain { norm: NormWeights, up: Linear, activation: Activation, down: Linear },
    /// `x += down(silu(gate(norm(x))) · up(norm(x)))`, where gates and what they are for are one layer.
    Gated { norm: NormWeights, gate_up: Linear, down: Linear },
}

impl FeedForward {
    /// Updates the residual stream.
    pub(super) fn forward(&self, step: &Step<'_>, work: &mut Workspace) {
        let (kernels, rows) = (step.kernels, step.rows);
        let (x, normed, inner) = (work.x.rows(rows), work.normed.rows(rows), work.inner.rows(rows));
        let residual = Epilogue { write: Write::Add, ..Epilogue::default() };
        match self {
            Self::Plain { norm, up, activation, down } => {
                kernels.norm(x, norm.view(), normed);
                kernels.next_product(Product::Up);
                kernels.linear(
                    normed,
                    up,
                    Epilogue { activation: *activation, write: Write::Replace },
                    inner,
                );
                kernels.next_product(Product::Down);
                kernels.linear(inner, down, residual, x);
            }
            Self::Gated { norm, gate_up, down } => {
                kernels.norm(x, norm.view(), normed);
                kernels.next_product(Product::Up);
                kernels.gated(normed, gate_up, inner);
                kernels.next_product(Product::Down);
                kernels.linear(inner, down, residual, x);
            }
        }
    }

    /// Width of what the first layer returns and the last one takes.
    pub(super) fn inner(&self) -> usize {
        let (Self::Plain { down, .. } | Self::Gated { down, .. }) = self;
        down.inputs()
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Plain { norm, up, down, .. } => norm.bytes() + up.bytes() + down.bytes(),
            Self::Gated { norm, gate_up, down } => norm.bytes() + gate_up.bytes() + down.bytes(),
        }
    }
}
