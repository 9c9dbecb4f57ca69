//! A picture on its way through a tower.

use tensor::kernels::{Heads, Place, Tap};
use tensor::{Angles, Dtype, KvArena, KvLayout, PAGE_TOKENS, Ragged, TensorError};

use super::TowerWeights;
use crate::vision::{Features, Frame, Grid, Pixels, TowerShape};

/// What is done to all rows of a picture before the next is done to any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// From values to rows.
    Embed,
    /// Queries, keys and values of a block.
    Look(usize),
    /// The rest of a block.
    Mix(usize),
    /// Features of a level from the rows between two blocks.
    Tap(usize),
    /// Features of the first level.
    Merge,
}

/// A picture on its way through a tower, and the memory that it takes.
pub(super) struct Reading {
    grid: Grid,
    merge: usize,
    pixels: Pixels,
    pub(super) stage: Stage,
    /// Rows that have passed the stage.
    pub(super) done: usize,
    width: usize,
    /// The residual stream.
    x: Vec<f32>,
    queries: Vec<f32>,
    kv: KvArena,
    pages: Vec<u32>,
    /// Half the width of a head.
    half: usize,
    /// Cosines and sines of the places along an axis, half as many for each as a row of angles has.
    turns: Vec<(f32, f32)>,
    /// The angles of the rows that are read.
    cos: Vec<f32>,
    sin: Vec<f32>,
    /// `levels × tokens × width of the text`.
    features: Vec<f32>,
    ragged: Ragged,
}

impl Reading {
    /// A picture of which nothing is read.
    ///
    /// # Errors
    /// When memory is refused.
    pub(super) fn new(
        Frame { grid, pixels }: Frame,
        (weights, shape): (&TowerWeights, TowerShape),
        dtype: Dtype,
    ) -> Result<Self, TensorError> {
        let (rows, heads, merge) = (grid.patches(), weights.heads, weights.merge);
        assert!(
            rows > 0 && grid.h.is_multiple_of(merge) && grid.w.is_multiple_of(merge),
            "{grid:?} is in whole tokens"
        );
        let width = weights.embed.outputs();
        let layout = KvLayout { layers: 1, heads: heads.kv, dim: heads.dim, dtype: dtype.into() };
        let pages = rows.div_ceil(PAGE_TOKENS);
        let half = heads.dim / 2;
        let inverse = (0..half / 2).map(|j| weights.theta.powf(-2.0 * j as f64 / half as f64));
        let inverse: Vec<f64> = inverse.collect();
        let along = (0..grid.h.max(grid.w)).flat_map(|at| inverse.iter().map(move |inv| at as f64 * inv));
        let turns = along.map(|angle| (angle.cos() as f32, angle.sin() as f32)).collect();
        Ok(Self {
            grid,
            merge,
            pixels,
            stage: Stage::Embed,
            done: 0,
            width,
            x: vec![0.0; rows * width],
            queries: vec![0.0; rows * heads.query * heads.dim],
            kv: KvArena::new(layout, pages)?,
            pages: (0..pages as u32).collect(),
            half,
            turns,
            cos: Vec::new(),
            sin: Vec::new(),
            features: vec![0.0; shape.levels * grid.tokens(merge) * shape.width],
            ragged: Ragged::default(),
        })
    }

    /// Rows of the picture: its patches.
    pub(super) fn rows(&self) -> usize {
        self.grid.patches()
    }

    /// Goes on to a stage that no row has passed.
    pub(super) fn enter(&mut self, stage: Stage) {
        (self.stage, self.done) = (stage, 0);
    }

    /// What has come of it.
    pub(super) fn finish(self, shape: TowerShape) -> Features {
        Features::new(self.grid.tokens(self.merge), shape.width, self.features)
    }

    /// The next rows of the residual stream.
    pub(super) fn x(&mut self, part: usize) -> &mut [f32] {
        &mut self.x[self.done * self.width..(self.done + part) * self.width]
    }

