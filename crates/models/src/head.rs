//! What is made of the hidden states of a text: a vector, or a score.

use std::sync::Arc;

use tensor::Kernels;

use crate::layers::Classifier;

/// How the hidden states of a text become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean, special tokens included.
    Mean,
    /// The first of them.
    Cls,
    /// The largest value of each column.
    Max,
    /// The last of them.
    Last,
}

/// What happens to a pooled vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scaling {
    /// Nothing.
    AsIs,
    /// It is divided by its L2 norm.
    Unit,
}

/// What a classifier's logit becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Squash {
    /// 1 / (1 + e⁻ˣ): between 0 and 1.
    Sigmoid,
    /// The logit itself.
    Identity,
}

/// What an encoder's hidden states are for.
pub(crate) enum Head {
    /// Vectors, to be compared by their cosine.
    Embedding(Pooling, Scaling),
    /// A score.
    Classifier(Box<Classifier>, Squash),
}

/// A head with its working memory, which grows to the largest batch and is kept.
pub(crate) struct HeadStep {
    /// The same for all twins.
    pub(crate) head: Arc<Head>,
    kernels: Arc<dyn Kernels>,
    pooled: Vec<f32>,
    out: Vec<f32>,
    ones: Vec<usize>,
}

impl HeadStep {
    pub(crate) fn new(head: Head, kernels: Arc<dyn Kernels>) -> Self {
        Self::over(Arc::new(head), kernels)
    }

    /// The same head with working memory of its own.
    pub(crate) fn twin(&self, kernels: Arc<dyn Kernels>) -> Self {
        Self::over(Arc::clone(&self.head), kernels)
    }

    fn over(head: Arc<Head>, kernels: Arc<dyn Kernels>) -> Self {
        Self { head, kernels, pooled: Vec::new(), out: Vec::new(), ones: Vec::new() }
    }

    /// Numbers per text, where its hidden states are `hidden` wide.
    pub(crate) fn width(&self, hidden: usize) -> usize {
        match *self.head {
            Head::Embedding(..) => hidden,
            Head::Classifier(..) => 1,
        }
    }

    /// The vectors or scores of texts whose hidden states, `width` wide, stand end to end in `states`.
    pub(crate) fn forward(&mut self, states: &[f32], width: usize, lengths: &[usize]) -> &[f32] {
        let texts = lengths.len();
        self.out.resize(texts * self.width(width), 0.0);
        match &*self.head {
            Head::Embedding(Pooling::Mean, Scaling::Unit) => {
                self.kernels.mean_pool_normalize(states, width, lengths, &mut self.out);
            }
            Head::Embedding(pooling, Scaling::AsIs) => {
                pool(states, lengths, *pooling, (width, &mut self.out))
            }
            Head::Embedding(pooling, Scaling::Unit) => {
                self.pooled.resize(texts * width, 0.0);
                self.ones.resize(texts, 1);
                pool(states, lengths, *pooling, (width, &mut self.pooled));
                self.kernels.mean_pool_normalize(&self.pooled, width, &self.ones, &mut self.out);
            }
            Head::Classifier(classifier, squash) => {
                let mut first = vec![0.0; texts * width];
                self.pooled.resize(texts * width, 0.0);
                pool(states, lengths, Pooling::Cls, (width, &mut first));
                classifier.forward(&*self.kernels, &first, (&mut self.pooled, &mut self.out));
                if *squash == Squash::Sigmoid {
                    self.out.iter_mut().for_each(|score| *score = 1.0 / (1.0 + (-*score).exp()));
                }
            }
        }
        &self.out
    }
}

/// One row of `out` per text.
fn pool(states: &[f32], lengths: &[usize], pooling: Pooling, (width, out): (usize, &mut [f32])) {
    let mut rest = states;
    for (rows, out) in lengths.iter().zip(out.chunks_exact_mut(width)) {
        let (text, after) = rest.split_at(rows * width);
        rest = after;
        let mut rows = text.chunks_exact(width);
        match pooling {
            Pooling::Cls => out.copy_from_slice(&text[..width]),
            Pooling::Last => out.copy_from_slice(&text[text.len() - width..]),
            Pooling::Max => {
                out.fill(f32::NEG_INFINITY);
                rows.for_each(|row| out.iter_mut().zip(row).for_each(|(out, value)| *out = out.max(*value)));
            }
            Pooling::Mean => {
                out.fill(0.0);
                let count = rows.len() as f32;
                rows.by_ref().for_each(|row| out.iter_mut().zip(row).for_each(|(out, value)| *out += value));
                out.iter_mut().for_each(|out| *out /= count);
            }
        }
    }
}
