//! Attention by tiles: rows of queries against one block of keys and values in bf16 after the other.
//!
//! A row is a query, and its bits follow from the blocks that it sees, in their order, whatever rows share its tiles.
//! Queries and weights are rounded to bf16, sums and the softmax are f32.

use crate::PAGE_TOKENS;
use crate::cpu::lanes::{Lanes, prefetch};
use crate::cpu::math::{exp, exp_without_dust, without_dust};
use crate::cpu::tiles::{SIDE, Tiles};
use crate::packed::DEPTH;

use super::stored::Stored;
use super::{BLOCK, BLOCK_PAGES};

/// Rows that go through the tiles together.
const ROWS: usize = 2 * SIDE;

/// Rows that share what is made of a block, unless a single token has more of them.
pub(super) const SHARING: usize = 128;

/// What a page of a block is to the tiles: words of two bf16 numbers.
#[derive(Clone, Copy, Default)]
pub(super) struct Page<'a> {
    /// `[depth / 2][PAGE_TOKENS]`: two neighbouring coordinates of a token's key.
    pub(super) keys: &'a [u32],
    /// `[PAGE_TOKENS / 2][width]`: a coordinate of two neighbouring tokens' values, zero where nobody sees them.
    pub(super) values: &'a [u32],
    /// The scales of the keys and of the values, one for each token, where they have some.
    pub(super) scales: Option<(&'a [f32], &'a [f32])>,
}

/// The sizes of some rows of queries.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) dim: usize,
}

impl Shape {
    /// Coordinates of a query or a key, with zeros up to whole tiles.
    fn depth(self) -> usize {
        self.dim.next_multiple_of(DEPTH)
    }

    /// Coordinates of a value and of the output, with zeros up to whole tiles.
    fn width(self) -> usize {
        self.dim.next_multiple_of(SIDE)
    }

    fn whole_rows(self) -> usize {
        self.rows.next_multiple_of(ROWS)
    }

    /// Words of a page's keys.
    pub(super) fn keys(self) -> usize {
        self.depth() / 2 * PAGE_TOKENS
    }

    /// Words of a page's values.
    pub(super) fn values(self) -> usize {
        self.width() * PAGE_TOKENS / 2
    }

    /// Words of [`Rows`].
    pub(super) fn words(self) -> usize {
        self.whole_rows() * (self.depth() / 2 + self.width() + 2)
    }
}

/// Rows of queries on their way through the blocks.
pub(super) struct Rows<'a> {
    shape: Shape,
    /// `[rows][depth]`, in bf16.
    queries: &'a mut [u32],
    /// `[rows][width]`: Σ p · v of the blocks behind.
    sums: &'a mut [f32],
    /// The highest score so far.
    highest: &'a mut [f32],
    /// Σ p of the blocks behind, with `p = e^(score − highest)`.
    weights: &'a mut [f32],
    scores: Scores,
    powers: Powers,
}

