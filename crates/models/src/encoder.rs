//! The seam of models that read whole texts and generate nothing.

use std::sync::Arc;

use tensor::Kernels;

use crate::tokenizer::Sentence;

/// What an engine must know about an encoder to plan for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncoderShape {
    /// Rows of the embedding table.
    pub vocabulary: usize,
    /// Token types that are told apart.
    pub types: usize,
    /// The longest text, in tokens.
    pub max_positions: usize,
    /// Width of a hidden state.
    pub hidden: usize,
    /// Parameters, for people.
    pub parameters: u64,
    /// Bytes of packed weights in memory, 0 of a twin. Embedding tables stay mapped files and do not count.
    pub weight_bytes: usize,
    /// Bytes of activations, sized at load for the largest batch.
    pub workspace_bytes: usize,
}

/// A bidirectional model: every token of a text sees every other one of the same text.
///
/// For the implementer: `forward` returns the last hidden states, `rows × hidden`, row-major; the slice lives until the
/// next call. A text's states are a function of that text alone, bit for bit. Working memory is sized at load for
/// [`crate::LoadOptions::max_batch_tokens`] rows and never grows. Ids, types and lengths are the caller's duty; they are
/// below `vocabulary`, below `types`, and at most `max_positions`.
pub trait Encoder: Send {
    /// What an engine must know to plan.
    fn shape(&self) -> EncoderShape;

    /// As [`crate::CausalLm::twin`].
    fn twin(&self, kernels: Arc<dyn Kernels>) -> Box<dyn Encoder>;

    /// Runs one ragged batch.
    fn forward(&mut self, batch: &EncoderBatch) -> &[f32];
}

/// A ragged batch of whole texts, end to end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncoderBatch {
    /// Token ids, one per row.
    pub tokens: Vec<u32>,
    /// Token types, one per row.
    pub types: Vec<u32>,
    /// The position of each row in its text.
    pub positions: Vec<u32>,
    /// Rows of each text.
    pub lengths: Vec<usize>,
}

impl EncoderBatch {
    /// Forgets the content and keeps the memory.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.types.clear();
        self.positions.clear();
        self.lengths.clear();
    }

    /// Appends a text.
    pub fn push(&mut self, sentence: &Sentence) {
        let rows = sentence.ids.len();
        self.tokens.extend_from_slice(&sentence.ids);
        self.types.extend_from_slice(&sentence.types);
        self.positions.extend((0..rows).map(|row| row as u32));
        self.lengths.push(rows);
    }
}
