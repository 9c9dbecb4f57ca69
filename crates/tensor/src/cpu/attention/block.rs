//! A few queries against one block of [`PAGE_TOKENS`] keys and values: one step of the online softmax.
//!
//! Where the machine has tiles, few queries still go by lanes, since most of a tile would be empty. They make the bits that
//! tiles make: `TILED` lanes add as `TDPBF16PS` does, what is even and what is odd apart within every [`DEPTH`] terms
//! (Intel's manual, volume 2), of queries and weights that are rounded to bf16. A product is exact in f32, so its rounding
//! cannot tell the two ways apart either.

use std::array;

use crate::PAGE_TOKENS;
use crate::cpu::lanes::{Lanes, prefetch};
use crate::cpu::math::{exp, exp_without_dust, without_dust};
use crate::packed::DEPTH;

use super::stored::Stored;

/// The most queries that share one pass over a block.
pub(super) const QUERIES: usize = 6;

/// A query on its way through the blocks.
#[derive(Clone, Copy)]
pub(super) struct Query {
    /// `dim` values.
    pub(super) q: *const f32,
    /// `dim` values: Σ p · v of the blocks behind, while the sum of `p` is `weight`.
    pub(super) out: *mut f32,
    /// The highest score so far.
    pub(super) highest: f32,
    /// Σ p of the blocks behind, with `p = e^(score − highest)`.
    pub(super) weight: f32,
}

impl Query {
    /// Holds the place of a query.
    pub(super) const NONE: Self =
        Self { q: std::ptr::null(), out: std::ptr::null_mut(), highest: f32::NEG_INFINITY, weight: 0.0 };
}

/// A block of keys and values of one head.
#[derive(Clone, Copy)]
pub(super) struct Block<K, V> {
    /// `[dim][PAGE_TOKENS]`.
    pub(super) keys: *const K,
    /// `[PAGE_TOKENS]` rows of `dim` values, `stride` apart.
    pub(super) values: *const V,
    pub(super) stride: usize,
    /// The scales of the keys and of the values, one for each token; they are read only where the type has scales.
    pub(super) scales: (*const f32, *const f32),
    /// Where the next block's keys and values stand, so that memory can bring them while this one is computed. They
    /// are never read here.
    pub(super) next: (*const K, *const V),
    /// Tokens that the queries may see, the first ones of the block.
    pub(super) tokens: usize,
    pub(super) dim: usize,
}

/// The scales of what has none.
pub(super) const NO_SCALES: (*const f32, *const f32) = (std::ptr::null(), std::ptr::null());

/// Takes `queries` (at most [`QUERIES`]) past the block. What happens to one of them does not depend on the others:
/// every lane of every sum follows the tokens and coordinates in order.
///
/// # Safety
/// Queries and block point to as much as they say, and nobody else touches what the queries write.
#[inline(always)]
pub(super) unsafe fn pass<L: Lanes, K: Stored, V: Stored, const TILED: bool>(
    l: L,
    queries: &mut [Query],
    block: Block<K, V>,
) {
    // SAFETY: the caller's.
    unsafe {
        match queries.len() {
            1 => pass_rows::<L, K, V, 1, TILED>(l, queries, block),
            2 => pass_rows::<L, K, V, 2, TILED>(l, queries, block),
            3 => pass_rows::<L, K, V, 3, TILED>(l, queries, block),
            4 => pass_rows::<L, K, V, 4, TILED>(l, queries, block),
            5 => pass_rows::<L, K, V, 5, TILED>(l, queries, block),
            _ => pass_rows::<L, K, V, QUERIES, TILED>(l, queries, block),
        }
    }
}

/// What `R` queries make of a block before they look at its values.
struct Weights<const R: usize> {
    /// `e^(score − highest)`, times the scale of the token's value; nobody reads those of tokens that are not seen.
    p: [[f32; PAGE_TOKENS]; R],
    /// What the sums of the blocks behind shrink by, because the highest score has risen.
    shrink: [f32; R],
    tokens: usize,
}

