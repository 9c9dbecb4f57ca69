//! Attention: queries that share a key head share the reading of its keys and values, block after block.
//!
//! A query sees the blocks of [`PAGE_TOKENS`] tokens that stand at its sequence's absolute positions, in order, and of
//! the last one only the tokens up to its own. What else is in a block cannot change its bits, because queries with
//! different limits part ways before they look at it.

mod block;
mod segments;
mod stored;

use std::marker::PhantomData;
use std::ops::Range;

use half::bf16;

use crate::cpu::dispatch::{Level, Work};
use crate::cpu::lanes::Lanes;
use crate::cpu::split::{Claims, Disjoint};
use crate::kernels::Heads;
use crate::kv::Plane;
use crate::{Fused, KvArena, KvDtype, PAGE_TOKENS, Pool, Queries, Ragged};

use self::block::{Block, NO_SCALES, QUERIES, Query};
use self::stored::Stored;

pub(super) use self::segments::attend_segments;

/// Tokens of a sequence that make one item of work.
const TOKENS: usize = 48;

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
    keys: Vec<f32>,
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

impl Calls<'_> {
    /// The queries number `range` of those of an item, counted token by token and head by head inside of a token;
    /// `first_row` is the row of the item's first token.
    ///
    /// # Safety
    /// The rows exist, and nobody else has queries of these rows with this key head.
    #[inline(always)]
    unsafe fn queries(
        &self,
        (first_row, kv_head): (usize, usize),
        range: Range<usize>,
        queries: &mut [Query],
    ) {
        let Heads { query, kv, dim } = self.heads;
        let group = query / kv;
        for (i, slot) in range.zip(queries) {
            let (row, head) = (first_row + i / group, kv_head * group + i % group);
            let q = self.rows[row * self.stride + head * dim..][..dim].as_ptr();
            // SAFETY: the row has a place for each query head.
            let out = unsafe { self.out.part((row * query + head) * dim, dim) };
            out.fill(0.0);
            *slot = Query { q, out: out.as_mut_ptr(), highest: f32::NEG_INFINITY, weight: 0.0 };
        }
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
    Workspace { items, .. }: &mut Workspace,
    out: &mut [f32],
) {
    let (rows, heads) = (qkv.rows, qkv.heads);
    let calls = Calls { rows, stride: heads.fused(), heads, out: Disjoint::new(out) };
    paged((calls, Sight::Before), batch, kv, (level, pool), items);
}

/// Attention against all that the pages of a sequence hold.
pub(super) fn attend_all(
    (queries, batch): (Queries<'_>, &Ragged),
    kv: (&KvArena, usize),
    (level, pool): (Level, &Pool),
    Workspace { items, .. }: &mut Workspace,
    out: &mut [f32],
) {
    let Queries { rows, heads } = queries;
    let calls = Calls { rows, stride: heads.query * heads.dim, heads, out: Disjoint::new(out) };
    paged((calls, Sight::All), batch, kv, (level, pool), items);
}

fn paged(
    (calls, sight): (Calls<'_>, Sight),
    batch: &Ragged,
    kv: (&KvArena, usize),
    (level, pool): (Level, &Pool),
    items: &mut Vec<Item>,
) {
    let heads = calls.heads;
    items.clear();
    let mut products = 0;
    for (sequence, span) in batch.spans.iter().enumerate() {
        products += span.rows * (span.context + span.rows) * heads.query * heads.dim;
        // The last tokens have the most keys to see, so they come first and the small ones fill the gaps.
        for first in (0..span.rows).step_by(TOKENS).rev() {
            let tokens = (span.rows - first).min(TOKENS);
            items.extend((0..heads.kv).map(|kv_head| Item { sequence, kv_head, first, tokens }));
        }
    }
    let items = items.as_slice();
    share_out(pool, (items.len(), products), &|item| {
        let item = items[item];
        match kv.0.layout().dtype {
            KvDtype::F32 => level.run(Paged::<f32> { calls, sight, batch, kv, item, stored: PhantomData }),
            KvDtype::Bf16 => level.run(Paged::<bf16> { calls, sight, batch, kv, item, stored: PhantomData }),
            KvDtype::Int8 => level.run(Paged::<i8> { calls, sight, batch, kv, item, stored: PhantomData }),
        }
    });
}

/// Does `work` for every item, on all workers if there is enough of it.
fn share_out(pool: &Pool, (items, products): (usize, usize), work: &(dyn Fn(usize) + Sync)) {
    if products < ALONE {
        return (0..items).for_each(work);
    }
    let claims = Claims::new(0..items, pool.threads());
    pool.run(&|_| claims.claim().for_each(work));
}

/// An item of attention against pages.
struct Paged<'a, E> {
    calls: Calls<'a>,
    sight: Sight,
    batch: &'a Ragged,
    kv: (&'a KvArena, usize),
    item: Item,
    stored: PhantomData<E>,
}

impl<L: Lanes, E: Stored> Work<L> for Paged<'_, E> {
    #[inline(always)]
    fn run(self, l: L) {
        let Self { calls, sight, batch, kv: (kv, layer), item, .. } = self;
        let span = &batch.spans[item.sequence];
        let pages = &batch.pages[span.pages.clone()];
        let dim = calls.heads.dim;
        let group = calls.heads.query / calls.heads.kv;
        let numbers = item.kv_head * dim * PAGE_TOKENS..(item.kv_head + 1) * dim * PAGE_TOKENS;
        let mut queries = [Query::NONE; QUERIES];
        let count = item.tokens * group;
        for first in (0..count).step_by(QUERIES) {
            let range = first..(first + QUERIES).min(count);
            let queries = &mut queries[..range.len()];
            // How many keys the query number `i` sees.
            let sees = |i: usize| match sight {
                Sight::Before => span.context + item.first + (first + i) / group + 1,
                Sight::All => span.context + span.rows,
            };
            // SAFETY: the rows are the item's, and no other item has both its tokens and its key head. A page's plane
            // holds `PAGE_TOKENS` keys and values of the head.
            unsafe {
                calls.queries((span.first_row + item.first, item.kv_head), range, queries);
                let of_head = |page: u32| {
                    let (keys, values) = kv.planes(page, layer);
                    let numbers = |of: &Plane| kv.numbers::<E>(of)[numbers.clone()].as_ptr();
                    let scales = |of: &Plane| kv.scales(of)[item.kv_head * PAGE_TOKENS..].as_ptr();
                    let scales = if E::SCALED { (scales(&keys), scales(&values)) } else { NO_SCALES };
                    ((numbers(&keys), numbers(&values)), scales)
                };
                for (number, behind) in (0..sees(queries.len() - 1)).step_by(PAGE_TOKENS).enumerate() {
                    let ((keys, values), scales) = of_head(pages[number]);
                    let next = pages.get(number + 1).map_or((keys, values), |&page| of_head(page).0);
                    let mut first = 0;
                    while first < queries.len() {
                        let tokens = sees(first).saturating_sub(behind).min(PAGE_TOKENS);
                        let alike = |i: usize| sees(i).saturating_sub(behind).min(PAGE_TOKENS) == tokens;
                        let end = (first..queries.len()).find(|&i| !alike(i)).unwrap_or(queries.len());
                        if tokens > 0 {
                            let block = Block { keys, values, stride: dim, scales, next, tokens, dim };
                            block::pass(l, &mut queries[first..end], block);
                        }
                        first = end;
                    }
                }
                finish(l, queries, dim);
            }
        }
    }
}
