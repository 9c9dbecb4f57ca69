//! Once working memory has grown to the largest call, no operation of the fast kernels takes memory.

mod counting;

use std::sync::atomic::Ordering;

use counting::ALLOCATIONS;
use tensor::kernels::{Heads, Place};
use tensor::stored::TensorView;
use tensor::{
    Angles, Dtype, Epilogue, Fused, Isa, Kernels, KvArena, KvDtype, KvLayout, Norm, Packer, Ragged, kernels,
};

const ROWS: usize = 130;
const HEADS: Heads = Heads { query: 4, kv: 2, dim: 32 };
const WIDTH: usize = 256;

#[test]
fn steps_take_no_memory() {
    for isa in Isa::available().into_iter().filter(|&isa| isa != Isa::Scalar) {
        let kernels = kernels(isa, 2);
        let mut step = step(kernels.as_ref());
        step();
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        (0..200).for_each(|_| step());
        // The test harness's own thread may print or time something meanwhile; a step that allocates would do it 200
        // times.
        let taken = ALLOCATIONS.load(Ordering::Relaxed) - before;
        assert!(taken < 100, "{isa}: {taken} allocations in 200 steps");
    }
}

/// One call of every operation, large enough for both threads.
fn step(kernels: &dyn Kernels) -> impl FnMut() {
    let stored = TensorView::from_f32(&[WIDTH, WIDTH], &vec![0.01; WIDTH * WIDTH]);
    let packed = |packer: Packer| {
        let mut packer = packer;
        packer.rows(0, &stored);
        packer.finish()
    };
    let packer = || Packer::new(WIDTH, WIDTH, Dtype::Bf16).expect("memory");
    let (layer, gates) = (packed(packer()), packed(packer().gated()));
    let layout = KvLayout { layers: 1, heads: HEADS.kv, dim: HEADS.dim, dtype: KvDtype::Bf16 };
    let mut kv = KvArena::new(layout, 5).expect("memory");
    let mut batch = Ragged::default();
    batch.push(0, ROWS, &[0, 1, 2, 3, 4]);
    let (mut x, mut out) = (vec![0.5; ROWS * WIDTH], vec![0.5; ROWS * WIDTH]);
    let (weight, table) = (vec![1.0; WIDTH], vec![0.5; ROWS * 16]);
    move || {
        kernels.embed(&stored, &[3; ROWS], &mut x);
        kernels.linear(&x, &layer, Epilogue::default(), &mut out);
        kernels.norm(&x, Norm::Rms { weight: &weight, eps: 1e-6 }, &mut out);
        let place = Place { stride: WIDTH, offset: 0, heads: 6, dim: HEADS.dim };
        kernels.norm_rope(&mut x, place, None, Angles { cos: &table, sin: &table, half: 16 });
        let qkv = Fused { rows: &x, heads: HEADS };
        kernels.kv_write(qkv, &batch, (&mut kv, 0));
        kernels.attend(qkv, &batch, (&kv, 0), &mut out[..ROWS * 128]);
        kernels.attend_segments(qkv, &[100, ROWS - 100], Dtype::Bf16, &mut out[..ROWS * 128]);
        kernels.gated(&x, &gates, &mut out[..ROWS * WIDTH / 2]);
        kernels.mean_pool_normalize(&x, WIDTH, &[100, ROWS - 100], &mut out[..2 * WIDTH]);
        kernels.log_sum_exp(&x, WIDTH, &mut out[..ROWS]);
    }
}
