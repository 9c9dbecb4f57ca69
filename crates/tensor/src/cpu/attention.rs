//! Attention: queries that share a key head share the reading of its keys and values, block after block.
//!
//! A query sees the blocks of [`BLOCK`] tokens that stand at its sequence's absolute positions, in order, and of
//! the last one only the tokens up to its own. What else is in a block cannot change its bits, because queries with
//! different limits part ways before they look at it. A block is a step of the online softmax: the more tokens it has, the
//! less often a highest score is looked for and sums are loaded and stored.

mod block;
mod segments;
mod stored;
#[cfg(test)]
mod tests;
mod tiled;

use std::array;
use std::marker::PhantomData;
use std::ops::Range;

use half::bf16;

use crate::cpu::dispatch::{Level, Work};
use crate::cpu::lanes::Lanes;
use crate::cpu::split::{Claims, Disjoint};
use crate::cpu::tiles::{Hardware, SIDE, Tiles};
use crate::kernels::Heads;
use crate::kv::Plane;
use crate::{Fused, Isa, KvArena, KvDtype, PAGE_TOKENS, Pool, Queries, Ragged};

use self::block::{NO_SCALES, QUERIES, Query};
use self::stored::Stored;
use self::tiled::{Rows, Shape, sharing};

pub(super) use self::segments::attend_segments;

/// Pages of a block.
const BLOCK_PAGES: usize = 4;

/// Tokens of a block.
const BLOCK: usize = BLOCK_PAGES * PAGE_TOKENS;

/// Tokens of a sequence that make one item of work.
const TOKENS: usize = 48;

/// Queries of an item that lanes are quicker with than tiles.
const FEW: usize = 8;

/// Products below which a call stays on the calling thread.
const ALONE: usize = 1 << 17;

/// What one worker does at a time: some tokens of a sequence with one key head.
#[derive(Clone, Copy)]
struct Item {
    /// Which span or segment.
    sequence: usize,
    kv_head: usize,
    /// The first token.
    first: usize,
    tokens: usize,
}

/// Working memory that grows to the largest call.
#[derive(Default)]
pub(super) struct Workspace {
    items: Vec<Item>,
    segments: Vec<segments::Segment>,
    /// Keys, and values for tiles, of segments.
    blocks: Vec<f32>,
    /// What every worker needs where attention goes by tiles.
    tiled: Vec<f32>,
}

/// The queries of a call and where their results go.
#[derive(Clone, Copy)]
struct Calls<'a> {
    /// Rows that begin with queries.
    rows: &'a [f32],
    /// Elements from one row to the next.
    stride: usize,
    heads: Heads,
    out: Disjoint,
}

/// Which tokens of its sequence a query sees.
#[derive(Clone, Copy)]
enum Sight {
    /// Those up to its own.
    Before,
    /// All.
    All,
}

impl<'a> Calls<'a> {
    /// Row and query head of query number `i`.
    #[inline(always)]
    fn place(&self, (first_row, kv_head): (usize, usize), i: usize) -> (usize, usize) {
        let group = self.heads.query / self.heads.kv;
        (first_row + i / group, kv_head * group + i % group)
    }

    /// A head of a row.
    #[inline(always)]
    fn query(self, (row, head): (usize, usize)) -> &'a [f32] {
        let dim = self.heads.dim;
        &self.rows[row * self.stride + head * dim..][..dim]
    }

    /// Where a head of a row's output goes.
    ///
    /// # Safety
    /// The row exists, and nobody else has this head of it.
    #[inline(always)]
    unsafe fn output(self, (row, head): (usize, usize)) -> &'a mut [f32] {
        let Heads { query, dim, .. } = self.heads;
        // SAFETY: the row has a place for each query head; the rest is the caller's.
        unsafe { self.out.part((row * query + head) * dim, dim) }
    }

    /// The queries number `range` of those of an item, counted token by token and head by head inside of a token;
    /// `first` is the row of the item's first token and its key head.
    ///
    /// # Safety
    /// The rows exist, and nobody else has queries of these rows with this key head.
    #[inline(always)]
    unsafe fn queries(&self, first: (usize, usize), range: Range<usize>, queries: &mut [Query]) {
        for (i, slot) in range.zip(queries) {
            let place = self.place(first, i);
            let q = self.query(place).as_ptr();
            // SAFETY: the caller's.
            let out = unsafe { self.output(place) };
            out.fill(0.0);
            *slot = Query { q, out: out.as_mut_ptr(), highest: f32::NEG_INFINITY, weight: 0.0 };
        }
    }
}