/// Some coordinates of the values of a block.
#[derive(Clone, Copy)]
struct Columns<V> {
    values: *const V,
    /// The next block's values.
    next: *const V,
    stride: usize,
    /// The first coordinate.
    first: usize,
}

#[inline(always)]
unsafe fn pass_rows<L: Lanes, K: Stored, V: Stored, const R: usize, const TILED: bool>(
    l: L,
    queries: &mut [Query],
    block: Block<K, V>,
) {
    let Ok(queries) = <&mut [Query; R]>::try_from(queries) else { unreachable!("{R} queries") };
    let mut weights = Weights { p: [[0.0; PAGE_TOKENS]; R], shrink: [0.0; R], tokens: block.tokens };
    // SAFETY: the caller's; the columns stay below `dim`.
    unsafe {
        // As many registers as the sums of six queries fit into; fewer queries take more columns at a time instead.
        if TILED {
            products_by_pairs::<L, K, V, R, 2>(l, queries, block, &mut weights);
        } else if L::N == 16 || R > 2 {
            products::<L, K, V, R, 2>(l, queries, block, &mut weights);
        } else {
            products::<L, K, V, R, 4>(l, queries, block, &mut weights);
        }
        soften::<L, K, V, R, TILED>(l, queries, block, &mut weights);
        let mut columns =
            Columns { values: block.values, next: block.next.1, stride: block.stride, first: 0 };
        // Two chains of sums take twice the registers.
        let wide = if R <= 2 || (L::N == 16 && !TILED) { 4 * L::N } else { 2 * L::N };
        while columns.first + wide <= block.dim {
            if wide == 4 * L::N {
                add_values::<L, V, R, 4, TILED>(l, queries, &weights, columns);
            } else {
                add_values::<L, V, R, 2, TILED>(l, queries, &weights, columns);
            }
            columns.first += wide;
        }
        while columns.first < block.dim {
            add_few_values::<L, V, R, TILED>(l, queries, &weights, (columns, block.dim - columns.first));
            columns.first += L::N;
        }
    }
}

/// `weights.p = q · k`, `W` registers of tokens.
#[inline(always)]
unsafe fn products<L: Lanes, K: Stored, V: Stored, const R: usize, const W: usize>(
    l: L,
    queries: &[Query; R],
    block: Block<K, V>,
    weights: &mut Weights<R>,
) {
    for first in (0..PAGE_TOKENS).step_by(W * L::N) {
        let mut sums = [[l.splat(0.0); W]; R];
        for d in 0..block.dim {
            // SAFETY: the caller's.
            unsafe { add_coordinate(l, queries, (block, d, first), &mut sums) };
        }
        for (p, sums) in weights.p.iter_mut().zip(sums) {
            for (w, sum) in sums.into_iter().enumerate() {
                l.write(&mut p[first + w * L::N..], sum);
            }
        }
    }
}

/// The same in the order of tiles.
#[inline(always)]
unsafe fn products_by_pairs<L: Lanes, K: Stored, V: Stored, const R: usize, const W: usize>(
    l: L,
    queries: &[Query; R],
    block: Block<K, V>,
    weights: &mut Weights<R>,
) {
    for first in (0..PAGE_TOKENS).step_by(W * L::N) {
        let mut sums = [[l.splat(0.0); W]; R];
        for step in (0..block.dim).step_by(DEPTH) {
            let mut even = [[l.splat(0.0); W]; R];
            let mut odd = even;
            for d in (step..(step + DEPTH).min(block.dim)).step_by(2) {
                // SAFETY: the caller's.
                unsafe {
                    add_coordinate(l, queries, (block, d, first), &mut even);
                    if d + 1 < block.dim {
                        add_coordinate(l, queries, (block, d + 1, first), &mut odd);
                    }
                }
            }
            for (sums, (even, odd)) in sums.iter_mut().zip(even.into_iter().zip(odd)) {
                for (sum, (even, odd)) in sums.iter_mut().zip(even.into_iter().zip(odd)) {
                    *sum = l.add(*sum, l.add(even, odd));
                }
            }
        }
        for (p, sums) in weights.p.iter_mut().zip(sums) {
            for (w, sum) in sums.into_iter().enumerate() {
                l.write(&mut p[first + w * L::N..], sum);
            }
        }
    }
}

