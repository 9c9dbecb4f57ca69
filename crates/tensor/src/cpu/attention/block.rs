//! A few queries against one block of keys and values: one step of the online softmax.
//!
//! Where the machine has tiles, few queries still go by lanes, since most of a tile would be empty. They make the bits that
//! tiles make: `TILED` lanes add as `TDPBF16PS` does, what is even and what is odd apart within every [`DEPTH`] terms
//! (Intel's manual, volume 2), of queries and weights that are rounded to bf16. A product is exact in f32, so its rounding
//! cannot tell the two ways apart either.

use std::array;

use crate::PAGE_TOKENS;
use crate::cpu::lanes::{Lanes, prefetch};
use crate::cpu::math::{exp, power_of_two_for_bf16, without_dust};
use crate::packed::DEPTH;

use super::stored::Stored;
use super::{BLOCK, BLOCK_PAGES, tiled};

/// The most queries that share one pass over a block.
pub(super) const QUERIES: usize = 6;

/// A query on its way through the blocks.
#[derive(Clone, Copy)]
pub(super) struct Query {
    /// `dim` values.
    pub(super) q: *const f32,
    /// `dim` values: Σ p · v of the blocks behind, while the sum of `p` is `weight`.
    pub(super) out: *mut f32,
    /// The highest score so far; as a power of two, where lanes make the bits of tiles.
    pub(super) highest: f32,
    /// Σ p of the blocks behind, with `p = e^(score − highest)`, or 2 to it.
    pub(super) weight: f32,
}

impl Query {
    /// Holds the place of a query.
    pub(super) const NONE: Self =
        Self { q: std::ptr::null(), out: std::ptr::null_mut(), highest: f32::NEG_INFINITY, weight: 0.0 };
}

/// A page of keys and values of one head.
#[derive(Clone, Copy)]
pub(super) struct Page<K, V> {
    /// `[dim][PAGE_TOKENS]`.
    pub(super) keys: *const K,
    /// `[PAGE_TOKENS]` rows of `dim` values.
    pub(super) values: *const V,
    /// The scales of the keys and of the values, one for each token; they are read only where the type has scales.
    pub(super) scales: (*const f32, *const f32),
}

/// A block of keys and values of one head.
#[derive(Clone, Copy)]
pub(super) struct Block<K, V> {
    /// Its pages, and the one that follows: memory can bring a page while the one before it is computed. What is behind
    /// the last token that is seen is never read.
    pub(super) pages: [Page<K, V>; BLOCK_PAGES + 1],
    /// Values from one token to the next.
    pub(super) stride: usize,
    /// Tokens that the queries may see, the first ones of the block.
    pub(super) tokens: usize,
    pub(super) dim: usize,
}

impl<K, V> Block<K, V> {
    /// The pages of which some tokens are seen, each with the one behind it and the tokens before it.
    #[inline(always)]
    fn seen(&self) -> impl Iterator<Item = (&Page<K, V>, &Page<K, V>, usize)> {
        let pages = self.pages.iter().zip(&self.pages[1..]).zip((0..self.tokens).step_by(PAGE_TOKENS));
        pages.map(|((page, next), start)| (page, next, start))
    }
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
    /// `e^(score − highest)`, or 2 to it, times the scale of the token's value; nobody reads those of tokens that are not seen.
    p: [[f32; BLOCK]; R],
    /// What the sums of the blocks behind shrink by, because the highest score has risen.
    shrink: [f32; R],
}

/// Some coordinates of the values of a page.
#[derive(Clone, Copy)]
struct Columns<V> {
    /// Those of the first token.
    values: *const V,
    /// Those of the next page's.
    next: *const V,
    stride: usize,
    /// Tokens of the block before the page.
    start: usize,
    /// Tokens that are seen of it.
    tokens: usize,
}

impl<K, V> Block<K, V> {
    /// The coordinates from `first` on of the pages that are seen.
    #[inline(always)]
    fn columns(&self, first: usize) -> impl Iterator<Item = Columns<V>> {
        self.seen().map(move |(page, next, start)| Columns {
            values: page.values.wrapping_add(first),
            next: next.values.wrapping_add(first),
            stride: self.stride,
            start,
            tokens: (self.tokens - start).min(PAGE_TOKENS),
        })
    }
}

