//! One step's work for a model.

use tensor::Ragged;

/// A ragged batch: the new tokens of several sequences end to end, and which of their rows need logits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Token ids, one per row.
    pub tokens: Vec<u32>,
    /// Which rows belong to which sequence, and where its pages are.
    pub ragged: Ragged,
    /// Rows whose logits are wanted, ascending.
    pub outputs: Vec<u32>,
}

impl Batch {
    /// Forgets the content and keeps the memory.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.ragged.clear();
        self.outputs.clear();
    }

    /// Appends a sequence's `tokens`, which follow `context` tokens already in `pages`.
    pub fn push(&mut self, tokens: &[u32], context: usize, pages: &[u32]) {
        self.tokens.extend_from_slice(tokens);
        self.ragged.push(context, tokens.len(), pages);
    }

    /// Asks for the logits of the last row pushed.
    pub fn want_last(&mut self) {
        if let Some(last) = self.tokens.len().checked_sub(1) {
            self.outputs.push(last as u32);
        }
    }
}
