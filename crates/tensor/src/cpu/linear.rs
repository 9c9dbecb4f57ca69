//! The linear layer: activations rounded once, panels split over the workers, row blocks against panels.
//!
//! A panel is read by one worker, block of rows after block of rows, while it stays in the second-level cache. No sum
//! is ever split over the inputs between workers or blocks, so no result depends on rows or threads.

mod block;
mod epilogue;
mod grouped;
mod product;
mod round;
mod tiles;
mod whole;

use crate::packed::{Grouping, PANEL, Panel, Strip};
use crate::quantised::Bits;
use crate::{Dtype, Epilogue, Isa, Linear, Pool};

use self::block::{Operands, ROWS, Sums};
use self::grouped::{GroupSums, Grouped};
use self::product::{Paired, Product, Single, Spread};
use self::round::{Form, Round};
use self::tiles::{Tiled, TiledWhole, tile_words, unpacked_words};
use self::whole::Whole;
use self::whole::activations::{Quantise, RowLayout};
use super::dispatch::{Level, Work};
use super::lanes::{Avx2, Avx512Bf16, Avx512Vnni, Lanes, WholeLanes};
use super::split::{self, Claims, Disjoint};
use super::tiles::{Hardware, SIDE};

/// Products below which a call stays on the calling thread.
const ALONE: usize = 1 << 17;

/// Elements below which rounding stays on the calling thread.
const ROUND_ALONE: usize = 1 << 16;

/// A call, checked.
pub(super) struct Call<'a> {
    pub(super) x: &'a [f32],
    pub(super) rows: usize,
    pub(super) weight: &'a Linear,
    pub(super) finish: Finish,
    pub(super) out: &'a mut [f32],
}

/// What becomes of the sums.
#[derive(Clone, Copy)]
pub(super) enum Finish {
    /// Each is an output.
    Each(Epilogue),
    /// Gates and what they are for are outputs together.
    Gated,
}

/// Memory of calls, which grows to the largest one.
#[derive(Default)]
pub(super) struct Workspace {
    /// Activations in the form that the product reads.
    activations: Vec<f32>,
    /// Sums of the activations of every group of a quantised layer.
    group_sums: Vec<f32>,
    /// A panel of 4-bit numbers per worker, as bytes for tiles.
    unpacked: Vec<f32>,
}