/// Has the queries read in bf16 from `memory`.
///
/// # Safety
/// The queries are `dim` long, and `memory` is not used for anything else while they live.
#[inline(always)]
unsafe fn round<L: Lanes>(l: L, queries: &mut [Query], dim: usize, memory: &mut [f32]) {
    for (query, to) in queries.iter_mut().zip(memory.chunks_exact_mut(dim)) {
        // SAFETY: the caller's.
        let from = unsafe { std::slice::from_raw_parts(query.q, dim) };
        for at in (0..dim).step_by(L::N) {
            let value = l.round_bf16(l.read(&from[at..]));
            l.write(&mut to[at..], value);
        }
        query.q = to.as_ptr();
    }
}

/// Divides what the queries have gathered by the sum of their weights.
///
/// # Safety
/// The queries' `out` is theirs alone and `dim` long.
#[inline(always)]
unsafe fn finish<L: Lanes>(l: L, queries: &[Query], dim: usize) {
    for query in queries {
        // SAFETY: the caller's.
        let out = unsafe { std::slice::from_raw_parts_mut(query.out, dim) };
        let weight = l.splat(query.weight);
        for at in (0..dim).step_by(L::N) {
            let value = l.div(l.read(&out[at..]), weight);
            l.write(&mut out[at..], value);
        }
    }
}

