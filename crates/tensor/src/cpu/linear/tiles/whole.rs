//! Quantised panels by tiles of whole numbers: a step of inputs in the tiles, then its scales.
//!
//! The sums are those that `linear/whole.rs` makes, because they are exact, and they are scaled in the same order;
//! so a row's bits do not depend on which of the two it was. Sums leave the tiles after every step, so short groups cost
//! more here than elsewhere.

use crate::cpu::dispatch::Work;
use crate::cpu::lanes::{Avx2, Avx512Vnni, Lanes, WholeLanes};
use crate::cpu::linear::Panels;
use crate::cpu::linear::grouped::quantised;
use crate::cpu::linear::whole::Whole;
use crate::cpu::linear::whole::activations::RowLayout;
use crate::cpu::tiles::{SIDE, Tiles};
use crate::packed::{Group, Grouping, PANEL, Step};
use crate::quantised::Bits;

use super::{From, LINE, Sums, ask_memory, in_cache};

/// The panels of a call of a quantised layer that this worker gets hold of, all rows, by tiles.
pub(in crate::cpu::linear) struct TiledWhole<'a, T> {
    pub(in crate::cpu::linear) whole: Whole<'a>,
    /// Configured for [`tile_words`].
    pub(in crate::cpu::linear) tiles: T,
    /// Room for a panel with a byte for every number, for this worker alone; empty where panels are so already.
    pub(in crate::cpu::linear) unpacked: &'a mut [f32],
}

/// Words of four inputs that fit into a tile of which every step is a multiple.
pub(in crate::cpu::linear) fn tile_words(grouping: Grouping) -> usize {
    let fits =
        |words: usize| (0..grouping.steps()).all(|step| grouping.step(step).inputs.is_multiple_of(4 * words));
    if fits(SIDE) {
        SIDE
    } else if fits(SIDE / 2) {
        SIDE / 2
    } else {
        SIDE / 4
    }
}

/// Words of an unpacked panel.
pub(in crate::cpu::linear) fn unpacked_words(grouping: Grouping) -> usize {
    match grouping.bits {
        Bits::Eight => 0,
        Bits::Four => grouping.depth() / 4 * PANEL,
    }
}

/// A panel and the rows that meet it.
#[derive(Clone, Copy)]
struct Operands<'a> {
    grouping: Grouping,
    layout: RowLayout,
    /// The first row's activations; rows up to the next multiple of a tile's can be read.
    x: &'a [f32],
    stride: usize,
    rows: usize,
    /// The lines as they are packed, with the scales.
    lines: &'a [u32],
    /// Lines with a byte for every number.
    numbers: &'a [u32],
    from: From,
}

impl Operands<'_> {
    /// The first line of a step in `numbers`.
    #[inline(always)]
    fn line(&self, (step, group): (Step, Group)) -> usize {
        match self.grouping.bits {
            Bits::Eight => group.numbers + (step.first - group.first) / 4,
            Bits::Four => step.first / 4,
        }
    }
}

impl<T: Tiles> TiledWhole<'_, T> {
    #[inline(always)]
    fn run_on<W: WholeLanes>(self, w: W) {
        let Self { whole: Whole { panels, grouping }, mut tiles, unpacked } = self;
        let Panels { x, stride, rows, strip, claims, .. } = panels;
        let (layout, words) = (RowLayout::of(grouping), tile_words(grouping));
        assert!(layout.words() <= stride && rows.next_multiple_of(SIDE) * stride <= x.len());
        let mut whole: Sums = [[0.0; PANEL]; 2 * SIDE];
        for (panel, rows) in in_cache(claims, (rows, stride)) {
            let lines = quantised(strip.panel(panel));
            assert_eq!(lines.len(), grouping.lines() * PANEL);
            let (numbers, from) = match grouping.bits {
                Bits::Eight => (lines, From::of(rows.len())),
                Bits::Four => (unpack(w, grouping, lines, bytemuck::cast_slice_mut(unpacked)), From::Cache),
            };
            for first_row in rows.clone().step_by(2 * SIDE) {
                let block = (rows.end - first_row).min(2 * SIDE);
                let x = &x[first_row * stride..];
                let operands = Operands { grouping, layout, x, stride, rows: block, lines, numbers, from };
                let mut sums: Sums = [[0.0; PANEL]; 2 * SIDE];
                multiply(w, &mut tiles, (operands, words), (&mut whole, &mut sums));
                // SAFETY: the rows are there, and no other worker has this panel.
                unsafe { panels.finish_rows(w.lanes(), panel, first_row, &sums[..block]) };
            }
        }
    }
}

/// Writes 4-bit numbers as bytes, in the order of the inputs.
#[inline(always)]
fn unpack<'a, W: WholeLanes>(w: W, grouping: Grouping, lines: &[u32], to: &'a mut [u32]) -> &'a [u32] {
    assert!(to.len() >= unpacked_words(grouping) && grouping.per_word() == 8);
    for number in 0..grouping.groups() {
        let group = grouping.group(number);
        let from = &lines[group.numbers * PANEL..(group.numbers + group.lines) * PANEL];
        let to = &mut to[group.first / 4 * PANEL..(group.first + group.inputs) / 4 * PANEL];
        for (from, to) in from.chunks_exact(PANEL).zip(to.chunks_exact_mut(2 * PANEL)) {
            for column in (0..PANEL).step_by(W::Lanes::N) {
                // SAFETY: a register of columns is inside of each of the three lines.
                unsafe {
                    let words = w.load(from.as_ptr().add(column));
                    w.store(to.as_mut_ptr().add(column), w.nibbles(words, 0));
                    w.store(to.as_mut_ptr().add(PANEL + column), w.nibbles(words, 1));
                }
            }
        }
    }
    to
}