impl Call<'_> {
    /// Computes the layer. `workspace` grows to the largest call.
    pub(super) fn run(self, level: Level, pool: &Pool, workspace: &mut Workspace) {
        match self.weight.grouping() {
            Some(grouping) if self.weight.dtype() == Dtype::F32 => {
                self.run_grouped(grouping, (level, pool), workspace);
            }
            Some(grouping) => self.run_whole(grouping, (level, pool), workspace),
            None => self.run_floats((level, pool), workspace),
        }
    }

    /// f32 and bf16 weights.
    fn run_floats(self, (level, pool): (Level, &Pool), workspace: &mut Workspace) {
        let form = match self.weight.dtype() {
            Dtype::F32 => Form::Exact,
            _ if level.isa() < Isa::Avx512Bf16 => Form::Widened,
            _ => Form::Pairs,
        };
        let (x, stride) = match form {
            Form::Exact => (self.x, self.weight.inputs()),
            _ => rounded(self.x, self.weight, form, (level, pool), &mut workspace.activations),
        };
        self.share_out((x, stride), pool, &|panels, _| panels.run_on(level));
    }

    /// Quantised weights and activations in f32.
    fn run_grouped(self, grouping: Grouping, (level, pool): (Level, &Pool), workspace: &mut Workspace) {
        let Workspace { activations, group_sums, .. } = workspace;
        let group_sums = if grouping.offsets { sum_groups(self.x, grouping, level, group_sums) } else { &[] };
        let x = rounded(self.x, self.weight, Form::Exact, (level, pool), activations);
        self.share_out(x, pool, &|panels, _| level.run(Grouped { panels, grouping, group_sums }));
    }

    /// Quantised weights and activations of 8 bits.
    fn run_whole(self, grouping: Grouping, (level, pool): (Level, &Pool), workspace: &mut Workspace) {
        let Workspace { activations, unpacked, .. } = workspace;
        let by_tiles = level.isa() == Isa::Amx && self.rows >= rows_for_tiles(grouping.bits);
        let words = if by_tiles { unpacked_words(grouping) } else { 0 };
        unpacked.resize(unpacked.len().max(words * pool.threads()), 0.0);
        let unpacked = Disjoint::new(unpacked);
        let zero = if by_tiles { i32::from(grouping.lowest()) } else { zero(grouping, level) };
        let x = quantised(self.x, (grouping, zero), (level, pool), activations);
        self.share_out(x, pool, &|panels, worker| {
            let whole = Whole { panels, grouping };
            if !by_tiles {
                return level.run_whole(whole);
            }
            // SAFETY: a level is made where the machine runs it, and AMX counts only where it is permitted.
            let tiles = unsafe { Hardware::configure(tile_words(grouping)) };
            // SAFETY: there are as many words for every worker, who is the only one of its number.
            let unpacked = unsafe { unpacked.part(worker * words, words) };
            level.run_whole(TiledWhole { whole, tiles, unpacked });
        });
    }

    /// Lets the workers do `work` on the panels, or this thread alone where there is little to do; strip after strip where
    /// not all of them are in memory.
    fn share_out(self, (x, stride): (&[f32], usize), pool: &Pool, work: &(dyn Fn(Panels<'_>, usize) + Sync)) {
        let Self { rows, weight, finish, out, .. } = self;
        let out = Disjoint::new(out);
        for strip in weight.strips() {
            let claims = Claims::new(strip.panels(), pool.threads());
            let panels = Panels { x, stride, rows, weight, strip: &strip, finish, out, claims: &claims };
            if rows * weight.inputs() * weight.outputs() < ALONE {
                work(panels, 0);
            } else {
                pool.run(&|worker| work(panels, worker));
            }
        }
    }
}

/// Rows from which on tiles are quicker than lanes. They make the same bits, since whole numbers add up exactly. With fewer, lanes
/// get as much from memory as it gives; numbers of 4 bits have to be unpacked for tiles first.
fn rows_for_tiles(bits: Bits) -> usize {
    match bits {
        Bits::Eight => 5,
        Bits::Four => SIDE,
    }
}

/// The weight that the products of a level see as 0.
fn zero(grouping: Grouping, level: Level) -> i32 {
    match grouping.bits {
        Bits::Four => i32::from(grouping.lowest()),
        Bits::Eight if level.has_vnni() => Avx512Vnni::ZERO_OF_8_BITS,
        Bits::Eight => Avx2::ZERO_OF_8_BITS,
    }
}

/// The sums of the activations of every group, for the offsets of a quantised layer.
fn sum_groups<'a>(x: &[f32], grouping: Grouping, level: Level, sums: &'a mut Vec<f32>) -> &'a [f32] {
    let (inputs, group) = (grouping.inputs, grouping.group);
    let count = x.len() / inputs * grouping.groups();
    sums.resize(sums.len().max(count), 0.0);
    level.run(GroupSums { x, inputs, group, out: &mut sums[..count] });
    &sums[..count]
}

/// The activations in `form`, and the words of a row.
fn rounded<'a>(
    x: &[f32],
    weight: &Linear,
    form: Form,
    (level, pool): (Level, &Pool),
    scratch: &'a mut Vec<f32>,
) -> (&'a [f32], usize) {
    let (inputs, depth) = (weight.inputs(), weight.depth());
    laid_out((x, inputs), form.words(depth), pool, scratch, |x, stride, out| {
        let round = Round { x, inputs, depth, form, stride, out };
        if let Err(round) = level.run_bf16(round) {
            level.run(round);
        }
    })
}

/// The activations as whole numbers, and the words of a row.
fn quantised<'a>(
    x: &[f32],
    (grouping, zero): (Grouping, i32),
    (level, pool): (Level, &Pool),
    scratch: &'a mut Vec<f32>,
) -> (&'a [f32], usize) {
    let words = RowLayout::of(grouping).words();
    laid_out((x, grouping.inputs), words, pool, scratch, |x, stride, out| {
        level.run(Quantise { x, grouping, zero, stride, out });
    })
}

/// Rows of `inputs` activations brought into another form of `words` words by `work`, which gets some rows and where to
/// write them, and the words from one of these rows to the next.
fn laid_out<'a>(
    (x, inputs): (&[f32], usize),
    words: usize,
    pool: &Pool,
    scratch: &'a mut Vec<f32>,
    work: impl Fn(&[f32], usize, &mut [f32]) + Sync,
) -> (&'a [f32], usize) {
    // A line more than needed, so that the rows of a block do not all fall into the same sets of the cache.
    let stride = words.next_multiple_of(16) + 16;
    let used = x.len() / inputs * stride;
    // Tiles read whole blocks of rows and are fastest where no row crosses a cache line.
    let whole = (x.len() / inputs).next_multiple_of(SIDE) * stride;
    if scratch.len() < whole + 16 {
        scratch.resize(whole + 16, 0.0);
    }
    let aligned = scratch.as_ptr().align_offset(64);
    let scratch = &mut scratch[aligned..aligned + whole];
    split::rows(pool, &mut scratch[..used], (stride, ROUND_ALONE), |rows, out| {
        work(&x[rows.start * inputs..rows.end * inputs], stride, out);
    });
    (scratch, stride)
}