/// Causal attention against pages.
pub(super) fn attend(
    (qkv, batch): (Fused<'_>, &Ragged),
    kv: (&KvArena, usize),
    (level, pool): (Level, &Pool),
    workspace: &mut Workspace,
    out: &mut [f32],
) {
    let (rows, heads) = (qkv.rows, qkv.heads);
    let calls = Calls { rows, stride: heads.fused(), heads, out: Disjoint::new(out) };
    paged((calls, Sight::Before), batch, kv, (level, pool), workspace);
}

/// Attention against all that the pages of a sequence hold.
pub(super) fn attend_all(
    (queries, batch): (Queries<'_>, &Ragged),
    kv: (&KvArena, usize),
    (level, pool): (Level, &Pool),
    workspace: &mut Workspace,
    out: &mut [f32],
) {
    let Queries { rows, heads } = queries;
    let calls = Calls { rows, stride: heads.query * heads.dim, heads, out: Disjoint::new(out) };
    paged((calls, Sight::All), batch, kv, (level, pool), workspace);
}

fn paged(
    (calls, sight): (Calls<'_>, Sight),
    batch: &Ragged,
    kv: (&KvArena, usize),
    (level, pool): (Level, &Pool),
    Workspace { items, tiled, .. }: &mut Workspace,
) {
    let (heads, dtype) = (calls.heads, kv.0.layout().dtype);
    let by_tiles = level.isa() == Isa::Amx && dtype != KvDtype::F32;
    let group = heads.query / heads.kv;
    let queries = batch.rows() * heads.query;
    let most = if by_tiles { (sharing(queries, pool.threads()) / group).max(1) } else { TOKENS };
    items.clear();
    let mut products = 0;
    for (sequence, span) in batch.spans.iter().enumerate() {
        products += span.rows * (span.context + span.rows) * heads.query * heads.dim;
        // The last tokens have the most keys to see, so they come first and the small ones fill the gaps.
        for first in (0..span.rows).step_by(most).rev() {
            let tokens = (span.rows - first).min(most);
            items.extend((0..heads.kv).map(|kv_head| Item { sequence, kv_head, first, tokens }));
        }
    }
    let items = items.as_slice();
    let words = if by_tiles { memory(heads, items) } else { 0 };
    let tiled = parts(tiled, (words, pool.threads()));
    share_out(pool, (items.len(), products), &|item, worker| {
        let paged = Paged { calls, sight, batch, kv, item: items[item] };
        // SAFETY: there are as many words for every worker, who is the only one of its number.
        let memory = unsafe { tiled.part(worker * words, words) };
        match dtype {
            KvDtype::Bf16 if by_tiles => paged.run_tiled::<bf16>(level, memory),
            KvDtype::Int8 if by_tiles => paged.run_tiled::<i8>(level, memory),
            KvDtype::F32 => level.run(ByLanes::<f32, false> { paged, memory, stored: PhantomData }),
            KvDtype::Bf16 => level.run(ByLanes::<bf16, false> { paged, memory, stored: PhantomData }),
            KvDtype::Int8 => level.run(ByLanes::<i8, false> { paged, memory, stored: PhantomData }),
        }
    });
}

/// Words that a worker needs for any of the items by tiles: rows, and a block.
fn memory(heads: Heads, items: &[Item]) -> usize {
    let tokens = items.iter().map(|item| item.tokens).max().unwrap_or(0);
    let shape = Shape { rows: tokens * heads.query / heads.kv, dim: heads.dim };
    // Lanes need less: the queries that go together, rounded.
    (shape.words() + BLOCK_PAGES * (shape.keys() + shape.values()))
        .max(QUERIES * heads.dim)
        .next_multiple_of(16)
}

/// Some parts of as many words, in memory that grows to the largest call and begins with a cache line.
fn parts(memory: &mut Vec<f32>, (words, count): (usize, usize)) -> Disjoint {
    let all = words * count;
    if memory.len() < all + 16 {
        memory.resize(all + 16, 0.0);
    }
    let aligned = memory.as_ptr().align_offset(64);
    Disjoint::new(&mut memory[aligned..aligned + all])
}

/// Does `work` for every item, on all workers if there is enough of it; it is told the worker's number.
fn share_out(pool: &Pool, (items, products): (usize, usize), work: &(dyn Fn(usize, usize) + Sync)) {
    if products < ALONE {
        return (0..items).for_each(|item| work(item, 0));
    }
    let claims = Claims::new(0..items, pool.threads());
    pool.run(&|worker| claims.claim().for_each(|item| work(item, worker)));
}

/// An item of attention against pages.
#[derive(Clone, Copy)]
struct Paged<'a> {
    calls: Calls<'a>,
    sight: Sight,
    batch: &'a Ragged,
    kv: (&'a KvArena, usize),
    item: Item,
}

/// What one key head has of a page.
struct OfHead<'a, E> {
    keys: &'a [E],
    values: &'a [E],
    /// Of the keys and of the values, where they have some.
    scales: Option<(&'a [f32], &'a [f32])>,
}

impl<'a> Paged<'a> {
    /// The item by tiles, or by lanes to the same bits where there are few queries for them.
    fn run_tiled<E: Stored>(self, level: Level, memory: &'a mut [f32]) {
        if self.count() <= FEW {
            return level.run(ByLanes::<E, true> { paged: self, memory, stored: PhantomData });
        }
        // SAFETY: a level is made where the machine runs it, and AMX counts only where it is permitted.
        let tiles = unsafe { Hardware::configure(SIDE) };
        level.run_by_tiles(Tiled::<E, _> { paged: self, memory, tiles, stored: PhantomData });
    }

    /// The pages of the item's sequence.
    #[inline(always)]
    fn pages(&self) -> &'a [u32] {
        &self.batch.pages[self.batch.spans[self.item.sequence].pages.clone()]
    }

    /// What the item's key head has of a page.
    #[inline(always)]
    fn of_head<E: Stored>(&self, page: u32) -> OfHead<'a, E> {
        let (kv, layer) = self.kv;
        let (keys, values) = kv.planes(page, layer);
        let (head, size) = (self.item.kv_head, self.calls.heads.dim * PAGE_TOKENS);
        let numbers = |of: &Plane| &kv.numbers::<E>(of)[head * size..(head + 1) * size];
        let scales = |of: &Plane| &kv.scales(of)[head * PAGE_TOKENS..(head + 1) * PAGE_TOKENS];
        let scales = E::SCALED.then(|| (scales(&keys), scales(&values)));
        OfHead { keys: numbers(&keys), values: numbers(&values), scales }
    }

    /// Queries of the item.
    #[inline(always)]
    fn count(&self) -> usize {
        self.item.tokens * self.calls.heads.query / self.calls.heads.kv
    }

    /// The row of the item's first token, and its key head.
    #[inline(always)]
    fn first(&self) -> (usize, usize) {
        (self.batch.spans[self.item.sequence].first_row + self.item.first, self.item.kv_head)
    }

    /// How many keys the query number `i` sees.
    #[inline(always)]
    fn sees(&self, i: usize) -> usize {
        let span = &self.batch.spans[self.item.sequence];
        match self.sight {
            Sight::Before => {
                span.context + self.item.first + i / (self.calls.heads.query / self.calls.heads.kv) + 1
            }
            Sight::All => span.context + span.rows,
        }
    }

    /// How many tokens query number `i` sees of the block that `behind` others stand before.
    #[inline(always)]
    fn sees_of(&self, i: usize, behind: usize) -> usize {
        self.sees(i).saturating_sub(behind).min(BLOCK)
    }
}

/// An item by lanes, to the bits of tiles if it is `TILED`.
struct ByLanes<'a, E, const TILED: bool> {
    paged: Paged<'a>,
    /// For this worker alone, as many words as [`memory`] says.
    memory: &'a mut [f32],
    stored: PhantomData<E>,
}

