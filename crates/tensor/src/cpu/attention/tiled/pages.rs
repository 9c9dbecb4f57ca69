//! Tiles of keys and values: words of two bf16 numbers.

use crate::PAGE_TOKENS;
use crate::cpu::attention::stored::Stored;
use crate::cpu::lanes::{Lanes, prefetch};
use crate::cpu::tiles::SIDE;

/// Makes tiles of the keys of a page, lines of [`PAGE_TOKENS`] tokens, one for each coordinate.
#[inline(always)]
pub(in crate::cpu::attention) fn tile_keys<L: Lanes, E: Stored>(
    l: L,
    (keys, next): (&[E], *const E),
    to: &mut [u32],
) {
    let lines = keys.as_chunks::<PAGE_TOKENS>().0;
    for (number, to) in to.as_chunks_mut::<PAGE_TOKENS>().0.iter_mut().enumerate() {
        let Some(first) = lines.get(2 * number) else {
            to.fill(0);
            continue;
        };
        prefetch(next.wrapping_add(2 * number * PAGE_TOKENS));
        prefetch(next.wrapping_add((2 * number + 1) * PAGE_TOKENS));
        join(l, (first, lines.get(2 * number + 1).map(<[E; PAGE_TOKENS]>::as_slice)), to);
    }
}

/// Makes tiles of the values of a page, rows of `dim` coordinates, of which the first `tokens` are seen by anybody. Says
/// whether there is a value among them that is no number or has no bound.
#[inline(always)]
pub(in crate::cpu::attention) fn tile_values<L: Lanes, E: Stored>(
    l: L,
    (values, next): (&[E], *const E),
    (dim, tokens): (usize, usize),
    to: &mut [u32],
) -> bool {
    let width = dim.next_multiple_of(SIDE);
    let mut poison = 0.0;
    for (number, line) in to.chunks_exact_mut(width).enumerate() {
        let (line, padding) = line.split_at_mut(dim);
        padding.fill(0);
        if 2 * number >= tokens {
            line.fill(0);
            continue;
        }
        for at in (0..2 * dim).step_by(64 / size_of::<E>()) {
            prefetch(next.wrapping_add(2 * number * dim + at));
        }
        let (first, second) = values[2 * number * dim..][..2 * dim].split_at(dim);
        // What is behind the last token is not seen, whatever it is.
        poison += join(l, (first, (2 * number + 1 < tokens).then_some(second)), line);
    }
    poison.is_nan()
}

/// Makes tiles of keys that are `stride` apart, of at most [`PAGE_TOKENS`] tokens.
#[inline(always)]
pub(in crate::cpu::attention) fn tile_rows_of_keys<L: Lanes>(
    l: L,
    (keys, stride, dim): (&[f32], usize, usize),
    to: &mut [u32],
) {
    to.fill(0);
    for (token, key) in keys.chunks(stride).enumerate() {
        for (at, part) in key[..dim].chunks(L::N).enumerate() {
            let mut pairs = [0u32; SIDE / 2];
            // SAFETY: there is a place for each lane of a register.
            unsafe { l.store_bf16(pairs.as_mut_ptr().cast(), l.read(part)) };
            for (pair, &word) in pairs.iter().take(part.len().div_ceil(2)).enumerate() {
                to[(at * L::N / 2 + pair) * PAGE_TOKENS + token] = word;
            }
        }
    }
}

/// Makes tiles of values that are `stride` apart, of at most [`PAGE_TOKENS`] tokens.
#[inline(always)]
pub(in crate::cpu::attention) fn tile_rows_of_values<L: Lanes>(
    l: L,
    (values, stride, dim): (&[f32], usize, usize),
    to: &mut [u32],
) {
    let to: &mut [f32] = bytemuck::cast_slice_mut(to);
    to.fill(0.0);
    let width = dim.next_multiple_of(SIDE);
    for (pair, line) in values.chunks(2 * stride).zip(to.chunks_exact_mut(width)) {
        for at in (0..dim).step_by(L::N) {
            let low = l.round_bf16(l.read(&pair[at..dim]));
            let high = match pair.get(stride..) {
                Some(second) if !second.is_empty() => l.round_bf16(l.read(&second[at..dim])),
                _ => l.splat(0.0),
            };
            l.write(&mut line[at..], l.join_halves(low, high));
        }
    }
}

/// Words of two numbers, the first one in the lower half. The sum of all numbers times zero: none, if one of them is none or
/// has no bound.
#[inline(always)]
fn join<L: Lanes, E: Stored>(l: L, (first, second): (&[E], Option<&[E]>), to: &mut [u32]) -> f32 {
    let to: &mut [f32] = bytemuck::cast_slice_mut(to);
    let (nothing, mut poison) = (l.splat(0.0), l.splat(0.0));
    for at in (0..to.len()).step_by(L::N) {
        let low = read(l, &first[at..]);
        let high = match second {
            Some(second) => read(l, &second[at..]),
            None => nothing,
        };
        poison = l.fma(low, nothing, l.fma(high, nothing, poison));
        l.write(&mut to[at..], l.join_halves(low, high));
    }
    l.sum(poison)
}

/// The first values of `from`, at most `N`, widened; lanes behind its end are zero.
#[inline(always)]
fn read<L: Lanes, E: Stored>(l: L, from: &[E]) -> L::F {
    // SAFETY: no more is read than the slice holds.
    unsafe {
        if from.len() >= L::N {
            E::load(l, from.as_ptr())
        } else {
            E::load_first(l, from.as_ptr(), from.len())
        }
    }
}