/// The panels of a call that this worker gets hold of, all rows.
#[derive(Clone, Copy)]
struct Panels<'a> {
    /// Activations in the form that the product reads.
    x: &'a [f32],
    /// Words of a row of activations.
    stride: usize,
    rows: usize,
    weight: &'a Linear,
    /// Those of its panels that are in memory.
    strip: &'a Strip<'a>,
    finish: Finish,
    /// `rows × outputs`, or half of these; the columns of the panels claimed are written.
    out: Disjoint,
    claims: &'a Claims,
}

impl Panels<'_> {
    fn run_on(self, level: Level) {
        if self.weight.dtype() == Dtype::F32 {
            level.run(Singles(self));
        } else if level.isa() == Isa::Amx {
            // SAFETY: a level is made where the machine runs it, and AMX counts only where it is permitted.
            level.run_by_tiles(Tiled { panels: self, tiles: unsafe { Hardware::configure(SIDE) } });
        } else if let Err(Pairs(panels)) = level.run_bf16(Pairs(self)) {
            level.run(Widens(panels));
        }
    }

    /// Makes outputs of a panel's sums of the rows from `first_row` on, and writes them.
    ///
    /// # Safety
    /// The call has these rows, and nobody else has this panel of them.
    #[inline(always)]
    unsafe fn finish_rows<L: Lanes>(&self, l: L, panel: usize, first_row: usize, sums: &[[f32; PANEL]]) {
        let bias = self.weight.panel_bias(panel);
        let (width, wide) = match self.finish {
            Finish::Each(_) => (self.weight.outputs(), PANEL),
            Finish::Gated => (self.weight.outputs() / 2, PANEL / 2),
        };
        let first_column = panel * wide;
        let count = (width - first_column).min(wide);
        for (row, sums) in (first_row..).zip(sums) {
            // SAFETY: row and columns are inside of `out`; the rest is the caller's.
            let out = unsafe { self.out.part(row * width + first_column, count) };
            match self.finish {
                Finish::Each(epilogue) => epilogue::finish(l, &sums[..count], bias, epilogue, out),
                Finish::Gated => epilogue::gate(l, sums, bias, out),
            }
        }
    }

    #[inline(always)]
    fn multiply<P: Product>(self, product: P) {
        let Self { x, stride, rows, strip, claims, .. } = self;
        let x_size = size_of::<P::X>() / size_of::<f32>();
        let mut sums: Sums = [[0.0; PANEL]; ROWS];
        for panel in claims.claim() {
            let (lines, first_line) = match strip.panel(panel) {
                Panel::F32(values) => (values.len() / PANEL, values.as_ptr().cast()),
                Panel::Bf16(values) => (values.len() / PANEL / 2, values.as_ptr().cast()),
                Panel::Quantised(_) => unreachable!("quantised panels go by groups"),
            };
            assert!(lines * x_size <= stride && rows * stride <= x.len());
            for first_row in (0..rows).step_by(ROWS) {
                let block = (rows - first_row).min(ROWS);
                // SAFETY: the rows of the block are in `x`, each with an element for every line of the panel, and the
                // panel has as many lines as its length says.
                unsafe {
                    let x = x.as_ptr().add(first_row * stride).cast();
                    let operands = Operands { x, stride: stride / x_size, panel: first_line, lines };
                    block::multiply(product, operands, block, &mut sums);
                }
                // SAFETY: the rows are there, and no other worker has this panel.
                unsafe { self.finish_rows(product.lanes(), panel, first_row, &sums[..block]) };
            }
        }
    }
}

/// f32 weights.
struct Singles<'a>(Panels<'a>);

impl<L: Lanes> Work<L> for Singles<'_> {
    #[inline(always)]
    fn run(self, l: L) {
        self.0.multiply(Single(l));
    }
}

/// bf16 weights without instructions for them.
struct Widens<'a>(Panels<'a>);

impl<L: Lanes> Work<L> for Widens<'_> {
    #[inline(always)]
    fn run(self, l: L) {
        self.0.multiply(Spread::<L, 2> { lanes: l, lowest: 0.0 });
    }
}

/// bf16 weights by `vdpbf16ps`.
struct Pairs<'a>(Panels<'a>);

impl Work<Avx512Bf16> for Pairs<'_> {
    #[inline(always)]
    fn run(self, proof: Avx512Bf16) {
        self.0.multiply(Paired(proof));
    }
}