#[inline(always)]
unsafe fn pass_rows<L: Lanes, K: Stored, V: Stored, const R: usize, const TILED: bool>(
    l: L,
    queries: &mut [Query],
    block: Block<K, V>,
) {
    let Ok(queries) = <&mut [Query; R]>::try_from(queries) else { unreachable!("{R} queries") };
    let mut weights = Weights { p: [[0.0; BLOCK]; R], shrink: [0.0; R] };
    // SAFETY: the caller's; the columns stay below `dim`.
    unsafe {
        // As many registers as the sums of six queries fit into; fewer queries take more columns at a time instead.
        for (page, next, start) in block.seen() {
            let keys = Keys { here: page.keys, next: next.keys, dim: block.dim, start };
            if TILED {
                products_by_pairs::<L, K, R, 2>(l, queries, keys, &mut weights);
            } else if L::N == 16 || R > 2 {
                products::<L, K, R, 2>(l, queries, keys, &mut weights);
            } else {
                products::<L, K, R, 4>(l, queries, keys, &mut weights);
            }
        }
        soften::<L, K, V, R, TILED>(l, queries, &block, &mut weights);
        let mut first = 0;
        // Two chains of sums take twice the registers.
        let wide = if R <= 2 || (L::N == 16 && !TILED) { 4 * L::N } else { 2 * L::N };
        while first + wide <= block.dim {
            if wide == 4 * L::N {
                add_values::<L, K, V, R, 4, TILED>(l, queries, &weights, (&block, first));
            } else {
                add_values::<L, K, V, R, 2, TILED>(l, queries, &weights, (&block, first));
            }
            first += wide;
        }
        while first < block.dim {
            add_few_values::<L, K, V, R, TILED>(l, queries, &weights, (&block, first));
            first += L::N;
        }
    }
}

/// The keys of a page.
#[derive(Clone, Copy)]
struct Keys<K> {
    here: *const K,
    /// Those of the next page.
    next: *const K,
    dim: usize,
    /// Tokens of the block before the page.
    start: usize,
}

/// `weights.p = q · k`, `W` registers of tokens.
#[inline(always)]
unsafe fn products<L: Lanes, K: Stored, const R: usize, const W: usize>(
    l: L,
    queries: &[Query; R],
    keys: Keys<K>,
    weights: &mut Weights<R>,
) {
    for first in (0..PAGE_TOKENS).step_by(W * L::N) {
        let mut sums = [[l.splat(0.0); W]; R];
        for d in 0..keys.dim {
            // SAFETY: the caller's.
            unsafe { add_coordinate(l, queries, (keys, d, first), &mut sums) };
        }
        for (p, sums) in weights.p.iter_mut().zip(sums) {
            for (w, sum) in sums.into_iter().enumerate() {
                l.write(&mut p[keys.start + first + w * L::N..], sum);
            }
        }
    }
}

