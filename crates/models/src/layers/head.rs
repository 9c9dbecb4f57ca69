//! From the residual stream to logits, for the wanted rows only.

use std::ops::Range;

use tensor::stored::TensorView;
use tensor::{Epilogue, Linear, Product};

use super::decoder::Step;
use super::norm::NormWeights;
use super::weights::{Found, Part, Stored};
use super::workspace::Workspace;
use crate::ModelError;
use crate::config::Config;
use crate::family::Source;
use crate::loaded::Holding;

/// The matrix of the projection, where it is one of its own; and its name in the cache in any case.
const HEAD: &str = "lm_head.weight";

/// The last norm and the projection to the vocabulary.
pub(crate) struct Head {
    norm: NormWeights,
    projection: Linear,
}

/// Where the matrix of the projection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tying {
    /// It is the embedding table; a stored `lm_head.weight` is redundant.
    Tied,
    /// It is `lm_head.weight`.
    Untied,
}

impl Tying {
    /// What config.json says, or else what its architecture implies.
    pub(crate) fn read(config: &Config, implied: Self) -> Result<Self, ModelError> {
        Ok(match config.flag("tie_word_embeddings")? {
            None => implied,
            Some(true) => Self::Tied,
            Some(false) => Self::Untied,
        })
    }
}

impl Head {
    /// Packs the projection; `embedding` is `[vocabulary, hidden]`.
    pub(crate) fn load(
        source: &Source<'_>,
        norm: NormWeights,
        embedding: &TensorView,
        tying: Tying,
    ) -> Result<Self, ModelError> {
        let [vocabulary, hidden] = [embedding.shape()[0], embedding.shape()[1]];
        let projection = match tying {
            Tying::Untied => {
                let parts = [Part::plain("lm_head", vocabulary)];
                source.stacked(hidden, (Stored::Rows, &parts), source.holding.head())?
            }
            Tying::Tied => {
                // A quantised folder has the table as it was, for the tokens, and once more quantised.
                let holding = source.holding.head();
                let weight = match holding {
                    Holding::Quantised(scheme) if source.checkpoint.is_quantised() => {
                        source.checkpoint.matrix(HEAD, [vocabulary, hidden], scheme)?
                    }
                    _ => embedding.clone(),
                };
                let found = [Found { name: HEAD.to_owned(), outputs: vocabulary, weight, bias: None }];
                source.packed(hidden, (Stored::Rows, &found), holding)?
            }
        };
        Ok(Self { norm, projection })
    }

    /// Puts the hidden states of `wanted` rows behind the last norm into `normed`, which the blocks need no more, and
    /// returns how many there are.
    pub(super) fn norm_states(
        &self,
        step: &Step<'_>,
        wanted: &[Range<usize>],
        work: &mut Workspace,
    ) -> usize {
        let width = work.x.width();
        let mut done = 0;
        for rows in wanted {
            let next = done + rows.len();
            let x = &work.x.rows(step.rows)[rows.start * width..rows.end * width];
            step.kernels.norm(x, self.norm.view(), &mut work.normed.rows(next)[done * width..]);
            done = next;
        }
        done
    }

    /// Makes the logits of the rows in `outputs`, in their order.
    pub(super) fn forward(&self, step: &Step<'_>, outputs: &[u32], work: &mut Workspace) {
        let (width, wanted) = (work.x.width(), outputs.len());
        let x = work.x.rows(step.rows);
        let picked = work.picked.rows(wanted);
        for (row, picked) in outputs.iter().zip(picked.chunks_exact_mut(width)) {
            let first = *row as usize * width;
            picked.copy_from_slice(&x[first..first + width]);
        }
        let (normed, logits) = (work.picked_normed.rows(wanted), work.logits.rows(wanted));
        step.kernels.norm(picked, self.norm.view(), normed);
        step.kernels.next_product(Product::Head);
        step.kernels.linear(normed, &self.projection, Epilogue::default(), logits);
    }

    pub(super) fn bytes(&self) -> usize {
        self.norm.bytes() + self.projection.bytes()
    }
}