/// Adds the products of coordinate `d` with the keys of `W` registers of tokens from `first` on.
#[inline(always)]
unsafe fn add_coordinate<L: Lanes, K: Stored, V, const R: usize, const W: usize>(
    l: L,
    queries: &[Query; R],
    (block, d, first): (Block<K, V>, usize, usize),
    sums: &mut [[L::F; W]; R],
) {
    if first == 0 {
        prefetch_line(block.next.0, d);
    }
    let line = d * PAGE_TOKENS + first;
    // SAFETY: the caller's; the block has `dim` lines, and `W · N` divides a line.
    unsafe {
        let keys: [L::F; W] = array::from_fn(|w| K::load(l, block.keys.add(line + w * L::N)));
        for (sums, query) in sums.iter_mut().zip(queries) {
            let q = l.splat(*query.q.add(d));
            for (sum, keys) in sums.iter_mut().zip(keys) {
                *sum = l.fma(q, keys, *sum);
            }
        }
    }
}

/// Asks for the line number `line` of [`PAGE_TOKENS`] elements.
#[inline(always)]
fn prefetch_line<E: Stored>(plane: *const E, line: usize) {
    let at = plane.wrapping_add(line * PAGE_TOKENS);
    prefetch(at);
    if size_of::<E>() > 2 {
        prefetch(at.wrapping_add(PAGE_TOKENS / 2));
    }
}

/// Turns products into weights, and brings the queries' highest score and sum of weights up to date.
#[inline(always)]
unsafe fn soften<L: Lanes, K: Stored, V: Stored, const R: usize, const TILED: bool>(
    l: L,
    queries: &mut [Query; R],
    block: Block<K, V>,
    weights: &mut Weights<R>,
) {
    // SAFETY: the caller's; what is scaled has a scale for each of the block's tokens.
    let scaled = |value: L::F, scales: *const f32, at: usize| unsafe { l.mul(value, l.load(scales.add(at))) };
    let scale = l.splat(1.0 / (block.dim as f32).sqrt());
    let unseen = l.splat(f32::NEG_INFINITY);
    for (r, (query, p)) in queries.iter_mut().zip(&mut weights.p).enumerate() {
        let mut highest = l.splat(query.highest);
        for at in (0..PAGE_TOKENS).step_by(L::N) {
            let score = l.mul(l.read(&p[at..]), scale);
            let score = if K::SCALED { scaled(score, block.scales.0, at) } else { score };
            let score = l.keep_first(weights.tokens.saturating_sub(at), score, unseen);
            highest = l.max(score, highest);
            l.write(&mut p[at..], score);
        }
        let before = std::mem::replace(&mut query.highest, l.highest(highest));
        let highest = l.splat(query.highest);
        let mut sum = l.splat(0.0);
        for at in (0..PAGE_TOKENS).step_by(L::N) {
            let score = l.sub(l.read(&p[at..]), highest);
            let power = if TILED { exp_without_dust(l, score) } else { exp(l, score) };
            sum = l.add(sum, power);
            let power = if V::SCALED { scaled(power, block.scales.1, at) } else { power };
            l.write(&mut p[at..], if TILED { l.round_bf16(power) } else { power });
        }
        // Mostly the highest score stays, and e^0 is exactly one.
        let mut shrink = [1.0; 16];
        if before != query.highest {
            l.write(&mut shrink, exp(l, l.sub(l.splat(before), highest)));
        }
        weights.shrink[r] = shrink[0];
        query.weight = query.weight * shrink[0] + l.sum(sum);
    }
}

