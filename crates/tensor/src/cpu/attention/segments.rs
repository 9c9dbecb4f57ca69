//! Bidirectional attention inside segments: keys are first brought into the form that they have in pages.

use crate::cpu::dispatch::{Level, Work};
use crate::cpu::lanes::Lanes;
use crate::cpu::split::Disjoint;
use crate::kernels::Heads;
use crate::{Fused, PAGE_TOKENS, Pool};

use super::block::{self, Block, NO_SCALES, QUERIES, Query};
use super::{Calls, Item, TOKENS, Workspace, finish, share_out};

/// Some rows of a call that see each other.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    first_row: usize,
    rows: usize,
    /// Its first block of packed keys; a block holds `[kv head][dim][PAGE_TOKENS]`.
    first_block: usize,
}

/// Attention of every row to all rows of its segment.
pub(in crate::cpu) fn attend_segments(
    (qkv, lengths): (Fused<'_>, &[usize]),
    (level, pool): (Level, &Pool),
    Workspace { items, segments, keys, .. }: &mut Workspace,
    out: &mut [f32],
) {
    let heads = qkv.heads;
    items.clear();
    segments.clear();
    let mut end = Segment { first_row: 0, rows: 0, first_block: 0 };
    let mut products = 0;
    for (sequence, &rows) in lengths.iter().enumerate() {
        segments.push(Segment { rows, ..end });
        end.first_row += rows;
        end.first_block += rows.div_ceil(PAGE_TOKENS);
        products += rows * rows * heads.query * heads.dim;
        for first in (0..rows).step_by(TOKENS) {
            let tokens = (rows - first).min(TOKENS);
            items.extend((0..heads.kv).map(|kv_head| Item { sequence, kv_head, first, tokens }));
        }
    }
    let block = heads.kv * heads.dim * PAGE_TOKENS;
    if keys.len() < end.first_block * block {
        keys.resize(end.first_block * block, 0.0);
    }
    let packed = Disjoint::new(keys);
    share_out(pool, (segments.len(), products), &|segment, _| {
        let segment = segments[segment];
        let blocks = segment.rows.div_ceil(PAGE_TOKENS);
        // SAFETY: segments have blocks of their own, all inside of `keys`.
        let keys = unsafe { packed.part(segment.first_block * block, blocks * block) };
        pack_keys(qkv, segment, keys);
    });
    let calls = Calls { rows: qkv.rows, stride: heads.fused(), heads, out: Disjoint::new(out) };
    share_out(pool, (items.len(), products), &|item, _| {
        let segment = segments[items[item].sequence];
        level.run(Within { calls, segment, keys: &keys[segment.first_block * block..], item: items[item] });
    });
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
    /// From the segment's first block on.
    keys: &'a [f32],
    item: Item,
}

impl<L: Lanes> Work<L> for Within<'_> {
    #[inline(always)]
    fn run(self, l: L) {
        let Self { calls, segment, keys, item } = self;
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
                for behind in (0..segment.rows).step_by(PAGE_TOKENS) {
                    let plane = (behind / PAGE_TOKENS * kv + item.kv_head) * dim * PAGE_TOKENS;
                    let keys = keys[plane..plane + dim * PAGE_TOKENS].as_ptr();
                    let row = segment.first_row + behind;
                    let values = calls.rows[row * fused + values_at..].as_ptr();
                    let tokens = (segment.rows - behind).min(PAGE_TOKENS);
                    let next = (keys.wrapping_add(kv * dim * PAGE_TOKENS), values);
                    let block = Block { keys, values, stride: fused, scales: NO_SCALES, next, tokens, dim };
                    block::pass::<_, _, _, false>(l, queries, block);
                }
                finish(l, queries, dim);
            }
        }
    }
}
