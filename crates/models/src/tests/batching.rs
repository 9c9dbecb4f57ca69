//! The same sequence gives the same bits, whatever else is in the batch.

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use tensor::{Dtype, Isa, KvArena, KvDtype, PAGE_TOKENS};

use super::folder::{Folder, Random, VOCABULARY};
use crate::{Batch, CausalLm};

/// Rows of one batch, as the folders are loaded.
pub(super) const ROWS: usize = 128;

/// One sequence of a scenario.
#[derive(Clone, Debug)]
struct Visit {
    /// Tokens, one number each.
    tokens: Vec<u32>,
    /// The step at which it joins.
    joins: usize,
    /// The most of its tokens that one step reads.
    chunk: usize,
}

fn visit() -> impl Strategy<Value = Visit> {
    let length = prop_oneof![4 => 1usize..12, 1 => 28usize..40, 1 => 60usize..75];
    let tokens = length.prop_flat_map(|length| proptest::collection::vec(0..VOCABULARY as u32, length));
    let chunk = prop_oneof![Just(1usize), 2usize..9, Just(31), Just(32), Just(33), Just(80)];
    (tokens, 0usize..8, chunk).prop_map(|(tokens, joins, chunk)| Visit { tokens, joins, chunk })
}

/// A sequence that is in the batch.
struct Seated {
    number: usize,
    read: usize,
    pages: Vec<u32>,
}

/// The logits after every token of one sequence, read in one go.
fn alone(model: &mut dyn CausalLm, tokens: &[u32]) -> Vec<Vec<u32>> {
    let mut kv = KvArena::new(model.shape().kv, 4).unwrap();
    let mut batch = Batch::default();
    batch.push(tokens, 0, &[2, 0, 3, 1][..tokens.len().div_ceil(PAGE_TOKENS)]);
    batch.outputs.extend(0..tokens.len() as u32);
    bits(model.forward(&batch, &mut kv).logits)
}

fn bits(logits: &[f32]) -> Vec<Vec<u32>> {
    logits.chunks(VOCABULARY).map(|row| row.iter().map(|logit| logit.to_bits()).collect()).collect()
}

/// Runs all visits together: they join when they say, take random shares of the rows of each step, give their pages
/// back when they are done, and later ones get these pages. Every wanted row must have the bits of the row alone.
fn check(model: &mut dyn CausalLm, visits: &[Visit], seed: u64) {
    let expected: Vec<Vec<Vec<u32>>> = visits.iter().map(|visit| alone(model, &visit.tokens)).collect();
    let mut random = Random(seed);
    let mut free: Vec<u32> = (0..visits.len() as u32 * 3).collect();
    let mut kv = KvArena::new(model.shape().kv, free.len()).unwrap();
    let mut waiting: Vec<usize> = (0..visits.len()).collect();
    let mut seated: Vec<Seated> = Vec::new();
    let mut batch = Batch::default();
    for step in 0.. {
        waiting.retain(|number| {
            let joins = visits[*number].joins <= step;
            if joins {
                seated.insert(
                    random.below(seated.len() + 1),
                    Seated { number: *number, read: 0, pages: Vec::new() },
                );
            }
            !joins
        });
        batch.clear();
        let mut owners = Vec::new();
        for seat in &mut seated {
            let Visit { tokens, chunk, .. } = &visits[seat.number];
            let most = (tokens.len() - seat.read).min(*chunk).min(ROWS - batch.tokens.len());
            // Now and then a sequence sits out a step.
            if most == 0 || random.below(5) == 0 {
                continue;
            }
            let taken = 1 + random.below(most);
            while seat.pages.len() * PAGE_TOKENS < seat.read + taken {
                seat.pages.push(free.swap_remove(random.below(free.len())));
            }
            for (row, position) in (batch.tokens.len()..).zip(seat.read..seat.read + taken) {
                if position + 1 == tokens.len() || random.below(3) > 0 {
                    batch.outputs.push(row as u32);
                    owners.push((seat.number, position));
                }
            }
            batch.push(&tokens[seat.read..seat.read + taken], seat.read, &seat.pages);
            seat.read += taken;
        }
        for (row, (number, position)) in bits(model.forward(&batch, &mut kv).logits).into_iter().zip(owners) {
            assert_eq!(
                row,
                expected[number][position],
                "sequence {number} of {}, token {position}",
                visits.len()
            );
        }
        seated.retain_mut(|seat| {
            let stays = seat.read < visits[seat.number].tokens.len();
            free.extend(if stays { Vec::new() } else { std::mem::take(&mut seat.pages) });
            stays
        });
        if waiting.is_empty() && seated.is_empty() {
            return;
        }
    }
}

/// Checks random scenarios: `cases` with a few sequences, and a third of that with many.
pub(super) fn equals_single(model: &mut dyn CausalLm, cases: u32, what: &str) {
    let model = RefCell::new(model);
    let few = (proptest::collection::vec(visit(), 2..7), any::<u64>());
    let many = (proptest::collection::vec(visit(), 30..65), any::<u64>());
    for (scenarios, cases) in [(few.boxed(), cases), (many.boxed(), cases / 3)] {
        let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
        let ran = runner.run(&scenarios, |(visits, seed)| {
            check(&mut **model.borrow_mut(), &visits, seed);
            Ok(())
        });
        ran.unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

/// Checks random scenarios on every instruction set, with one and two threads, in both types, and with keys and values of
/// 8 bits.
fn batch_equals_single(folder: &Folder) {
    let kinds = [(Dtype::F32, None), (Dtype::Bf16, None), (Dtype::Bf16, Some(KvDtype::Int8))];
    for isa in Isa::available() {
        for (threads, (dtype, kv)) in [1, 2].into_iter().flat_map(|threads| kinds.map(|kind| (threads, kind)))
        {
            let mut loaded = folder.load_with(Some(dtype), kv, (isa, threads)).unwrap();
            let what = format!("{isa}, {threads} threads, {dtype}, keys and values {kv:?}");
            equals_single(&mut *loaded.model, 6, &what);
        }
    }
}

/// One and two threads, and the same thread count twice, give the same bits.
fn threads_do_not_matter(folder: &Folder) {
    let tokens: Vec<u32> = (0..70).map(|token| token * 37 % VOCABULARY as u32).collect();
    for isa in Isa::available() {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let [one, two, three] = [1, 2, 3].map(|threads| {
                let mut loaded = folder.load(Some(dtype), isa, threads).unwrap();
                alone(&mut *loaded.model, &tokens)
            });
            assert!(one == two && one == three, "{isa} {dtype}");
        }
    }
}

#[test]
fn gpt2_in_batches_equals_gpt2_alone() {
    let folder = Folder::gpt2(36, 3, "", 1);
    batch_equals_single(&folder);
    threads_do_not_matter(&folder);
}

#[test]
fn qwen3_in_batches_equals_qwen3_alone() {
    let folder = Folder::qwen3([40, 4, 2, 18], json!({"tie_word_embeddings": true}), 2);
    batch_equals_single(&folder);
    threads_do_not_matter(&folder);
}
