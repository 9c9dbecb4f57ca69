//! Bidirectional attention inside segments: keys, and for tiles values too, are first brought into the form that blocks of
//! pages have.

use std::array;

use crate::cpu::dispatch::{Level, Work};
use crate::cpu::lanes::Lanes;
use crate::cpu::split::Disjoint;
use crate::cpu::tiles::{Hardware, SIDE, Tiles};
use crate::kernels::Heads;
use crate::{Dtype, Fused, Isa, PAGE_TOKENS, Pool};

use super::block::{self, Block, NO_SCALES, QUERIES, Query};
use super::tiled::{self, LEAST_SHARING, Rows, Shape};
use super::{BLOCK, BLOCK_PAGES, Calls, Item, TOKENS, Workspace, finish, memory, parts, share_out};

/// Some rows of a call that see each other.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    first_row: usize,
    rows: usize,
    /// Its first packed block, of all key heads.
    first_block: usize,
}

impl Segment {
    fn blocks(&self) -> usize {
        self.rows.div_ceil(PAGE_TOKENS)
    }
}

/// Attention of every row to all rows of its segment, in `dtype`.
pub(in crate::cpu) fn attend_segments(
    (qkv, lengths, dtype): (Fused<'_>, &[usize], Dtype),
    (level, pool): (Level, &Pool),
    Workspace { items, segments, blocks, tiled }: &mut Workspace,
    out: &mut [f32],
) {
    let heads = qkv.heads;
    let by_tiles = level.isa() == Isa::Amx && dtype == Dtype::Bf16;
    let group = heads.query / heads.kv;
    let most = if by_tiles { (LEAST_SHARING / group).max(1) } else { TOKENS };
    items.clear();
    segments.clear();
    let mut end = Segment { first_row: 0, rows: 0, first_block: 0 };
    let mut products = 0;
    for (sequence, &rows) in lengths.iter().enumerate() {
        segments.push(Segment { rows, ..end });
        end.first_row += rows;
        end.first_block += rows.div_ceil(PAGE_TOKENS);
        products += rows * rows * heads.query * heads.dim;
        for first in (0..rows).step_by(most) {
            let tokens = (rows - first).min(most);
            items.extend((0..heads.kv).map(|kv_head| Item { sequence, kv_head, first, tokens }));
        }
    }
    let shape = Shape { rows: 0, dim: heads.dim };
    let block = heads.kv * if by_tiles { shape.keys() + shape.values() } else { heads.dim * PAGE_TOKENS };
    let packed = parts(blocks, (end.first_block * block, 1));
    share_out(pool, (segments.len(), products), &|segment, _| {
        let segment = segments[segment];
        // SAFETY: segments have blocks of their own, all inside of `packed`.
        let to = unsafe { packed.part(segment.first_block * block, segment.blocks() * block) };
        if by_tiles {
            level.run_by_tiles(PackTiles { qkv, segment, to });
        } else {
            pack_keys(qkv, segment, to);
        }
    });
    let calls = Calls { rows: qkv.rows, stride: heads.fused(), heads, out: Disjoint::new(out) };
    let words = if by_tiles { memory(heads, items) } else { 0 };
    let tiled = parts(tiled, (words, pool.threads()));
    share_out(pool, (items.len(), products), &|item, worker| {
        let (item, segment) = (items[item], segments[items[item].sequence]);
        // SAFETY: all blocks are packed, and nobody writes to them any more.
        let blocks = unsafe { &*packed.part(segment.first_block * block, segment.blocks() * block) };
        let within = Within { calls, segment, blocks, item };
        if by_tiles {
            // SAFETY: there are as many words for every worker, who is the only one of its number.
            let memory = unsafe { tiled.part(worker * words, words) };
            // SAFETY: a level is made where the machine runs it, and AMX counts only where it is permitted.
            let tiles = unsafe { Hardware::configure(SIDE) };
            level.run_by_tiles(WithinByTiles { within, memory, tiles });
        } else {
            level.run(within);
        }
    });
}

/// Makes tiles of the keys and values of a segment: for every block and key head its keys, then its values.
struct PackTiles<'a> {
    qkv: Fused<'a>,
    segment: Segment,
    to: &'a mut [f32],
}

impl<L: Lanes> Work<L> for PackTiles<'_> {
    #[inline(always)]
    fn run(self, l: L) {
        let Self { qkv: Fused { rows, heads }, segment, to } = self;
        let Heads { query, kv, dim } = heads;
        let shape = Shape { rows: 0, dim };
        let fused = heads.fused();
        let rows = &rows[segment.first_row * fused..][..segment.rows * fused];
        for (number, to) in to.chunks_exact_mut(shape.keys() + shape.values()).enumerate() {
            let (block, head) = (number / kv, number % kv);
            let rows = &rows[block * PAGE_TOKENS * fused..];
            let rows = &rows[..rows.len().min(PAGE_TOKENS * fused)];
            let (keys, values) = to.split_at_mut(shape.keys());
            let at = (query + head) * dim;
            tiled::tile_rows_of_keys(l, (&rows[at..], fused, dim), bytemuck::cast_slice_mut(keys));
            let at = (query + kv + head) * dim;
            tiled::tile_rows_of_values(l, (&rows[at..], fused, dim), bytemuck::cast_slice_mut(values));
        }
    }
}

