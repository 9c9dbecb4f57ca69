//! The linear layer: activations rounded once, panels split over the workers, row blocks against panels.
//!
//! A panel is read by one worker, block of rows after block of rows, while it stays in the second-level cache. No sum
//! is ever split over the inputs, so no result depends on rows or threads.

mod block;
mod epilogue;
mod product;
mod round;
mod tiles;

use crate::packed::{PANEL, Panel};
use crate::{Dtype, Epilogue, Isa, Linear, Pool};

use self::block::{Operands, ROWS, Sums};
use self::product::{Paired, Product, Single, Widened};
use self::round::{Form, Round};
use self::tiles::{Hardware, SIDE, Tiled};
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

impl Call<'_> {
    /// Computes the layer. `scratch` grows to the largest call.
    pub(super) fn run(self, level: Level, pool: &Pool, scratch: &mut Vec<f32>) {
        let Self { x, rows, weight, epilogue, out } = self;
        let form = if level.isa() < Isa::Avx512Bf16 { Form::Widened } else { Form::Pairs };
        let (x, stride) = match weight.dtype() {
            Dtype::F32 => (x, weight.inputs()),
            _ => rounded(x, weight, form, (level, pool), scratch),
        };
        let claims = Claims::new(weight.panels(), pool.threads());
        let panels = Panels { x, stride, rows, weight, epilogue, out: Disjoint::new(out), claims: &claims };
        if rows * weight.inputs() * weight.outputs() < ALONE {
            return panels.run_on(level);
        }
        pool.run(&|_| panels.run_on(level));
    }
}

/// The activations rounded to bf16 in `form`, and the words of a row.
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
