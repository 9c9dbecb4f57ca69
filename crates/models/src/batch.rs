//! One step's work for a model.

use std::ops::Range;
use std::sync::Arc;

use tensor::Ragged;

use crate::vision::{Features, Layout};

/// Where a token stands: its place in the text three times, or, inside a picture, time, height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Time; the only one that models without multimodal positions heed.
    pub t: u32,
    /// Height.
    pub h: u32,
    /// Width.
    pub w: u32,
}

impl Position {
    /// That of a token of a text.
    pub const fn text(at: u32) -> Self {
        Self { t: at, h: at, w: at }
    }

    pub(crate) fn is_text(self) -> bool {
        self.t == self.h && self.t == self.w
    }
}

/// Rows of a batch that stand for tokens of a picture.
#[derive(Clone, Debug)]
pub struct PictureRows {
    /// The first of them.
    pub first_row: usize,
    /// Which tokens of the picture they are.
    pub tokens: Range<usize>,
    /// What the tower has made of it.
    pub features: Arc<Features>,
}

/// A ragged batch: the new tokens of several sequences end to end, and which of their rows need logits.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Token ids, one per row.
    pub tokens: Vec<u32>,
    /// One per row.
    pub positions: Vec<Position>,
    /// Which rows belong to which sequence, and where its pages are.
    pub ragged: Ragged,
    /// Rows that show pictures; what their tokens embed to does not matter.
    pub pictures: Vec<PictureRows>,
    /// Rows whose logits are wanted, ascending.
    pub outputs: Vec<u32>,
    /// Rows whose hidden states are wanted, ascending and apart.
    pub states: Vec<Range<usize>>,
}

impl Batch {
    /// Forgets the content and keeps the memory.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.ragged.clear();
        self.pictures.clear();
        self.outputs.clear();
        self.states.clear();
    }

    /// Appends a sequence's `tokens`, which follow `context` tokens already in `pages` and stand where a text's do.
    pub fn push(&mut self, tokens: &[u32], context: usize, pages: &[u32]) {
        let first = context as u32;
        self.positions.extend((first..first + tokens.len() as u32).map(Position::text));
        self.append(tokens, context, pages);
    }

    /// As [`Self::push`], for tokens that stand as `layout` says, among which are pictures; `features` returns what the tower
    /// has made of the picture of a number, and is asked for those alone that have tokens here.
    pub fn push_seen(
        &mut self,
        (tokens, layout): (&[u32], &Layout),
        features: impl Fn(usize) -> Arc<Features>,
        context: usize,
        pages: &[u32],
    ) {
        let (first, end) = (self.tokens.len(), context + tokens.len());
        self.positions.extend((context..end).map(|at| layout.position(at)));
        for (number, placed) in layout.pictures.iter().enumerate() {
            let [from, to] = [placed.tokens.start.max(context), placed.tokens.end.min(end)];
            if from < to {
                let tokens = from - placed.tokens.start..to - placed.tokens.start;
                let first_row = first + from - context;
                self.pictures.push(PictureRows { first_row, tokens, features: features(number) });
            }
        }
        self.append(tokens, context, pages);
    }

    fn append(&mut self, tokens: &[u32], context: usize, pages: &[u32]) {
        self.tokens.extend_from_slice(tokens);
        self.ragged.push(context, tokens.len(), pages);
    }

    /// Asks for the logits of the last `rows` rows pushed.
    pub fn want_last(&mut self, rows: usize) {
        let end = self.tokens.len();
        self.outputs.extend((end.saturating_sub(rows)..end).map(|row| row as u32));
    }

    /// Asks for the hidden states of the last `rows` rows pushed.
    pub fn want_states(&mut self, rows: usize) {
        let end = self.tokens.len();
        self.states.push(end.saturating_sub(rows)..end);
    }
}