impl<'a> Rows<'a> {
    /// Rows that have seen nothing yet, in [`Shape::words`] words of memory. `query` says where a row's query is.
    #[inline(always)]
    pub(super) fn begin<'q, L: Lanes>(
        l: L,
        shape: Shape,
        memory: &'a mut [f32],
        query: impl Fn(usize) -> &'q [f32],
    ) -> Self {
        let (rows, depth) = (shape.whole_rows(), shape.depth());
        let (queries, memory) = memory.split_at_mut(rows * depth / 2);
        let (sums, memory) = memory.split_at_mut(rows * shape.width());
        let (highest, weights) = memory.split_at_mut(rows);
        queries.fill(0.0);
        sums.fill(0.0);
        highest.fill(f32::NEG_INFINITY);
        let queries: &mut [u32] = bytemuck::cast_slice_mut(queries);
        for (row, to) in queries.chunks_exact_mut(depth / 2).enumerate().take(shape.rows) {
            let query = query(row);
            for at in (0..query.len()).step_by(L::N) {
                // SAFETY: a row is as deep as a multiple of a register's lanes and at least as long as the query.
                unsafe { l.store_bf16(to.as_mut_ptr().cast::<half::bf16>().add(at), l.read(&query[at..])) };
            }
        }
        weights[..rows].fill(0.0);
        let (scores, powers) = (Scores([[0.0; BLOCK]; ROWS]), Powers([[0; BLOCK / 2]; ROWS]));
        Self { shape, queries, sums, highest, weights: &mut weights[..rows], scores, powers }
    }

    /// Takes the rows past a block, of which row `i` sees the first `sees(i)` tokens; a later row sees no fewer. `alone`
    /// says that values are in it that may spoil what does not see them, since zero times what is no number is none.
    #[inline(always)]
    pub(super) fn pass<L: Lanes, T: Tiles>(
        &mut self,
        l: L,
        tiles: &mut T,
        (block, alone): (&[Page<'_>], bool),
        sees: impl Fn(usize) -> usize,
    ) {
        let whole = |page: &Page<'_>| {
            page.keys.len() >= self.shape.keys() && page.values.len() >= self.shape.values()
        };
        assert!(block.len() <= BLOCK_PAGES && block.iter().all(whole));
        for first in (0..self.shape.rows).step_by(ROWS) {
            let count = (self.shape.rows - first).min(ROWS);
            let block = &block[..sees(first + count - 1).div_ceil(PAGE_TOKENS)];
            if block.is_empty() {
                continue;
            }
            self.multiply_keys(tiles, block, (first, count));
            for row in 0..count {
                match sees(first + row) {
                    0 => self.powers.0[row].fill(0),
                    seen if seen == block.len() * PAGE_TOKENS => {
                        self.soften::<_, true>(l, (block, seen), (first + row, row));
                    }
                    seen => self.soften::<_, false>(l, (block, seen), (first + row, row)),
                }
            }
            if alone {
                self.add_values_apart(tiles, block, (first, count), &sees);
            } else {
                self.add_values(tiles, block, (first, count));
            }
        }
    }

    /// `scores = q · k`.
    #[inline(always)]
    fn multiply_keys<T: Tiles>(&mut self, tiles: &mut T, block: &[Page<'_>], (first, count): (usize, usize)) {
        const LINE: usize = PAGE_TOKENS * 4;
        let (words, both) = (self.shape.depth() / 2, count > SIDE);
        for (number, page) in block.iter().enumerate() {
            tiles.zero::<0>();
            tiles.zero::<1>();
            tiles.zero::<2>();
            tiles.zero::<3>();
            for step in (0..words).step_by(SIDE) {
                // SAFETY: there are whole tiles of rows, and a page has `depth / 2` lines.
                unsafe {
                    let queries = self.queries.as_ptr().add(first * words + step);
                    let keys = page.keys.as_ptr().add(step * PAGE_TOKENS);
                    tiles.load::<4>(queries, words * 4);
                    tiles.load::<6>(keys, LINE);
                    tiles.load::<7>(keys.add(SIDE), LINE);
                    tiles.multiply::<0, 4, 6>();
                    tiles.multiply::<1, 4, 7>();
                    if both {
                        tiles.load::<5>(queries.add(SIDE * words), words * 4);
                        tiles.multiply::<2, 5, 6>();
                        tiles.multiply::<3, 5, 7>();
                    }
                }
            }
            // SAFETY: the scores are two rows of tiles of a line, in which every page of the block has its place.
            unsafe {
                let to = self.scores.0.as_flattened_mut().as_mut_ptr().add(number * PAGE_TOKENS);
                tiles.store::<0>(to, BLOCK * 4);
                tiles.store::<1>(to.add(SIDE), BLOCK * 4);
                if both {
                    tiles.store::<2>(to.add(SIDE * BLOCK), BLOCK * 4);
                    tiles.store::<3>(to.add(SIDE * BLOCK + SIDE), BLOCK * 4);
                }
            }
        }
    }

    /// Turns a row's products into powers, and brings its highest score, its weight and its sums up to date. Whether it
    /// sees `ALL` of the block changes no bit.
    #[inline(always)]
    fn soften<L: Lanes, const ALL: bool>(
        &mut self,
        l: L,
        (block, seen): (&[Page<'_>], usize),
        (row, in_tiles): (usize, usize),
    ) {
        let (scores, powers) = (&mut self.scores.0[in_tiles], &mut self.powers.0[in_tiles]);
        let (scale, nothing) = (l.splat(1.0 / (self.shape.dim as f32).sqrt()), l.splat(0.0));
        let before = self.highest[row];
        let mut highest = l.splat(before);
        let pages = || block.iter().zip((0..seen).step_by(PAGE_TOKENS));
        for (page, start) in pages() {
            for at in (0..PAGE_TOKENS).step_by(L::N) {
                let mut score = l.mul(l.read(&scores[start + at..]), scale);
                if let Some((keys, _)) = page.scales {
                    score = l.mul(score, l.read(&keys[at..]));
                }
                if !ALL {
                    score = l.keep_first(seen.saturating_sub(start + at), score, l.splat(f32::NEG_INFINITY));
                }
                highest = l.max(score, highest);
                l.write(&mut scores[start + at..], score);
            }
        }
        self.highest[row] = l.highest(highest);
        let highest = l.splat(self.highest[row]);
        let mut sum = nothing;
        for (page, start) in pages() {
            for at in (0..PAGE_TOKENS).step_by(L::N) {
                let mut power = exp_without_dust(l, l.sub(l.read(&scores[start + at..]), highest));
                sum = l.add(sum, power);
                if let Some((_, values)) = page.scales {
                    power = l.mul(power, l.read(&values[at..]));
                }
                if !ALL {
                    // The scale of a token that nobody has written may be no number.
                    power = l.keep_first(seen.saturating_sub(start + at), power, nothing);
                }
                // SAFETY: there is a place for each token of the block, and a register's lanes divide those of a page.
                unsafe { l.store_bf16(powers.as_mut_ptr().cast::<half::bf16>().add(start + at), power) };
            }
        }
        if !ALL {
            powers[seen.next_multiple_of(PAGE_TOKENS) / 2..].fill(0);
        }
        // Mostly the highest score stays, and e^0 is exactly one.
        let mut shrink = [1.0; SIDE];
        if before != self.highest[row] {
            l.write(&mut shrink, exp(l, l.sub(l.splat(before), highest)));
        }
        if shrink[0] != 1.0 {
            let width = self.shape.width();
            for at in (row * width..(row + 1) * width).step_by(L::N) {
                let sum = without_dust(l, l.mul(l.read(&self.sums[at..]), l.splat(shrink[0])));
                l.write(&mut self.sums[at..], sum);
            }
        }
        self.weights[row] = self.weights[row] * shrink[0] + l.sum(sum);
    }

    /// `sums += Σ p · v`.
    #[inline(always)]
    fn add_values<T: Tiles>(&mut self, tiles: &mut T, block: &[Page<'_>], (first, count): (usize, usize)) {
        let (width, both) = (self.shape.width(), count > SIDE);
        for column in (0..width).step_by(2 * SIDE) {
            let wide = column + SIDE < width;
            // SAFETY: there are whole tiles of rows and columns of sums, two rows of tiles of powers in which every page of
            // the block has its place, and half a page of lines of values of the same columns.
            unsafe {
                let upper = self.sums.as_mut_ptr().add(first * width + column);
                let lower = upper.add(SIDE * width);
                tiles.load::<0>(upper.cast(), width * 4);
                if wide {
                    tiles.load::<1>(upper.add(SIDE).cast(), width * 4);
                }
                if both {
                    tiles.load::<2>(lower.cast(), width * 4);
                    if wide {
                        tiles.load::<3>(lower.add(SIDE).cast(), width * 4);
                    }
                }
                for (number, page) in block.iter().enumerate() {
                    let powers = self.powers.0.as_flattened().as_ptr().add(number * PAGE_TOKENS / 2);
                    let values = page.values.as_ptr().add(column);
                    tiles.load::<4>(powers, BLOCK * 2);
                    tiles.load::<6>(values, width * 4);
                    tiles.multiply::<0, 4, 6>();
                    if both {
                        tiles.load::<5>(powers.add(SIDE * BLOCK / 2), BLOCK * 2);
                        tiles.multiply::<2, 5, 6>();
                    }
                    if wide {
                        tiles.load::<7>(values.add(SIDE), width * 4);
                        tiles.multiply::<1, 4, 7>();
                        if both {
                            tiles.multiply::<3, 5, 7>();
                        }
                    }
                }
                tiles.store::<0>(upper, width * 4);
                if wide {
                    tiles.store::<1>(upper.add(SIDE), width * 4);
                }
                if both {
                    tiles.store::<2>(lower, width * 4);
                    if wide {
                        tiles.store::<3>(lower.add(SIDE), width * 4);
                    }
                }
            }
        }
    }

    /// The same where a row must not meet the values that it does not see.
    #[cold]
    #[inline(never)]
    fn add_values_apart<T: Tiles>(
        &mut self,
        tiles: &mut T,
        block: &[Page<'_>],
        (first, count): (usize, usize),
        sees: &impl Fn(usize) -> usize,
    ) {
        let width = self.shape.width();
        let place = first * width..(first + count) * width;
        let before = self.sums[place.clone()].to_vec();
        let mut after = before.clone();
        for seen in 1..=block.len() * PAGE_TOKENS {
            let mine: Vec<usize> = (0..count).filter(|row| sees(first + row) == seen).collect();
            if mine.is_empty() {
                continue;
            }
            let seen_of = |(number, page): (usize, &Page<'_>)| -> Vec<u32> {
                let half =
                    |token: usize, bits: u32| if number * PAGE_TOKENS + token < seen { bits } else { 0 };
                let kept =
                    |at: usize| half(2 * (at / width), 0xffff) | half(2 * (at / width) + 1, 0xffff_0000);
                page.values.iter().enumerate().map(|(at, word)| word & kept(at)).collect()
            };
            let values: Vec<Vec<u32>> = block.iter().enumerate().map(seen_of).collect();
            let block: Vec<Page<'_>> =
                block.iter().zip(&values).map(|(&page, values)| Page { values, ..page }).collect();
            self.sums[place.clone()].copy_from_slice(&before);
            self.add_values(tiles, &block, (first, count));
            for row in mine {
                let row = row * width..(row + 1) * width;
                after[row.clone()].copy_from_slice(&self.sums[place.clone()][row]);
            }
        }
        // A row that sees nothing of the block keeps what it had.
        self.sums[place].copy_from_slice(&after);
    }

    /// What row `row` has gathered, divided by the sum of its weights.
    #[inline(always)]
    pub(super) fn finish<L: Lanes>(&self, l: L, row: usize, out: &mut [f32]) {
        let sums = &self.sums[row * self.shape.width()..];
        let weight = l.splat(self.weights[row]);
        for at in (0..out.len()).step_by(L::N) {
            let value = l.div(l.read(&sums[at..]), weight);
            l.write(&mut out[at..], value);
        }
    }
}

/// Products of some rows with a block's keys.
#[repr(align(64))]
struct Scores([[f32; BLOCK]; ROWS]);

/// The weights of some rows' tokens in bf16, two to a word; zero where a row does not see a token.
#[repr(align(64))]
struct Powers([[u32; BLOCK / 2]; ROWS]);

/// Makes tiles of the keys of a page, lines of [`PAGE_TOKENS`] tokens, one for each coordinate.
#[inline(always)]
pub(super) fn tile_keys<L: Lanes, E: Stored>(l: L, (keys, next): (&[E], *const E), to: &mut [u32]) {
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
pub(super) fn tile_values<L: Lanes, E: Stored>(
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
pub(super) fn tile_rows_of_keys<L: Lanes>(l: L, (keys, stride, dim): (&[f32], usize, usize), to: &mut [u32]) {
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
pub(super) fn tile_rows_of_values<L: Lanes>(
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
