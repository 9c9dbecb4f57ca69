//! Costs are counted where they belong.

use super::*;
use crate::kernels::Heads;
use crate::reference::Reference;
use crate::{Dtype, KvDtype, KvLayout, Packer};

/// What was noted of a stage.
fn of(costs: &Costs, stage: Stage) -> Cost {
    costs[stage.index()]
}

#[test]
fn products_are_counted_where_they_were_said_to_be() {
    let timed = Timed::new(Arc::new(Reference));
    let layer = Packer::new(32, 64, Dtype::Bf16).unwrap().finish();
    let mut out = vec![0.0; 3 * 64];
    timed.next_product(Product::Down);
    timed.linear(&[1.0; 3 * 32], &layer, Epilogue::default(), &mut out);
    timed.linear(&[1.0; 32], &layer, Epilogue::default(), &mut out[..64]);
    let costs = timed.take();
    let (down, other) =
        (of(&costs, Stage::Product(Product::Down)), of(&costs, Stage::Product(Product::Other)));
    assert_eq!((down.calls, down.bytes), (1, layer.bytes() as u64));
    assert_eq!(down.operations[Arithmetic::Bf16.index()], 2 * 3 * 32 * 64);
    assert_eq!((other.calls, other.operations[Arithmetic::Bf16.index()]), (1, 2 * 32 * 64));
    assert_eq!(timed.take(), Costs::default());
}

#[test]
fn attention_counts_the_pages_it_walks_and_the_keys_it_sees() {
    let timed = Timed::new(Arc::new(Reference));
    let heads = Heads { query: 4, kv: 2, dim: 8 };
    let layout = KvLayout { layers: 3, heads: 2, dim: 8, dtype: KvDtype::F32 };
    let mut kv = KvArena::new(layout, 2).unwrap();
    let mut batch = Ragged::default();
    batch.push(31, 2, &[0, 1]);
    let rows = vec![0.5; 2 * heads.fused()];
    let mut out = vec![0.0; 2 * 32];
    timed.kv_write(Fused { rows: &rows, heads }, &batch, (&mut kv, 1));
    timed.take();
    timed.attend(Fused { rows: &rows, heads }, &batch, (&kv, 1), &mut out);
    let cost = of(&timed.take(), Stage::Attention);
    assert_eq!(cost.bytes, 2 * 2 * 2 * 8 * 32 * 4);
    assert_eq!(cost.operations[Arithmetic::F32.index()], 4 * (32 + 33) * 32);
}