    /// Writes the values of the next patches.
    pub(super) fn fill(&self, part: usize, values: &mut [f32]) {
        self.pixels.fill(self.done..self.done + part, values);
    }

    /// Between which learned positions the next patches stand, and how near to each: the corners of the picture are the
    /// corners of the table.
    pub(super) fn taps(&self, part: usize, side: usize) -> Vec<[Tap; 4]> {
        let along = |at: usize, count: usize| {
            let place = if count > 1 { (at * (side - 1)) as f64 / (count - 1) as f64 } else { 0.0 };
            let low = place.floor() as usize;
            (low, (low + 1).min(side - 1), (place - place.floor()) as f32)
        };
        let of = |index: usize| {
            let (row, column) = cell(self.grid, self.merge, index);
            let ((top, bottom, down), (left, right, over)) =
                (along(row, self.grid.h), along(column, self.grid.w));
            let tap =
                |row: usize, column: usize, weight: f32| Tap { row: (row * side + column) as u32, weight };
            [
                tap(top, left, (1.0 - down) * (1.0 - over)),
                tap(top, right, (1.0 - down) * over),
                tap(bottom, left, down * (1.0 - over)),
                tap(bottom, right, down * over),
            ]
        };
        (self.done..self.done + part).map(of).collect()
    }

    /// The angles of the next rows: first those of the row of the picture, then those of its column.
    pub(super) fn angles(&mut self, part: usize) -> Angles<'_> {
        let quarter = self.half / 2;
        self.cos.clear();
        self.sin.clear();
        for index in self.done..self.done + part {
            let (row, column) = cell(self.grid, self.merge, index);
            for at in [row, column] {
                let turns = &self.turns[at * quarter..(at + 1) * quarter];
                self.cos.extend(turns.iter().map(|turn| turn.0));
                self.sin.extend(turns.iter().map(|turn| turn.1));
            }
        }
        Angles { cos: &self.cos, sin: &self.sin, half: self.half }
    }

    /// Where the keys and values of the next rows go.
    pub(super) fn written(&mut self, part: usize) -> (&mut KvArena, &Ragged) {
        self.ragged.clear();
        self.ragged.push(self.done, part, &self.pages);
        (&mut self.kv, &self.ragged)
    }

    /// Keeps the queries of the next rows until all keys are there.
    pub(super) fn keep_queries(&mut self, qkv: &[f32], part: usize) {
        let width = self.queries.len() / self.rows();
        let kept = self.queries[self.done * width..(self.done + part) * width].chunks_exact_mut(width);
        for (kept, row) in kept.zip(qkv.chunks_exact(qkv.len() / part)) {
            kept.copy_from_slice(&row[..width]);
        }
    }

    /// The queries of the next rows, and all keys and values.
    pub(super) fn asked(&mut self, part: usize) -> (&[f32], &KvArena, &Ragged) {
        let (rows, width) = (self.rows(), self.queries.len() / self.rows());
        self.ragged.clear();
        self.ragged.push(rows - part, part, &self.pages);
        (&self.queries[self.done * width..(self.done + part) * width], &self.kv, &self.ragged)
    }

    /// Where the next tokens' features of a level go.
    pub(super) fn features(&mut self, level: usize, (tokens, width): (usize, usize)) -> &mut [f32] {
        let group = self.merge * self.merge;
        let first = level * self.grid.tokens(self.merge) + self.done / group;
        &mut self.features[first * width..(first + tokens) * width]
    }
}

/// Row and column of the patch number `index`: the patches of a token follow each other.
fn cell(grid: Grid, merge: usize, index: usize) -> (usize, usize) {
    let (token, inside) = (index / (merge * merge), index % (merge * merge));
    let across = grid.w / merge;
    (token / across * merge + inside / merge, token % across * merge + inside % merge)
}

/// Where queries and keys stand in a fused row.
pub(super) fn rotated(Heads { query, kv, dim }: Heads) -> [Place; 2] {
    let queries = Place { stride: (query + 2 * kv) * dim, offset: 0, heads: query, dim };
    [queries, Place { offset: query * dim, heads: kv, ..queries }]
}
