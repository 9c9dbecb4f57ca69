//! From the first hidden state of a text to one score.

use tensor::{Epilogue, Kernels, Linear};

use super::weights::{Part, Stored};
use crate::ModelError;
use crate::family::Source;
use crate::loaded::Holding;

/// `classifier(tanh(pooler(first hidden state)))`: the head of `…ForSequenceClassification` with one label.
pub(crate) struct Classifier {
    pooler: Linear,
    classifier: Linear,
}

impl Classifier {
    /// Reads `{pooler}` and `{classifier}`; neither is ever quantised, since every score hangs on them.
    pub(crate) fn load(
        source: &Source<'_>,
        hidden: usize,
        [pooler, classifier]: [&str; 2],
    ) -> Result<Self, ModelError> {
        let linear = |name, outputs| {
            source.stacked(hidden, (Stored::Rows, &[Part::biased(name, outputs)]), Holding::Floats)
        };
        Ok(Self { pooler: linear(pooler, hidden)?, classifier: linear(classifier, 1)? })
    }

    /// A score for each row of `first`, the first hidden states of some texts, which are overwritten.
    pub(crate) fn forward(
        &self,
        kernels: &dyn Kernels,
        first: &[f32],
        (pooled, scores): (&mut [f32], &mut [f32]),
    ) {
        kernels.linear(first, &self.pooler, Epilogue::default(), pooled);
        pooled.iter_mut().for_each(|value| *value = value.tanh());
        kernels.linear(pooled, &self.classifier, Epilogue::default(), scores);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.pooler.bytes() + self.classifier.bytes()
    }
}