fn pack_keys(Fused { rows, heads }: Fused<'_>, segment: Segment, keys: &mut [f32]) {
    let width = heads.kv * heads.dim;
    let rows = rows.chunks_exact(heads.fused()).skip(segment.first_row).take(segment.rows);
    for (token, row) in rows.enumerate() {
        let block = &mut keys[token / PAGE_TOKENS * width * PAGE_TOKENS..][..width * PAGE_TOKENS];
        let row = &row[heads.query * heads.dim..][..width];
        for (line, &key) in block.as_chunks_mut::<PAGE_TOKENS>().0.iter_mut().zip(row) {
            line[token % PAGE_TOKENS] = key;
        }
    }
}

/// An item of bidirectional attention.
struct Within<'a> {
    calls: Calls<'a>,
    segment: Segment,
    /// The segment's packed blocks.
    blocks: &'a [f32],
    item: Item,
}

impl<L: Lanes> Work<L> for Within<'_> {
    #[inline(always)]
    fn run(self, l: L) {
        let Self { calls, segment, blocks: keys, item } = self;
        let Heads { query, kv, dim } = calls.heads;
        let fused = calls.stride;
        let values_at = (query + kv + item.kv_head) * dim;
        let mut queries = [Query::NONE; QUERIES];
        let count = item.tokens * (query / kv);
        for first in (0..count).step_by(QUERIES) {
            let range = first..(first + QUERIES).min(count);
            let queries = &mut queries[..range.len()];
            // SAFETY: the rows are the item's, and no other item has both its tokens and its key head. The packed
            // keys hold whole blocks, and a block's values are rows of the segment.
            unsafe {
                calls.queries((segment.first_row + item.first, item.kv_head), range, queries);
                for behind in (0..segment.rows).step_by(BLOCK) {
                    let page = |number: usize| {
                        // Nothing follows the last page, so it stands for its own successor.
                        let page = (behind / PAGE_TOKENS + number).min(segment.blocks() - 1);
                        let plane = (page * kv + item.kv_head) * dim * PAGE_TOKENS;
                        let row = segment.first_row + page * PAGE_TOKENS;
                        block::Page {
                            keys: keys[plane..plane + dim * PAGE_TOKENS].as_ptr(),
                            values: calls.rows[row * fused + values_at..].as_ptr(),
                            scales: NO_SCALES,
                        }
                    };
                    let tokens = (segment.rows - behind).min(BLOCK);
                    let block = Block { pages: array::from_fn(page), stride: fused, tokens, dim };
                    block::pass::<_, _, _, false>(l, queries, block);
                }
                finish(l, queries, dim);
            }
        }
    }
}

/// An item of bidirectional attention by tiles.
struct WithinByTiles<'a, T> {
    within: Within<'a>,
    /// For this worker alone, as many words as [`memory`] says.
    memory: &'a mut [f32],
    tiles: T,
}

impl<L: Lanes, T: Tiles> Work<L> for WithinByTiles<'_, T> {
    #[inline(always)]
    fn run(self, l: L) {
        let Self { within: Within { calls, segment, blocks, item }, memory, mut tiles } = self;
        let Heads { query, kv, dim } = calls.heads;
        let count = item.tokens * (query / kv);
        let shape = Shape { rows: count, dim };
        let first = (segment.first_row + item.first, item.kv_head);
        let places = |i: usize| calls.query(calls.place(first, i));
        let mut rows = Rows::begin(l, shape, &mut memory[..shape.words()], places);
        let mut pages = blocks.chunks_exact(shape.keys() + shape.values()).skip(item.kv_head).step_by(kv);
        for behind in (0..segment.rows).step_by(BLOCK) {
            let mut block = [tiled::Page::default(); BLOCK_PAGES];
            let mut used = 0;
            for (page, words) in block.iter_mut().zip(&mut pages) {
                let (keys, values) = bytemuck::cast_slice(words).split_at(shape.keys());
                *page = tiled::Page { keys, values, scales: None };
                used += 1;
            }
            let seen = (segment.rows - behind).min(BLOCK);
            // All rows see the same tokens, so none can be spoilt by what it does not see.
            rows.pass(l, &mut tiles, (&block[..used], false), |_| seen);
        }
        for i in 0..count {
            // SAFETY: the rows are the item's, and no other item has both its tokens and its key head.
            rows.finish(l, i, unsafe { calls.output(calls.place(first, i)) });
        }
    }
}
