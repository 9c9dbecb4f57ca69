//! A vision tower that reads one picture at a time, in parts of as much work as it is given.
//!
//! Every part is some rows of one stage. Attention needs the keys and values of all rows, so a block has two stages:
//! the first makes queries, keys and values of the rows and writes the latter to pages, the second looks at all of them
//! and does the rest. Rows do not depend on each other otherwise, so it does not matter where a part ends.

mod reading;

use std::sync::Arc;

use tensor::kernels::Heads;
use tensor::{Activation, Dtype, Epilogue, Fused, Kernels, Linear, Queries, TensorError, Write};

use self::reading::{Reading, Stage};
use super::norm::NormWeights;
use super::workspace::Buffer;
use crate::family::Source;
use crate::vision::{Features, Frame, Grid, Tower, TowerShape};

/// The most rows of a part.
const MOST_ROWS: usize = 512;

/// Rows that a part has at least, since fewer would not be worth reading the weights for.
const LEAST_ROWS: usize = 16;

/// `x += out(attention(qkv(before(x))))`, then `x += down(activation(up(between(x))))`.
pub(crate) struct TowerBlock {
    pub(crate) before: NormWeights,
    /// Queries, keys and values fused.
    pub(crate) qkv: Linear,
    pub(crate) out: Linear,
    pub(crate) between: NormWeights,
    pub(crate) up: Linear,
    pub(crate) activation: Activation,
    pub(crate) down: Linear,
}

/// `down(gelu(up(norm(x))))` over the patches of a token together.
pub(crate) struct Merger {
    /// Over a patch or over all patches of a token, as wide as it is.
    pub(crate) norm: NormWeights,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
}

/// The weights of a tower.
pub(crate) struct TowerWeights {
    /// From the values of a patch.
    pub(crate) embed: Linear,
    /// Learned positions, `side × side` rows.
    pub(crate) positions: Vec<f32>,
    pub(crate) side: usize,
    /// Base of the rotary frequencies.
    pub(crate) theta: f64,
    pub(crate) heads: Heads,
    /// So many patches along each axis become one token.
    pub(crate) merge: usize,
    pub(crate) blocks: Vec<TowerBlock>,
    /// After which blocks something is handed to the text layers, and by what.
    pub(crate) taps: Vec<(usize, Merger)>,
    pub(crate) merger: Merger,
}

/// A tower at work.
pub(crate) struct VisionTower {
    kernels: Arc<dyn Kernels>,
    shape: TowerShape,
    /// Type of keys and values.
    dtype: Dtype,
    /// The same for all twins.
    weights: Arc<TowerWeights>,
    work: Workspace,
    reading: Option<Reading>,
}

/// The buffers of a part.
struct Workspace {
    values: Buffer,
    normed: Buffer,
    qkv: Buffer,
    attended: Buffer,
    inner: Buffer,
}

impl TowerWeights {
    /// Buffers for a part.
    fn workspace(&self) -> Workspace {
        let Self { embed, heads, blocks, .. } = self;
        let hidden = embed.outputs();
        let inner = blocks.iter().map(|block| block.up.outputs()).max().unwrap_or(0);
        Workspace {
            values: Buffer::new(MOST_ROWS, embed.inputs()),
            normed: Buffer::new(MOST_ROWS, hidden),
            qkv: Buffer::new(MOST_ROWS, heads.fused()),
            attended: Buffer::new(MOST_ROWS, hidden),
            // The rows of a merger are as many times wider as there are fewer of them.
            inner: Buffer::new(MOST_ROWS, inner.max(hidden)),
        }
    }
}

impl VisionTower {
    /// Puts the weights to work for patches of so many pixels a side and frames.
    pub(crate) fn new(
        source: &Source<'_>,
        weights: TowerWeights,
        (patch, temporal): (usize, usize),
        parameters: u64,
    ) -> Self {
        let TowerWeights { embed, blocks, taps, merger, .. } = &weights;
        let work = weights.workspace();
        let mergers = taps.iter().map(|(_, merger)| merger).chain([merger]);
        let shape = TowerShape {
            patch_values: embed.inputs(),
            levels: taps.len() + 1,
            width: merger.down.outputs(),
            patch,
            temporal,
            merge: weights.merge,
            parameters,
            weight_bytes: embed.bytes()
                + size_of_val(weights.positions.as_slice())
                + blocks.iter().map(TowerBlock::bytes).sum::<usize>()
                + mergers.map(Merger::bytes).sum::<usize>(),
            workspace_bytes: [&work.values, &work.normed, &work.qkv, &work.attended, &work.inner]
                .map(Buffer::bytes)
                .iter()
                .sum(),
        };
        let (kernels, weights) = (Arc::clone(&source.kernels), Arc::new(weights));
        Self { kernels, shape, dtype: source.dtype, weights, work, reading: None }
    }