/// At most 32 rows against the panel, step after step.
#[inline(always)]
fn multiply<W: WholeLanes, T: Tiles>(
    w: W,
    tiles: &mut T,
    (operands, words): (Operands<'_>, usize),
    (whole, sums): (&mut Sums, &mut Sums),
) {
    for (number, place) in operands.grouping.walk().enumerate() {
        for first in (0..PANEL).step_by(2 * SIDE) {
            match operands.from {
                From::Memory => one_step::<_, true>(tiles, (operands, words, place), first, whole),
                From::Cache => one_step::<_, false>(tiles, (operands, words, place), first, whole),
            }
        }
        add_scaled(w, whole, (operands, number, place.1), sums);
    }
}

/// The sums of a step: 16 or 32 rows with the 32 columns from `first` on.
#[inline(always)]
fn one_step<T: Tiles, const MEMORY: bool>(
    tiles: &mut T,
    (operands, words, place): (Operands<'_>, usize, (Step, Group)),
    first: usize,
    whole: &mut Sums,
) {
    let Operands { x, stride, rows, numbers, .. } = operands;
    let (line, step, stride_bytes, both) = (operands.line(place), place.0, stride * 4, rows > SIDE);
    let last = rows.next_multiple_of(SIDE) - 1;
    assert!(last * stride + (step.first + step.inputs) / 4 <= x.len());
    assert!((line + step.inputs / 4) * PANEL <= numbers.len() && step.inputs.is_multiple_of(4 * words));
    tiles.zero::<0>();
    tiles.zero::<1>();
    tiles.zero::<2>();
    tiles.zero::<3>();
    for at in (0..step.inputs / 4).step_by(words) {
        // SAFETY: the rows and lines of the step can be read, as seen above; the tiles are as deep as `words`.
        unsafe {
            let x = x.as_ptr().add(step.first / 4 + at).cast::<u32>();
            let lines = numbers.as_ptr().add((line + at) * PANEL + first);
            let memory = |part| {
                if MEMORY {
                    ask_memory::<4>(lines, LINE / 2, part);
                }
            };
            tiles.load::<4>(x, stride_bytes);
            memory(0);
            tiles.load::<6>(lines, LINE);
            memory(1);
            tiles.load::<7>(lines.add(SIDE), LINE);
            memory(2);
            tiles.multiply_whole::<0, 4, 6>();
            memory(3);
            tiles.multiply_whole::<1, 4, 7>();
            if both {
                tiles.load::<5>(x.add(SIDE * stride), stride_bytes);
                tiles.multiply_whole::<2, 5, 6>();
                tiles.multiply_whole::<3, 5, 7>();
            }
        }
    }
    let to = whole.as_flattened_mut().as_mut_ptr();
    // SAFETY: the sums are 32 rows of a line, of which these are the columns from `first` on.
    unsafe {
        tiles.store::<0>(to.add(first), LINE);
        tiles.store::<1>(to.add(first + SIDE), LINE);
        if both {
            tiles.store::<2>(to.add(SIDE * PANEL + first), LINE);
            tiles.store::<3>(to.add(SIDE * PANEL + first + SIDE), LINE);
        }
    }
}

/// Adds the sums of step `number`, scaled, as `whole.rs` does.
#[inline(always)]
fn add_scaled<W: WholeLanes>(
    w: W,
    whole: &Sums,
    (operands, number, group): (Operands<'_>, usize, Group),
    sums: &mut Sums,
) {
    let (l, Operands { layout, x, stride, rows, lines, .. }) = (w.lanes(), operands);
    let lines: &[[f32; PANEL]] = bytemuck::cast_slice::<u32, f32>(lines).as_chunks().0;
    let scales = &lines[group.scales];
    let offsets = operands.grouping.offsets.then(|| &lines[group.scales + 1]);
    let (scale, correction, sum) = (layout.scale(number), layout.correction(number), layout.sum(number));
    for (row, (whole, sums)) in whole.iter().zip(sums.iter_mut()).take(rows).enumerate() {
        let x = &x[row * stride..][..layout.words()];
        let correction = w.splat(x[correction].to_bits().cast_signed());
        let x_scale = l.splat(x[scale]);
        for at in (0..PANEL).step_by(W::Lanes::N) {
            // SAFETY: a register of sums is read inside of the row.
            let whole = unsafe { w.load(whole.as_ptr().add(at).cast()) };
            let both = l.mul(l.read(&scales[at..]), x_scale);
            let mut y = l.fma(w.to_float(w.add(whole, correction)), both, l.read(&sums[at..]));
            if let Some(offsets) = offsets {
                y = l.fma(l.splat(x[sum]), l.read(&offsets[at..]), y);
            }
            l.write(&mut sums[at..], y);
        }
    }
}

impl<T: Tiles> Work<Avx2> for TiledWhole<'_, T> {
    #[inline(always)]
    fn run(self, proof: Avx2) {
        self.run_on(proof);
    }
}

impl<T: Tiles> Work<Avx512Vnni> for TiledWhole<'_, T> {
    #[inline(always)]
    fn run(self, proof: Avx512Vnni) {
        self.run_on(proof);
    }
}
