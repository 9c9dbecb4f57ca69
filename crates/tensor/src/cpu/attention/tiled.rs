//! Attention by tiles: rows of queries against one block of keys and values in bf16 after the other.
//!
//! A row is a query, and its bits follow from the blocks that it sees, in their order, whatever rows share its tiles.
//! Queries and weights are rounded to bf16, sums and the softmax are f32.
//!
//! Rows go through the tiles in groups. While lanes turn the products of a group into weights, tiles multiply values for the
//! group before it and keys for the one behind it, a step between two rows: tiles and lanes of a core work at the same time
//! where their instructions stand next to each other.

mod pages;
mod row;

use std::f32::consts::LOG2_E;

use half::bf16;

use crate::PAGE_TOKENS;
use crate::cpu::lanes::Lanes;
use crate::cpu::math::{power_of_two_for_bf16, without_dust};
use crate::cpu::tiles::{SIDE, Tiles};
use crate::packed::DEPTH;

use self::row::Row;
use super::{BLOCK, BLOCK_PAGES};

pub(super) use pages::{tile_keys, tile_rows_of_keys, tile_rows_of_values, tile_values};

/// Rows that go through the tiles together.
const ROWS: usize = 2 * SIDE;

/// Rows that share the tiles that are made of a block, unless there are fewer, or a single token has more of them.
pub(super) const LEAST_SHARING: usize = 128;

/// The same where that leaves each of so many workers some items of `queries`: to make tiles of a page takes as long as three
/// groups of rows take to meet them.
pub(super) fn sharing(queries: usize, workers: usize) -> usize {
    const ITEMS: usize = 4;
    (queries / (ITEMS * workers)).clamp(LEAST_SHARING, 4 * LEAST_SHARING)
}

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

/// What makes products powers of two, when they are multiplied with it.
pub(super) fn scale(dim: usize) -> f32 {
    LOG2_E / (dim as f32).sqrt()
}

/// Rows of queries on their way through the blocks.
pub(super) struct Rows<'a> {
    shape: Shape,
    /// `[rows][depth]`, in bf16.
    queries: &'a mut [u32],
    /// `[rows][width]`: Σ p · v of the blocks behind.
    sums: &'a mut [f32],
    /// The highest score so far, as a power of two.
    highest: &'a mut [f32],
    /// Σ p of the blocks behind, with `p = 2^(score − highest)`.
    weights: &'a mut [f32],
    /// Those of every other group.
    scores: [Scores; 2],
}

/// Words from one row of scores to the next: more than a block, so that rows do not all fall into the same sets of the cache.
const LINE: usize = BLOCK + SIDE;

/// Products of the rows of a group with a block's keys; then, in the first half of each row, weights in bf16, two to a word,
/// zero where the row does not see a token.
#[repr(align(64))]
struct Scores([[f32; LINE]; ROWS]);

