//! The shape of a ragged batch: sequences of different lengths laid end to end, no padding anywhere.

use std::ops::Range;

/// One sequence's part of a ragged batch: `rows` new tokens that follow `context` tokens already in its KV pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// First row of the batch that belongs to the sequence.
    pub first_row: usize,
    /// Number of rows: 1 when decoding, the chunk when reading a prompt.
    pub rows: usize,
    /// Tokens of the sequence that are in the KV pages before this batch. Row `i` has position `context + i`.
    pub context: usize,
    /// Where the sequence's page table stands in [`Ragged::pages`]; it covers `context + rows` tokens.
    pub pages: Range<usize>,
}

/// The spans of a batch, in row order and without gaps, and the page tables they refer to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ragged {
    /// One per sequence.
    pub spans: Vec<Span>,
    /// Page tables of all sequences, end to end.
    pub pages: Vec<u32>,
}

impl Ragged {
    /// Rows of all spans together.
    pub fn rows(&self) -> usize {
        self.spans.last().map_or(0, |span| span.first_row + span.rows)
    }

    /// Forgets all spans and keeps the memory.
    pub fn clear(&mut self) {
        self.spans.clear();
        self.pages.clear();
    }

    /// Appends a sequence with `rows` new tokens after `context` old ones.
    pub fn push(&mut self, context: usize, rows: usize, pages: &[u32]) {
        let first_row = self.rows();
        let first_page = self.pages.len();
        self.pages.extend_from_slice(pages);
        self.spans.push(Span { first_row, rows, context, pages: first_page..self.pages.len() });
    }
}
