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

use crate::packed::{Grouping, PANEL, Panel};
use crate::{Dtype, Epilogue, Isa, Linear, Pool};

use self::block::{Operands, ROWS, Sums};
use self::grouped::{GroupSums, Grouped, GroupedPairs, widened_words};
use self::product::{Paired, Product, Single, Widened};
use self::round::{Form, Round};
pub(super) use self::tiles::multiply_tiles;
use self::tiles::{Hardware, SIDE, Tiled, TiledGroups};
use super::dispatch::{Level, Work};
use super::lanes::{Avx512Bf16, Lanes};
use super::split::{self, Claims, Disjoint};

/// Products below which a call stays on the calling thread.
const ALONE: usize = 1 << 17;

/// Elements below which rounding stays on the calling thread.
const ROUND_ALONE: usize = 1 << 16;

/// A call, checked.
pub(super) struct Call<'a> {
    pub(super) x: &'a [f32],
    pub(super) rows: usize,
    pub(super) weight: &'a Linear,
    pub(super) epilogue: Epilogue,
    pub(super) out: &'a mut [f32],
}

/// Memory of calls, which grows to the largest one.
#[derive(Default)]
pub(super) struct Workspace {
    /// Activations in the form that the product reads.
    activations: Vec<f32>,
    /// Sums of the activations of every group of a quantised layer.
    group_sums: Vec<f32>,
    /// A quantised panel per worker, as pairs of bf16.
    widened: Vec<f32>,
}

impl Call<'_> {
    /// Computes the layer. `workspace` grows to the largest call.
    pub(super) fn run(self, level: Level, pool: &Pool, workspace: &mut Workspace) {
        let Self { x, rows, weight, epilogue, out } = self;
        let Workspace { activations, group_sums, widened } = workspace;
        let form = match weight.dtype() {
            Dtype::F32 => Form::Exact,
            _ if level.isa() < Isa::Avx512Bf16 => Form::Widened,
            _ => Form::Pairs,
        };
        let groups = weight.grouping().map(|grouping| {
            let sums: &[f32] =
                if grouping.offsets { sum_groups(x, grouping, form, level, group_sums) } else { &[] };
            let words = if rows > ROWS || level.isa() == Isa::Amx { widened_words(grouping) } else { 0 };
            widened.resize(widened.len().max(words * pool.threads()), 0.0);
            (grouping, sums, words)
        });
        let widened = Disjoint::new(widened);
        let (x, stride) = match (form, groups) {
            (Form::Exact, None) => (x, weight.inputs()),
            _ => rounded(x, weight, form, (level, pool), activations),
        };
        let claims = Claims::new(weight.panels(), pool.threads());
        let panels = Panels { x, stride, rows, weight, epilogue, out: Disjoint::new(out), claims: &claims };
        let work = |worker: usize| match groups {
            None => panels.run_on(level),
            Some((grouping, group_sums, words)) => {
                // SAFETY: there are as many words for every worker, who is the only one of its number.
                let widened = unsafe { widened.part(worker * words, words) };
                Grouped { panels, grouping, group_sums, widened }.run_on(level);
            }
        };
        if rows * weight.inputs() * weight.outputs() < ALONE {
            return work(0);
        }
        pool.run(&work);
    }
}

/// The sums of the activations of every group, for the offsets of a quantised layer.
fn sum_groups<'a>(
    x: &[f32],
    grouping: Grouping,
    form: Form,
    level: Level,
    sums: &'a mut Vec<f32>,
) -> &'a [f32] {
    let (inputs, group) = (grouping.inputs, grouping.group);
    let count = x.len() / inputs * grouping.groups();
    sums.resize(sums.len().max(count), 0.0);
    level.run(GroupSums { x, inputs, group, rounded: form != Form::Exact, out: &mut sums[..count] });
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
    // A line more than needed, so that the rows of a block do not all fall into the same sets of the cache.
    let stride = form.words(depth) + 16;
    let words = x.len() / inputs * stride;
    // Tiles read whole blocks of rows and are fastest where no row crosses a cache line.
    let whole = (x.len() / inputs).next_multiple_of(SIDE) * stride;
    if scratch.len() < whole + 16 {
        scratch.resize(whole + 16, 0.0);
    }
    let aligned = scratch.as_ptr().align_offset(64);
    let scratch = &mut scratch[aligned..aligned + whole];
    split::rows(pool, &mut scratch[..words], (stride, ROUND_ALONE), |rows, out| {
        let x = &x[rows.start * inputs..rows.end * inputs];
        level.run(Round { x, inputs, depth, form, stride, out });
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
    epilogue: Epilogue,
    /// `rows × outputs`; the columns of the panels claimed are written.
    out: Disjoint,
    claims: &'a Claims,
}

impl Panels<'_> {
    fn run_on(self, level: Level) {
        if self.weight.dtype() == Dtype::F32 {
            level.run(Singles(self));
        } else if level.isa() == Isa::Amx {
            // SAFETY: a level is made where the machine runs it, and AMX counts only where it is permitted.
            level.run(Tiled { panels: self, tiles: unsafe { Hardware::configure() } });
        } else if let Err(Pairs(panels)) = level.run_bf16(Pairs(self)) {
            level.run(Widens(panels));
        }
    }

    #[inline(always)]
    fn multiply<P: Product>(self, product: P) {
        let Self { x, stride, rows, weight, epilogue, out, claims } = self;
        let outputs = weight.outputs();
        let x_size = size_of::<P::X>() / size_of::<f32>();
        let mut sums: Sums = [[0.0; PANEL]; ROWS];
        for panel in claims.claim() {
            let (lines, first_line) = match weight.panel(panel) {
                Panel::F32(values) => (values.len() / PANEL, values.as_ptr().cast()),
                Panel::Bf16(values) => (values.len() / PANEL / 2, values.as_ptr().cast()),
                Panel::Quantised(_) => unreachable!("quantised panels go by groups"),
            };
            assert!(lines * x_size <= stride && rows * stride <= x.len());
            let first_column = panel * PANEL;
            let count = (outputs - first_column).min(PANEL);
            let bias = weight.panel_bias(panel);
            for first_row in (0..rows).step_by(ROWS) {
                let block = (rows - first_row).min(ROWS);
                // SAFETY: the rows of the block are in `x`, each with an element for every line of the panel, and the
                // panel has as many lines as its length says.
                unsafe {
                    let x = x.as_ptr().add(first_row * stride).cast();
                    let operands = Operands { x, stride: stride / x_size, panel: first_line, lines };
                    block::multiply(product, operands, block, &mut sums);
                }
                for (row, sums) in (first_row..first_row + block).zip(&sums) {
                    // SAFETY: row and columns are inside of `out`, and no other worker has this panel.
                    let out = unsafe { out.part(row * outputs + first_column, count) };
                    epilogue::finish(product.lanes(), &sums[..count], bias, epilogue, out);
                }
            }
        }
    }
}

impl Grouped<'_> {
    fn run_on(self, level: Level) {
        if self.panels.weight.dtype() == Dtype::F32 {
            return level.run(self);
        }
        if level.isa() == Isa::Amx && TiledGroups::<Hardware>::fits(self.grouping) {
            // SAFETY: a level is made where the machine runs it, and AMX counts only where it is permitted.
            return level.run(TiledGroups { groups: self, tiles: unsafe { Hardware::configure() } });
        }
        if let Err(GroupedPairs(groups)) = level.run_bf16(GroupedPairs(self)) {
            level.run(groups);
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
        self.0.multiply(Widened(l));
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