    /// Multiplications for one row of a stage, in a picture of so many.
    fn row_work(&self, stage: Stage, rows: usize) -> u64 {
        let TowerWeights { embed, blocks, taps, merger, merge, heads, .. } = &*self.weights;
        let of = |linear: &Linear| linear.inputs() * linear.outputs();
        let merging = |merger: &Merger| (of(&merger.up) + of(&merger.down)) / (merge * merge);
        let work = match stage {
            Stage::Embed => of(embed),
            Stage::Look(number) => of(&blocks[number].qkv),
            Stage::Mix(number) => {
                let block = &blocks[number];
                2 * rows * heads.query * heads.dim + of(&block.out) + of(&block.up) + of(&block.down)
            }
            Stage::Tap(level) => merging(&taps[level].1),
            Stage::Merge => merging(merger),
        };
        work as u64
    }

    /// What follows a stage.
    fn after(&self, stage: Stage) -> Option<Stage> {
        let next = |number: usize| {
            if number < self.weights.blocks.len() { Stage::Look(number) } else { Stage::Merge }
        };
        let taps = &self.weights.taps;
        match stage {
            Stage::Embed => Some(next(0)),
            Stage::Look(number) => Some(Stage::Mix(number)),
            Stage::Mix(number) => match taps.iter().position(|(block, _)| *block == number) {
                Some(level) => Some(Stage::Tap(level)),
                None => Some(next(number + 1)),
            },
            Stage::Tap(level) => Some(next(taps[level].0 + 1)),
            Stage::Merge => None,
        }
    }

    fn stages(&self) -> impl Iterator<Item = Stage> + '_ {
        std::iter::successors(Some(Stage::Embed), |stage| self.after(*stage))
    }
}

impl Tower for VisionTower {
    fn shape(&self) -> TowerShape {
        self.shape
    }

    fn twin(&self, kernels: Arc<dyn Kernels>) -> Box<dyn Tower> {
        let Self { shape, dtype, ref weights, .. } = *self;
        let shape = TowerShape { weight_bytes: 0, ..shape };
        let work = weights.workspace();
        Box::new(Self { kernels, shape, dtype, weights: Arc::clone(weights), work, reading: None })
    }

    fn work(&self, grid: Grid) -> u64 {
        let rows = grid.patches();
        self.stages().map(|stage| self.row_work(stage, rows) * rows as u64).sum()
    }

    fn begin(&mut self, frame: Frame) -> Result<(), TensorError> {
        self.reading = None;
        self.reading = Some(Reading::new(frame, (&self.weights, self.shape), self.dtype)?);
        Ok(())
    }

    fn advance(&mut self, work: u64) -> Option<Features> {
        let mut reading = self.reading.take()?;
        let group = self.weights.merge * self.weights.merge;
        let least = LEAST_ROWS.div_ceil(group) * group;
        let (rows, mut left) = (reading.rows(), work);
        loop {
            let cost = self.row_work(reading.stage, rows);
            let affordable = usize::try_from(left / cost.max(1)).unwrap_or(usize::MAX) / group * group;
            let most = (MOST_ROWS / group).max(1) * group;
            let part = affordable.clamp(least.min(most), most).min(rows - reading.done);
            self.weights.run(&mut reading, part, (&*self.kernels, &mut self.work));
            left = left.saturating_sub(cost * part as u64);
            if reading.done == rows {
                match self.after(reading.stage) {
                    None => return Some(reading.finish(self.shape)),
                    Some(next) => reading.enter(next),
                }
            }
            if left < self.row_work(reading.stage, rows) * least as u64 {
                self.reading = Some(reading);
                return None;
            }
        }
    }