impl<L: Lanes, E: Stored, const TILED: bool> Work<L> for ByLanes<'_, E, TILED> {
    #[inline(always)]
    fn run(self, l: L) {
        let (paged, pages) = (self.paged, self.paged.pages());
        let dim = paged.calls.heads.dim;
        let mut queries = [Query::NONE; QUERIES];
        let count = paged.count();
        for first in (0..count).step_by(QUERIES) {
            let range = first..(first + QUERIES).min(count);
            let queries = &mut queries[..range.len()];
            // SAFETY: the rows are the item's, and no other item has both its tokens and its key head. What a head has of
            // a page is `PAGE_TOKENS` keys and values.
            unsafe {
                paged.calls.queries(paged.first(), range, queries);
                if TILED {
                    round(l, queries, dim, self.memory);
                }
                let last = paged.sees(first + queries.len() - 1);
                for behind in (0..last).step_by(BLOCK) {
                    // Nothing follows the last page, so it stands for its own successor.
                    let page = |number: usize| {
                        let OfHead { keys, values, scales } =
                            paged.of_head::<E>(pages[number.min(pages.len() - 1)]);
                        let scales = scales.map_or(NO_SCALES, |(k, v)| (k.as_ptr(), v.as_ptr()));
                        block::Page { keys: keys.as_ptr(), values: values.as_ptr(), scales }
                    };
                    let pages = array::from_fn(|number| page(behind / PAGE_TOKENS + number));
                    let mut start = 0;
                    while start < queries.len() {
                        let tokens = paged.sees_of(first + start, behind);
                        let alike = |i: usize| paged.sees_of(first + i, behind) == tokens;
                        let end = (start..queries.len()).find(|&i| !alike(i)).unwrap_or(queries.len());
                        if tokens > 0 {
                            let block = block::Block { pages, stride: dim, tokens, dim };
                            block::pass::<_, _, _, TILED>(l, &mut queries[start..end], block);
                        }
                        start = end;
                    }
                }
                finish(l, queries, dim);
            }
        }
    }
}

/// An item by tiles.
struct Tiled<'a, E, T> {
    paged: Paged<'a>,
    /// For this worker alone, as many words as [`memory`] says.
    memory: &'a mut [f32],
    tiles: T,
    stored: PhantomData<E>,
}

impl<L: Lanes, E: Stored, T: Tiles> Work<L> for Tiled<'_, E, T> {
    #[inline(always)]
    fn run(self, l: L) {
        let Self { paged, memory, mut tiles, .. } = self;
        let (calls, pages_of, count) = (paged.calls, paged.pages(), paged.count());
        let shape = Shape { rows: count, dim: calls.heads.dim };
        let (tiled, memory) = memory.split_at_mut(BLOCK_PAGES * (shape.keys() + shape.values()));
        let query = |i: usize| calls.query(calls.place(paged.first(), i));
        let mut rows = Rows::begin(l, shape, &mut memory[..shape.words()], query);
        let all = paged.sees(count - 1);
        for behind in (0..all).step_by(BLOCK) {
            let mut block = [tiled::Page::default(); BLOCK_PAGES];
            let mut alone = false;
            let pages = (behind..all.min(behind + BLOCK)).step_by(PAGE_TOKENS);
            let used = pages.len();
            let memory = tiled.chunks_exact_mut(shape.keys() + shape.values());
            for ((page, start), memory) in block.iter_mut().zip(pages).zip(memory) {
                let here = paged.of_head::<E>(pages_of[start / PAGE_TOKENS]);
                let next = pages_of.get(start / PAGE_TOKENS + 1).map(|&page| paged.of_head::<E>(page));
                let next = next.as_ref().unwrap_or(&here);
                let (keys, values) = bytemuck::cast_slice_mut(memory).split_at_mut(shape.keys());
                let seen = (shape.dim, (all - start).min(PAGE_TOKENS));
                tiled::tile_keys(l, (here.keys, next.keys.as_ptr()), keys);
                alone |= tiled::tile_values(l, (here.values, next.values.as_ptr()), seen, values);
                *page = tiled::Page { keys, values, scales: here.scales };
            }
            rows.pass(l, &mut tiles, (&block[..used], alone), |i| paged.sees_of(i, behind));
        }
        for i in 0..count {
            // SAFETY: the rows are the item's, and no other item has both its tokens and its key head.
            rows.finish(l, i, unsafe { calls.output(calls.place(paged.first(), i)) });
        }
    }
}
