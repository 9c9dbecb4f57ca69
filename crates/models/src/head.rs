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

impl Pooling {
    /// Whether the last token's hidden state says it all, so that those before it are not needed.
    pub fn needs_only_the_last(self) -> bool {
        self == Self::Last
    }
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
    let (mut rest, mut gathering) = (states, Gathering::new(pooling));
    for (rows, out) in lengths.iter().zip(out.chunks_exact_mut(width)) {
        let (text, after) = rest.split_at(rows * width);
        rest = after;
        gathering.clear();
        gathering.add(text, width);
        gathering.vector().zip(out).for_each(|(value, out)| *out = value);
    }
}

/// The vector of one text while its hidden states come. They are taken one by one and in order, so it changes no bit of the
/// vector how many come at once.
#[derive(Clone, Debug)]
pub struct Gathering {
    pooling: Pooling,
    /// By column: what the rows so far have come to.
    values: Vec<f64>,
    rows: usize,
}

impl Gathering {
    /// Of a text of which nothing has come.
    pub fn new(pooling: Pooling) -> Self {
        Self { pooling, values: Vec::new(), rows: 0 }
    }

    /// How its states become one vector.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// Takes the next states, each of so many columns.
    pub fn add(&mut self, states: &[f32], width: usize) {
        for row in states.chunks_exact(width) {
            if self.rows == 0 || self.pooling == Pooling::Last {
                self.values.clear();
                self.values.extend(row.iter().map(|value| f64::from(*value)));
            } else {
                let columns = self.values.iter_mut().zip(row.iter().map(|value| f64::from(*value)));
                match self.pooling {
                    Pooling::Mean => columns.for_each(|(sum, value)| *sum += value),
                    Pooling::Max => columns.for_each(|(most, value)| *most = most.max(value)),
                    Pooling::Cls | Pooling::Last => {}
                }
            }
            self.rows += 1;
        }
    }

    /// What they have come to.
    pub fn vector(&self) -> impl Iterator<Item = f32> + '_ {
        let count = if self.pooling == Pooling::Mean { self.rows as f64 } else { 1.0 };
        self.values.iter().map(move |value| (value / count) as f32)
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.rows = 0;
        self.values.clear();
    }
}