/// Rows that go through the tiles together, and what they see.
#[derive(Clone, Copy)]
struct Group<'p> {
    number: usize,
    /// The first row.
    first: usize,
    rows: usize,
    /// The pages of the block of which the last row sees something.
    pages: &'p [Page<'p>],
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
                unsafe { l.store_bf16(to.as_mut_ptr().cast::<bf16>().add(at), l.read(&query[at..])) };
            }
        }
        weights[..rows].fill(0.0);
        let scores = [Scores([[0.0; LINE]; ROWS]), Scores([[0.0; LINE]; ROWS])];
        Self { shape, queries, sums, highest, weights: &mut weights[..rows], scores }
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
        let all = self.shape.rows;
        let group = |number: usize| {
            let first = number * ROWS;
            let rows = (all - first).min(ROWS);
            Group { number, first, rows, pages: &block[..sees(first + rows - 1).div_ceil(PAGE_TOKENS)] }
        };
        let last = all.div_ceil(ROWS) - 1;
        self.multiply_all_keys(tiles, group(0));
        for number in 0..=last {
            let here = group(number);
            if alone {
                (0..here.rows).for_each(|row| self.soften(l, (here, row), sees(here.first + row)));
                self.add_values_apart(tiles, here, &sees);
                if number < last {
                    self.multiply_all_keys(tiles, group(number + 1));
                }
                continue;
            }
            let (before, after) = (group(number.saturating_sub(1)), group((number + 1).min(last)));
            let values = if number > 0 { self.steps_of_values(before) } else { 0 };
            let keys = if number < last { self.steps_of_keys(after) } else { 0 };
            let mut done = 0;
            for row in 0..here.rows {
                self.soften(l, (here, row), sees(here.first + row));
                let due = (values + keys) * (row + 1) / here.rows;
                for step in done..due {
                    // The keys come last, since their products take the place of the weights that the values meet.
                    match step.checked_sub(values) {
                        None => self.add_values(tiles, before, step),
                        Some(step) => self.multiply_keys(tiles, after, step),
                    }
                }
                done = due;
            }
        }
        if !alone {
            self.add_all_values(tiles, group(last));
        }
    }

    /// Steps of [`Rows::multiply_keys`].
    #[inline(always)]
    fn steps_of_keys(&self, group: Group<'_>) -> usize {
        group.pages.len() * self.shape.depth() / DEPTH
    }

    #[inline(always)]
    fn multiply_all_keys<T: Tiles>(&mut self, tiles: &mut T, group: Group<'_>) {
        (0..self.steps_of_keys(group)).for_each(|step| self.multiply_keys(tiles, group, step));
    }

    /// `scores = q · k`, the steps of a page one after the other. Sums stay in tiles 0 to 3 from step to step.
    #[inline(always)]
    fn multiply_keys<T: Tiles>(&mut self, tiles: &mut T, group: Group<'_>, step: usize) {
        const KEYS: usize = PAGE_TOKENS * 4;
        let (words, both) = (self.shape.depth() / 2, group.rows > SIDE);
        let steps = self.shape.depth() / DEPTH;
        let (number, step) = (step / steps, step % steps);
        if step == 0 {
            tiles.zero::<0>();
            tiles.zero::<1>();
            tiles.zero::<2>();
            tiles.zero::<3>();
        }
        // SAFETY: there are whole tiles of rows, and a page has `depth / 2` lines.
        unsafe {
            let queries = self.queries.as_ptr().add(group.first * words + step * SIDE);
            let keys = group.pages[number].keys.as_ptr().add(step * SIDE * PAGE_TOKENS);
            tiles.load::<4>(queries, words * 4);
            tiles.load::<6>(keys, KEYS);
            tiles.multiply::<0, 4, 6>();
            tiles.load::<7>(keys.add(SIDE), KEYS);
            tiles.multiply::<1, 4, 7>();
            if both {
                tiles.load::<5>(queries.add(SIDE * words), words * 4);
                tiles.multiply::<2, 5, 6>();
                tiles.multiply::<3, 5, 7>();
            }
        }
        if step + 1 < steps {
            return;
        }
        // SAFETY: the scores are two rows of tiles of a line, in which every page of the block has its place.
        unsafe {
            let scores = &mut self.scores[group.number % 2];
            let to = scores.0.as_flattened_mut().as_mut_ptr().add(number * PAGE_TOKENS);
            tiles.store::<0>(to, LINE * 4);
            tiles.store::<1>(to.add(SIDE), LINE * 4);
            if both {
                tiles.store::<2>(to.add(SIDE * LINE), LINE * 4);
                tiles.store::<3>(to.add(SIDE * LINE + SIDE), LINE * 4);
            }
        }
    }

    /// Turns a row's products into weights, and brings its highest score, its weight and its sums up to date.
    #[inline(always)]
    fn soften<L: Lanes>(&mut self, l: L, (group, row): (Group<'_>, usize), seen: usize) {
        let at = group.first + row;
        let before = self.highest[at];
        let scale = scale(self.shape.dim);
        let row = Row { pages: group.pages, seen, scores: &mut self.scores[group.number % 2].0[row] };
        let (highest, sum) = match seen {
            0 => return row.scores[..group.pages.len() * PAGE_TOKENS / 2].fill(0.0),
            _ if seen == group.pages.len() * PAGE_TOKENS => row.soften::<_, true>(l, scale, before),
            _ => row.soften::<_, false>(l, scale, before),
        };
        self.highest[at] = highest;
        // Mostly the highest score stays.
        let mut shrink = 1.0;
        if before != highest {
            let mut powers = [0.0; SIDE];
            l.write(&mut powers, power_of_two_for_bf16(l, l.splat(before - highest)));
            shrink = powers[0];
            let width = self.shape.width();
            for at in (at * width..(at + 1) * width).step_by(L::N) {
                let sum = without_dust(l, l.mul(l.read(&self.sums[at..]), l.splat(shrink)));
                l.write(&mut self.sums[at..], sum);
            }
        }
        self.weights[at] = self.weights[at] * shrink + sum;
    }

    /// Steps of [`Rows::add_values`].
    #[inline(always)]
    fn steps_of_values(&self, group: Group<'_>) -> usize {
        self.shape.width().div_ceil(2 * SIDE) * group.pages.len()
    }

    #[inline(always)]
    fn add_all_values<T: Tiles>(&mut self, tiles: &mut T, group: Group<'_>) {
        (0..self.steps_of_values(group)).for_each(|step| self.add_values(tiles, group, step));
    }

    /// `sums += Σ p · v`, for some columns page after page. Sums stay in tiles 0 to 3 from step to step.
    #[inline(always)]
    fn add_values<T: Tiles>(&mut self, tiles: &mut T, group: Group<'_>, step: usize) {
        let (width, both, pages) = (self.shape.width(), group.rows > SIDE, group.pages.len());
        let (column, number) = (step / pages * 2 * SIDE, step % pages);
        let wide = column + SIDE < width;
        // SAFETY: there are whole tiles of rows and columns of sums, two rows of tiles of weights in which every page of
        // the block has its place, and half a page of lines of values of the same columns.
        unsafe {
            let upper = self.sums.as_mut_ptr().add(group.first * width + column);
            let lower = upper.add(SIDE * width);
            if number == 0 {
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
            }
            let scores = &self.scores[group.number % 2];
            let weights: *const u32 = scores.0.as_flattened().as_ptr().add(number * PAGE_TOKENS / 2).cast();
            let values = group.pages[number].values.as_ptr().add(column);
            tiles.load::<4>(weights, LINE * 4);
            tiles.load::<6>(values, width * 4);
            tiles.multiply::<0, 4, 6>();
            if both {
                tiles.load::<5>(weights.add(SIDE * LINE), LINE * 4);
                tiles.multiply::<2, 5, 6>();
            }
            if wide {
                tiles.load::<7>(values.add(SIDE), width * 4);
                tiles.multiply::<1, 4, 7>();
                if both {
                    tiles.multiply::<3, 5, 7>();
                }
            }
            if number + 1 < pages {
                return;
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

    /// The same, all of it, where a row must not meet the values that it does not see.
    #[cold]
    #[inline(never)]
    fn add_values_apart<T: Tiles>(
        &mut self,
        tiles: &mut T,
        group: Group<'_>,
        sees: &impl Fn(usize) -> usize,
    ) {
        let width = self.shape.width();
        let place = group.first * width..(group.first + group.rows) * width;
        let before = self.sums[place.clone()].to_vec();
        let mut after = before.clone();
        for seen in 1..=group.pages.len() * PAGE_TOKENS {
            let mine: Vec<usize> = (0..group.rows).filter(|row| sees(group.first + row) == seen).collect();
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
            let values: Vec<Vec<u32>> = group.pages.iter().enumerate().map(seen_of).collect();
            let pages: Vec<Page<'_>> =
                group.pages.iter().zip(&values).map(|(&page, values)| Page { values, ..page }).collect();
            self.sums[place.clone()].copy_from_slice(&before);
            self.add_all_values(tiles, Group { pages: &pages, ..group });
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
