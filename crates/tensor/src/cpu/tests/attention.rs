//! Attention and the writing of keys and values.

use proptest::prelude::*;

use super::{all, near, noise, same_bits};
use crate::kernels::{Heads, Queries};
use crate::reference::Reference;
use crate::{Cpu, Dtype, Fused, Isa, Kernels, KvArena, KvDtype, KvLayout, PAGE_TOKENS, Ragged};

fn heads() -> impl Strategy<Value = Heads> {
    let dim = prop::sample::select(vec![1usize, 5, 16, 24, 32, 64, 80, 100, 128]);
    (1usize..4, 1usize..8, dim).prop_map(|(kv, group, dim)| Heads { query: kv * group, kv, dim })
}

fn dtype() -> impl Strategy<Value = KvDtype> {
    prop::sample::select(vec![KvDtype::F32, KvDtype::Bf16, KvDtype::Int8])
}

/// Tiles round queries and weights to the eight bits of bf16.
fn tolerance(cpu: &Cpu, dtype: KvDtype) -> f32 {
    let by_tiles = cpu.describe().starts_with(Isa::Amx.name()) && dtype != KvDtype::F32;
    if by_tiles { 8e-3 } else { 1e-5 }
}

/// Pages that hold what is no number, as pages do that were used before by somebody whose sums ran over.
fn dirty(heads: Heads, dtype: KvDtype, pages: usize) -> KvArena {
    let layout = KvLayout { layers: 2, heads: heads.kv, dim: heads.dim, dtype };
    let mut kv = KvArena::new(layout, pages).unwrap();
    kv.bytes_mut().fill(0xff);
    kv
}

/// Sequence lengths, of more than a block some, and, for each, what is cut off into chunks of how many tokens.
fn plan() -> impl Strategy<Value = Vec<(usize, usize)>> {
    prop::collection::vec((1usize..180, 1usize..200), 1..4)
}