/// The same in the order of tiles.
#[inline(always)]
unsafe fn products_by_pairs<L: Lanes, K: Stored, const R: usize, const W: usize>(
    l: L,
    queries: &[Query; R],
    keys: Keys<K>,
    weights: &mut Weights<R>,
) {
    for first in (0..PAGE_TOKENS).step_by(W * L::N) {
        let mut sums = [[l.splat(0.0); W]; R];
        for step in (0..keys.dim).step_by(DEPTH) {
            let mut even = [[l.splat(0.0); W]; R];
            let mut odd = even;
            for d in (step..(step + DEPTH).min(keys.dim)).step_by(2) {
                // SAFETY: the caller's.
                unsafe {
                    add_coordinate(l, queries, (keys, d, first), &mut even);
                    if d + 1 < keys.dim {
                        add_coordinate(l, queries, (keys, d + 1, first), &mut odd);
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
                l.write(&mut p[keys.start + first + w * L::N..], sum);
            }
        }
    }
}

/// Adds the products of coordinate `d` with the keys of `W` registers of tokens from `first` on.
#[inline(always)]
unsafe fn add_coordinate<L: Lanes, K: Stored, const R: usize, const W: usize>(
    l: L,
    queries: &[Query; R],
    (keys, d, first): (Keys<K>, usize, usize),
    sums: &mut [[L::F; W]; R],
) {
    if first == 0 {
        prefetch_line(keys.next, d);
    }
    let line = d * PAGE_TOKENS + first;
    // SAFETY: the caller's; the page has `dim` lines, and `W · N` divides a line.
    unsafe {
        let keys: [L::F; W] = array::from_fn(|w| K::load(l, keys.here.add(line + w * L::N)));
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
    block: &Block<K, V>,
    weights: &mut Weights<R>,
) {
    // SAFETY: the caller's; what is scaled has a scale for each of the block's tokens.
    let scaled = |value: L::F, scales: *const f32, at: usize| unsafe { l.mul(value, l.load(scales.add(at))) };
    // By tiles a score is a power of two, and scaled where it is used.
    let scale = if TILED { tiled::scale(block.dim) } else { 1.0 / (block.dim as f32).sqrt() };
    for (r, (query, p)) in queries.iter_mut().zip(&mut weights.p).enumerate() {
        let mut highest = l.splat(if TILED { f32::NEG_INFINITY } else { query.highest });
        for (page, _, start) in block.seen() {
            for at in (0..PAGE_TOKENS).step_by(L::N) {
                let score = l.read(&p[start + at..]);
                let score = if TILED { score } else { l.mul(score, l.splat(scale)) };
                let score = if K::SCALED { scaled(score, page.scales.0, at) } else { score };
                let seen = block.tokens.saturating_sub(start + at);
                let score = l.keep_first(seen, score, l.splat(f32::NEG_INFINITY));
                highest = l.max(score, highest);
                l.write(&mut p[start + at..], score);
            }
        }
        let highest = l.highest(highest);
        let highest = if TILED { query.highest.max(highest * scale) } else { highest };
        let before = std::mem::replace(&mut query.highest, highest);
        let mut sum = l.splat(0.0);
        for (page, _, start) in block.seen() {
            for at in (0..PAGE_TOKENS).step_by(L::N) {
                let score = l.read(&p[start + at..]);
                let power = if TILED {
                    let power = power_of_two_for_bf16(l, l.fma(score, l.splat(scale), l.splat(-highest)));
                    l.keep_first(block.tokens.saturating_sub(start + at), power, l.splat(0.0))
                } else {
                    exp(l, l.sub(score, l.splat(highest)))
                };
                sum = l.add(sum, power);
                let power = if V::SCALED { scaled(power, page.scales.1, at) } else { power };
                l.write(&mut p[start + at..], if TILED { l.round_bf16(power) } else { power });
            }
        }
        // Mostly the highest score stays, and e^0 is exactly one.
        let mut shrink = [1.0; 16];
        if before != highest {
            let fallen = l.splat(before - highest);
            l.write(&mut shrink, if TILED { power_of_two_for_bf16(l, fallen) } else { exp(l, fallen) });
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

/// `out = out · shrink + Σ p · v` for `C` registers of coordinates from `first` on.
#[inline(always)]
unsafe fn add_values<L: Lanes, K, V: Stored, const R: usize, const C: usize, const TILED: bool>(
    l: L,
    queries: &[Query; R],
    weights: &Weights<R>,
    (block, first): (&Block<K, V>, usize),
) {
    let mut sums = [[l.splat(0.0); C]; R];
    // SAFETY: the caller's.
    unsafe {
        for (r, sums) in sums.iter_mut().enumerate() {
            let out = queries[r].out.add(first);
            for (c, sum) in sums.iter_mut().enumerate() {
                *sum = shrunk::<L, TILED>(l, l.load(out.add(c * L::N)), weights.shrink[r]);
            }
        }
        for columns in block.columns(first) {
            if !TILED {
                for token in 0..columns.tokens {
                    add_token(l, (weights, columns, token), &mut sums);
                }
                continue;
            }
            let mut even = [[l.splat(0.0); C]; R];
            let mut odd = even;
            for token in (0..columns.tokens).step_by(2) {
                add_token(l, (weights, columns, token), &mut even);
                if token + 1 < columns.tokens {
                    add_token(l, (weights, columns, token + 1), &mut odd);
                }
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                for (c, sum) in sums.iter_mut().enumerate() {
                    *sum = l.add(*sum, l.add(even[r][c], odd[r][c]));
                }
            }
        }
        for (query, sums) in queries.iter().zip(sums) {
            for (c, sum) in sums.into_iter().enumerate() {
                l.store(query.out.add(first + c * L::N), sum);
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
    let at = token * columns.stride;
    for c in 0..C {
        if (c * L::N * size_of::<V>()).is_multiple_of(64) {
            prefetch(columns.next.wrapping_add(at + c * L::N));
        }
    }
    // SAFETY: the caller's.
    let values: [L::F; C] = unsafe { array::from_fn(|c| V::load(l, columns.values.add(at + c * L::N))) };
    for (sums, p) in sums.iter_mut().zip(&weights.p) {
        let p = l.splat(p[columns.start + token]);
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum = l.fma(p, value, *sum);
        }
    }
}

/// What [`add_values`] does for one register of coordinates, of which those below `dim` exist.
#[inline(always)]
unsafe fn add_few_values<L: Lanes, K, V: Stored, const R: usize, const TILED: bool>(
    l: L,
    queries: &[Query; R],
    weights: &Weights<R>,
    (block, first): (&Block<K, V>, usize),
) {
    let count = block.dim - first;
    if count >= L::N {
        // SAFETY: the caller's.
        return unsafe { add_values::<L, K, V, R, 1, TILED>(l, queries, weights, (block, first)) };
    }
    for (r, query) in queries.iter().enumerate() {
        // SAFETY: the caller's; `count` coordinates are there.
        unsafe {
            let out = query.out.add(first);
            let mut sum = shrunk::<L, TILED>(l, l.load_first(out, count), weights.shrink[r]);
            for columns in block.columns(first) {
                let mut both = [l.splat(0.0); 2];
                for token in 0..columns.tokens {
                    let value = V::load_first(l, columns.values.add(token * columns.stride), count);
                    let sum = if TILED { &mut both[token % 2] } else { &mut sum };
                    *sum = l.fma(l.splat(weights.p[r][columns.start + token]), value, *sum);
                }
                if TILED {
                    sum = l.add(sum, l.add(both[0], both[1]));
                }
            }
            l.store_first(out, count, sum);
        }
    }
}