    fn abandon(&mut self) {
        self.reading = None;
    }
}

impl TowerWeights {
    /// Takes the next `part` rows of a picture through the stage that it is in.
    fn run(&self, reading: &mut Reading, part: usize, (kernels, work): (&dyn Kernels, &mut Workspace)) {
        match reading.stage {
            Stage::Embed => self.embed(reading, part, kernels, work),
            Stage::Look(number) => self.look(reading, (number, part), kernels, work),
            Stage::Mix(number) => self.mix(reading, (number, part), kernels, work),
            Stage::Tap(level) => self.taps[level].1.run(reading, (level + 1, part), kernels, work),
            Stage::Merge => self.merger.run(reading, (0, part), kernels, work),
        }
        reading.done += part;
    }

    fn embed(&self, reading: &mut Reading, part: usize, kernels: &dyn Kernels, work: &mut Workspace) {
        let (taps, values) = (reading.taps(part, self.side), work.values.rows(part));
        reading.fill(part, values);
        let x = reading.x(part);
        kernels.linear(values, &self.embed, Epilogue::default(), x);
        kernels.interpolate(&self.positions, self.embed.outputs(), &taps, x);
    }

    /// Queries, keys and values.
    fn look(
        &self,
        reading: &mut Reading,
        (number, part): (usize, usize),
        kernels: &dyn Kernels,
        work: &mut Workspace,
    ) {
        let block = &self.blocks[number];
        let (normed, qkv) = (work.normed.rows(part), work.qkv.rows(part));
        kernels.norm(reading.x(part), block.before.view(), normed);
        kernels.linear(normed, &block.qkv, Epilogue::default(), qkv);
        let angles = reading.angles(part);
        for place in reading::rotated(self.heads) {
            kernels.norm_rope(qkv, place, None, angles);
        }
        let (kv, ragged) = reading.written(part);
        kernels.kv_write(Fused { rows: qkv, heads: self.heads }, ragged, (kv, 0));
        reading.keep_queries(qkv, part);
    }

    /// Attention to the whole picture, and what follows it.
    fn mix(
        &self,
        reading: &mut Reading,
        (number, part): (usize, usize),
        kernels: &dyn Kernels,
        work: &mut Workspace,
    ) {
        let block = &self.blocks[number];
        let (attended, normed) = (work.attended.rows(part), work.normed.rows(part));
        let inner = &mut work.inner.rows(part)[..part * block.up.outputs()];
        let (queries, kv, ragged) = reading.asked(part);
        kernels.attend_all(Queries { rows: queries, heads: self.heads }, ragged, (kv, 0), attended);
        let residual = Epilogue { write: Write::Add, ..Epilogue::default() };
        let x = reading.x(part);
        kernels.linear(attended, &block.out, residual, x);
        kernels.norm(x, block.between.view(), normed);
        kernels.linear(
            normed,
            &block.up,
            Epilogue { activation: block.activation, write: Write::Replace },
            inner,
        );
        kernels.linear(inner, &block.down, residual, x);
    }
}

impl TowerBlock {
    fn bytes(&self) -> usize {
        let linears = [&self.qkv, &self.out, &self.up, &self.down];
        let norms = self.before.bytes() + self.between.bytes();
        linears.iter().map(|linear| linear.bytes()).sum::<usize>() + norms
    }
}

impl Merger {
    /// Features of a level. The patches of a token follow each other, so its row is theirs end to end.
    fn run(
        &self,
        reading: &mut Reading,
        (level, part): (usize, usize),
        kernels: &dyn Kernels,
        work: &mut Workspace,
    ) {
        let normed = work.normed.rows(part);
        kernels.norm(reading.x(part), self.norm.view(), normed);
        let tokens = normed.len() / self.up.inputs();
        let inner = &mut work.inner.rows(part)[..tokens * self.up.outputs()];
        kernels.linear(
            normed,
            &self.up,
            Epilogue { activation: Activation::GeluErf, write: Write::Replace },
            inner,
        );
        let out = reading.features(level, (tokens, self.down.outputs()));
        kernels.linear(inner, &self.down, Epilogue::default(), out);
    }

    fn bytes(&self) -> usize {
        self.norm.bytes() + self.up.bytes() + self.down.bytes()
    }
}