/// Runs all sequences, a chunk of each per batch, and returns the rows of each sequence in order.
fn attend(
    kernels: &dyn Kernels,
    (heads, dtype): (Heads, KvDtype),
    plan: &[(usize, usize)],
    fused: &[Vec<f32>],
) -> Vec<Vec<f32>> {
    let per_sequence = 200usize.div_ceil(PAGE_TOKENS);
    let mut kv = dirty(heads, dtype, plan.len() * per_sequence);
    let table =
        |sequence: usize| (0..per_sequence).map(|i| (i * plan.len() + sequence) as u32).collect::<Vec<_>>();
    let mut rows = vec![Vec::new(); plan.len()];
    let mut done = vec![0; plan.len()];
    while (0..plan.len()).any(|s| done[s] < plan[s].0) {
        let mut batch = Ragged::default();
        let mut qkv = Vec::new();
        let mut taken = Vec::new();
        for (s, &(length, chunk)) in plan.iter().enumerate() {
            let tokens = chunk.min(length - done[s]);
            if tokens > 0 {
                batch.push(done[s], tokens, &table(s));
                qkv.extend(&fused[s][done[s] * heads.fused()..(done[s] + tokens) * heads.fused()]);
                done[s] += tokens;
                taken.push((s, tokens * heads.query * heads.dim));
            }
        }
        let qkv = Fused { rows: &qkv, heads };
        kernels.kv_write(qkv, &batch, (&mut kv, 1));
        let mut out = vec![f32::NAN; batch.rows() * heads.query * heads.dim];
        kernels.attend(qkv, &batch, (&kv, 1), &mut out);
        let mut rest = out.as_slice();
        for (s, count) in taken {
            let (own, behind) = rest.split_at(count);
            rows[s].extend(own);
            rest = behind;
        }
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn causal_attention(heads in heads(), dtype in dtype(), plan in plan()) {
        let fused: Vec<_> = plan.iter().enumerate().map(|(s, p)| noise(p.0 * heads.fused(), s as u64)).collect();
        let expected = attend(&Reference, (heads, dtype), &plan, &fused);
        for cpu in all() {
            let found = attend(cpu, (heads, dtype), &plan, &fused);
            for s in 0..plan.len() {
                near(cpu, &found[s], &expected[s], tolerance(cpu, dtype));
                let alone = attend(cpu, (heads, dtype), &[(plan[s].0, plan[s].0)], &fused[s..=s]);
                same_bits(cpu, &found[s], &alone[0]);
                let by_token = attend(cpu, (heads, dtype), &[(plan[s].0, 1)], &fused[s..=s]);
                same_bits(cpu, &found[s], &by_token[0]);
            }
        }
    }

    #[test]
    fn attention_to_all_in_parts(
        heads in heads(),
        dtype in dtype(),
        (rows, part) in (1usize..150, 1usize..150),
    ) {
        let qkv = noise(rows * heads.fused(), 3);
        let expected = attend_all(&Reference, (heads, dtype), &qkv, rows);
        for cpu in all() {
            let found = attend_all(cpu, (heads, dtype), &qkv, part);
            near(cpu, &found, &expected, tolerance(cpu, dtype));
            same_bits(cpu, &found, &attend_all(cpu, (heads, dtype), &qkv, rows));
        }
    }

    #[test]
    fn attention_inside_of_segments(
        heads in heads(),
        segments in prop::collection::vec(0usize..180, 1..4),
        dtype in prop::sample::select(vec![Dtype::F32, Dtype::Bf16]),
    ) {
        let rows = segments.iter().sum::<usize>();
        let qkv = noise(rows * heads.fused(), 1);
        let width = heads.query * heads.dim;
        let mut expected = vec![0.0; rows * width];
        Reference.attend_segments(Fused { rows: &qkv, heads }, &segments, dtype, &mut expected);
        for cpu in all() {
            dirty_workspace(cpu, (heads, dtype), rows + PAGE_TOKENS);
            let mut found = vec![f32::NAN; rows * width];
            cpu.attend_segments(Fused { rows: &qkv, heads }, &segments, dtype, &mut found);
            near(cpu, &found, &expected, tolerance(cpu, dtype.into()));
            let last = *segments.last().unwrap();
            let mut alone = vec![f32::NAN; last * width];
            let rest = Fused { rows: &qkv[(rows - last) * heads.fused()..], heads };
            cpu.attend_segments(rest, &[last], dtype, &mut alone);
            same_bits(cpu, &found[(rows - last) * width..], &alone);
        }
    }
}

/// Runs one sequence that sees itself whole, so many rows a call.
fn attend_all(kernels: &dyn Kernels, (heads, dtype): (Heads, KvDtype), qkv: &[f32], part: usize) -> Vec<f32> {
    let (rows, width) = (qkv.len() / heads.fused(), heads.query * heads.dim);
    let pages: Vec<u32> = (0..rows.div_ceil(PAGE_TOKENS) as u32).rev().collect();
    let mut kv = dirty(heads, dtype, pages.len());
    let mut whole = Ragged::default();
    whole.push(0, rows, &pages);
    kernels.kv_write(Fused { rows: qkv, heads }, &whole, (&mut kv, 1));
    let queries: Vec<f32> = qkv.chunks(heads.fused()).flat_map(|row| &row[..width]).copied().collect();
    let mut out = vec![f32::NAN; rows * width];
    for (queries, out) in queries.chunks(part * width).zip(out.chunks_mut(part * width)) {
        let (mut batch, count) = (Ragged::default(), queries.len() / width);
        batch.push(rows - count, count, &pages);
        kernels.attend_all(Queries { rows: queries, heads }, &batch, (&kv, 1), out);
    }
    out
}

/// Leaves what is no number in the working memory, which the next call must not see.
fn dirty_workspace(cpu: &Cpu, (heads, dtype): (Heads, Dtype), rows: usize) {
    let qkv = vec![f32::NAN; rows * heads.fused()];
    let mut out = vec![0.0; rows * heads.query * heads.dim];
    cpu.attend_segments(Fused { rows: &qkv, heads }, &[rows], dtype, &mut out);
}

#[test]
fn pages_hold_the_same_bytes_as_the_reference_writes() {
    let heads = Heads { query: 3, kv: 3, dim: 50 };
    for dtype in [KvDtype::F32, KvDtype::Bf16, KvDtype::Int8] {
        let mut batch = Ragged::default();
        batch.push(5, 200, &[7, 1, 4, 0, 2, 6, 8]);
        batch.push(40, 1, &[5, 3]);
        let qkv = noise(201 * heads.fused(), 1);
        let mut expected = dirty(heads, dtype, 9);
        Reference.kv_write(Fused { rows: &qkv, heads }, &batch, (&mut expected, 0));
        for cpu in all() {
            let mut found = dirty(heads, dtype, 9);
            cpu.kv_write(Fused { rows: &qkv, heads }, &batch, (&mut found, 0));
            assert!(found.bytes() == expected.bytes(), "{}", cpu.describe());
        }
    }
}