/// The sums of the blocks behind, after the highest score has risen.
#[inline(always)]
fn shrunk<L: Lanes, const TILED: bool>(l: L, sums: L::F, shrink: f32) -> L::F {
    let shrunk = l.mul(sums, l.splat(shrink));
    if TILED && shrink != 1.0 { without_dust(l, shrunk) } else { shrunk }
}

/// `out = out · shrink + Σ p · v` for `C` registers of coordinates.
#[inline(always)]
unsafe fn add_values<L: Lanes, V: Stored, const R: usize, const C: usize, const TILED: bool>(
    l: L,
    queries: &[Query; R],
    weights: &Weights<R>,
    columns: Columns<V>,
) {
    let mut sums = [[l.splat(0.0); C]; R];
    let mut even = [[l.splat(0.0); C]; R];
    let mut odd = even;
    // SAFETY: the caller's.
    unsafe {
        for (r, sums) in sums.iter_mut().enumerate() {
            let out = queries[r].out.add(columns.first);
            for (c, sum) in sums.iter_mut().enumerate() {
                *sum = shrunk::<L, TILED>(l, l.load(out.add(c * L::N)), weights.shrink[r]);
            }
        }
        let tokens = weights.tokens.min(PAGE_TOKENS);
        if TILED {
            for token in (0..tokens).step_by(2) {
                add_token(l, (weights, columns, token), &mut even);
                if token + 1 < tokens {
                    add_token(l, (weights, columns, token + 1), &mut odd);
                }
            }
        } else {
            for token in 0..tokens {
                add_token(l, (weights, columns, token), &mut sums);
            }
        }
        for (r, (query, sums)) in queries.iter().zip(sums).enumerate() {
            for (c, mut sum) in sums.into_iter().enumerate() {
                if TILED {
                    sum = l.add(sum, l.add(even[r][c], odd[r][c]));
                }
                l.store(query.out.add(columns.first + c * L::N), sum);
            }
        }
    }
}

/// Adds the weighted value of a token in `C` registers of coordinates.
#[inline(always)]
unsafe fn add_token<L: Lanes, V: Stored, const R: usize, const C: usize>(
    l: L,
    (weights, columns, token): (&Weights<R>, Columns<V>, usize),
    sums: &mut [[L::F; C]; R],
) {
    let at = token * columns.stride + columns.first;
    for c in 0..C {
        if (c * L::N * size_of::<V>()).is_multiple_of(64) {
            prefetch(columns.next.wrapping_add(at + c * L::N));
        }
    }
    // SAFETY: the caller's.
    let values: [L::F; C] = unsafe { array::from_fn(|c| V::load(l, columns.values.add(at + c * L::N))) };
    for (sums, p) in sums.iter_mut().zip(&weights.p) {
        let p = l.splat(p[token]);
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum = l.fma(p, value, *sum);
        }
    }
}

/// What [`add_values`] does for one register of coordinates, of which `count` (or all, if there are more) exist.
#[inline(always)]
unsafe fn add_few_values<L: Lanes, V: Stored, const R: usize, const TILED: bool>(
    l: L,
    queries: &[Query; R],
    weights: &Weights<R>,
    (columns, count): (Columns<V>, usize),
) {
    if count >= L::N {
        // SAFETY: the caller's.
        return unsafe { add_values::<L, V, R, 1, TILED>(l, queries, weights, columns) };
    }
    for (r, query) in queries.iter().enumerate() {
        // SAFETY: the caller's; `count` coordinates are there.
        unsafe {
            let out = query.out.add(columns.first);
            let mut sum = shrunk::<L, TILED>(l, l.load_first(out, count), weights.shrink[r]);
            let mut both = [l.splat(0.0); 2];
            for token in 0..weights.tokens {
                let value = columns.values.add(token * columns.stride + columns.first);
                let value = V::load_first(l, value, count);
                let sum = if TILED { &mut both[token % 2] } else { &mut sum };
                *sum = l.fma(l.splat(weights.p[r][token]), value, *sum);
            }
            if TILED {
                sum = l.add(sum, l.add(both[0], both[1]));
            }
            l.store_first(out, count, sum);
        }
    }
}
