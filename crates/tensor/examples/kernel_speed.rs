//! Times linear layers of the shapes of Qwen3-0.6B beside what the machine can do at most.
//!
//! `cargo run --release -p tidegate-tensor --example kernel_speed [ISA] [DTYPE] [SHAPE]`; times are the best of several
//! passes, so that a busy neighbour shows in none of them rather than in all.

use std::time::Instant;

use tensor::kernels::{Heads, Place};
use tensor::peak::{Arithmetic, Prober};
use tensor::stored::TensorView;
use tensor::{
    Angles, Dtype, Epilogue, Fused, Isa, Kernels, KvArena, KvDtype, KvLayout, Linear, Norm, PAGE_TOKENS,
    Packer, Queries, Ragged, Scheme, kernels,
};

/// How weights are held: their type or how they are quantised, and the type of activations.
const HELD: [(Option<Scheme>, Dtype); 5] = [
    (None, Dtype::Bf16),
    (None, Dtype::F32),
    (Some(Scheme::INT8), Dtype::Bf16),
    (Some(Scheme::INT4), Dtype::Bf16),
    (Some(Scheme::INT4_G128), Dtype::Bf16),
];

const SHAPES: [(&str, usize, usize); 6] = [
    ("qkv", 1024, 4096),
    ("o", 2048, 1024),
    ("gate_up", 1024, 6144),
    ("gated", 1024, 6144),
    ("down", 3072, 1024),
    ("head", 1024, 151_936),
];

const ROWS: [usize; 5] = [1, 8, 32, 128, 512];

/// More than any cache holds.
const COLD: usize = 192 << 20;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let isa = arguments.next().map_or_else(Isa::best, |name| name.parse().expect("an instruction set"));
    let dtype = arguments.next().unwrap_or_default();
    let only = arguments.next();
    for threads in [1, 2] {
        let peaks = Prober::new(isa, threads).expect("memory").most();
        let bandwidth = peaks.bandwidth / 1e9;
        let kernels = kernels(isa, threads);
        println!("{}: reads {bandwidth:.1} GB/s", kernels.describe());
        for (scheme, held) in HELD {
            let label = scheme.map_or_else(|| held.to_string(), |scheme| scheme.to_string());
            if !dtype.is_empty() && label != dtype {
                continue;
            }
            let arithmetic = if held == Dtype::F32 { Arithmetic::F32 } else { Arithmetic::Bf16 };
            let peak = peaks.of(arithmetic) / 1e9;
            println!("  {label}: at most {peak:.0} GFLOP/s");
            for (name, inputs, outputs) in SHAPES {
                if only.as_ref().is_none_or(|only| only == name) {
                    let layers = layers((name, inputs, outputs), scheme, held);
                    time_shape(kernels.as_ref(), (name, &layers), (bandwidth, peak));
                }
            }
            if scheme.is_none() && only.as_ref().is_none_or(|only| only == "attend") {
                let narrow = (held == Dtype::Bf16).then_some(KvDtype::Int8);
                for dtype in std::iter::once(KvDtype::from(held)).chain(narrow) {
                    println!("  keys and values in {dtype}:");
                    for load in [(1, 512, 1), (32, 512, 1), (1, 32_736, 1), (1, 0, 512), (1, 3584, 512)] {
                        time_attention(kernels.as_ref(), dtype, load, bandwidth);
                    }
                }
                time_sight(kernels.as_ref(), held);
                time_rows(kernels.as_ref());
            }
        }
    }
}

/// As many equal layers as are larger than any cache.
fn layers(
    (name, inputs, outputs): (&str, usize, usize),
    scheme: Option<Scheme>,
    dtype: Dtype,
) -> Vec<Linear> {
    let values: Vec<f32> = (0..inputs * outputs).map(|i| (i * 7919 % 2003) as f32 / 1001.5 - 1.0).collect();
    let stored = TensorView::from_f32(&[outputs, inputs], &values);
    let layer = || {
        let packer = match scheme {
            None => Packer::new(inputs, outputs, dtype),
            Some(scheme) => Packer::quantising((inputs, outputs), scheme, dtype),
        };
        let packer = packer.expect("memory");
        let mut packer = if name == "gated" { packer.gated() } else { packer };
        packer.rows(0, &stored);
        packer.finish()
    };
    let first = layer();
    let copies = COLD.div_ceil(first.bytes());
    std::iter::once(first).chain((1..copies).map(|_| layer())).collect()
}

fn time_shape(kernels: &dyn Kernels, (name, layers): (&str, &[Linear]), (bandwidth, peak): (f64, f64)) {
    let (inputs, outputs) = (layers[0].inputs(), layers[0].outputs());
    for rows in ROWS {
        let x: Vec<f32> = (0..rows * inputs).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
        // As the buffers of models, rows begin with a cache line.
        let mut out = vec![0.0; rows * outputs + 16];
        let (start, parts) = (out.as_ptr().align_offset(64), if layers[0].is_gated() { 2 } else { 1 });
        let out = &mut out[start..][..rows * outputs / parts];
        let layers = &layers[..if rows > 32 { layers.len().min(4) } else { layers.len() }];
        let pass = || {
            for layer in layers {
                if layer.is_gated() {
                    kernels.gated(&x, layer, out);
                } else {
                    kernels.linear(&x, layer, Epilogue::default(), out);
                }
            }
        };
        let seconds = best_of(if rows > 32 { 3 } else { 6 }, pass) / layers.len() as f64;
        let flops = 2.0 * (inputs * outputs * rows) as f64 / seconds / 1e9;
        let bytes = layers[0].bytes() as f64 / seconds / 1e9;
        println!(
            "  {name:>8} m={rows:<4} {flops:7.1} GFLOP/s ({:3.0} %)  {bytes:5.1} GB/s ({:3.0} %)  {:9.1} us",
            100.0 * flops / peak,
            100.0 * bytes / bandwidth,
            seconds * 1e6
        );
    }
}

/// One layer's attention of `sequences` that read `rows` tokens each after `context` others.
fn time_attention(
    kernels: &dyn Kernels,
    dtype: KvDtype,
    (sequences, context, rows): (usize, usize, usize),
    bandwidth: f64,
) {
    let heads = Heads { query: 16, kv: 8, dim: 128 };
    let pages = (context + rows).div_ceil(PAGE_TOKENS);
    // As many layers as make the pages larger than any cache.
    let page = KvLayout { layers: 1, heads: heads.kv, dim: heads.dim, dtype }.page_bytes();
    let layers = COLD.div_ceil(sequences * pages * page);
    let layout = KvLayout { layers, heads: heads.kv, dim: heads.dim, dtype };
    let mut kv = KvArena::new(layout, sequences * pages).expect("memory");
    // Zeros would be read from one page of zeros.
    kv.bytes_mut().fill(0x11);
    let mut batch = Ragged::default();
    for sequence in 0..sequences {
        let table: Vec<u32> = (0..pages).map(|i| (i * sequences + sequence) as u32).collect();
        batch.push(context, rows, &table);
    }
    let values: Vec<f32> = (0..batch.rows() * heads.fused()).map(|i| (i % 19) as f32 / 19.0).collect();
    let qkv = Fused { rows: &values, heads };
    let mut out = vec![0.0; batch.rows() * heads.query * heads.dim];
    let layers = if rows > 1 { layers.min(8) } else { layers };
    let write = best_of(2, || (0..layers).for_each(|layer| kernels.kv_write(qkv, &batch, (&mut kv, layer))));
    let attend =
        best_of(3, || (0..layers).for_each(|layer| kernels.attend(qkv, &batch, (&kv, layer), &mut out)));
    let seen = sequences * (rows * context + rows * (rows + 1) / 2);
    let flops = 4.0 * (seen * heads.query * heads.dim * layers) as f64 / attend / 1e9;
    let bytes = (sequences * pages * page * layers) as f64 / attend / 1e9;
    println!(
        "  attend {sequences:>2} × {rows:<3} after {context:<4} {flops:6.1} GFLOP/s  {bytes:5.1} GB/s ({:3.0} %) {:9.1} us, \
         write {:7.1} us",
        100.0 * bytes / bandwidth,
        attend / layers as f64 * 1e6,
        write / layers as f64 * 1e6,
    );
}

/// A part of 512 patches of a picture of 2,304, in a layer of a vision tower.
fn time_sight(kernels: &dyn Kernels, dtype: Dtype) {
    let (part, patches) = (512, 2304_usize);
    let heads = Heads { query: 16, kv: 16, dim: 64 };
    let pages: Vec<u32> = (0..patches.div_ceil(PAGE_TOKENS) as u32).collect();
    let layout = KvLayout { layers: 1, heads: heads.kv, dim: heads.dim, dtype: dtype.into() };
    let mut kv = KvArena::new(layout, pages.len()).expect("memory");
    let values: Vec<f32> = (0..patches * heads.fused()).map(|i| (i * 7919 % 2003) as f32 / 1001.5).collect();
    let mut batch = Ragged::default();
    batch.push(0, patches, &pages);
    kernels.kv_write(Fused { rows: &values, heads }, &batch, (&mut kv, 0));
    batch.clear();
    batch.push(patches - part, part, &pages);
    let mut out = vec![0.0; part * heads.query * heads.dim];
    let queries = Queries { rows: &values[..out.len()], heads };
    let attend = best_of(5, || kernels.attend_all(queries, &batch, (&kv, 0), &mut out));
    let flops = 4.0 * (part * patches * heads.query * heads.dim) as f64 / attend / 1e9;
    println!("  attend {part} of {patches} patches {flops:6.1} GFLOP/s {:9.1} us", attend * 1e6);
}

/// What stands between the products of a layer, for 512 rows.
fn time_rows(kernels: &dyn Kernels) {
    let (rows, width) = (512, 1024);
    let x = vec![0.5; rows * width];
    let mut out = vec![0.5; rows * 4 * width];
    let (table, angles) = (vec![1.0; 128], vec![0.5; rows * 64]);
    let norm = |width| Norm::Rms { weight: &x[..width], eps: 1e-6 };
    let norms = best_of(5, || kernels.norm(&x[..rows * width], norm(width), &mut out[..rows * width]));
    let place = Place { stride: 4 * width, offset: 0, heads: 24, dim: 128 };
    let angles = Angles { cos: &angles, sin: &angles, half: 64 };
    let rope = best_of(5, || {
        kernels.norm_rope(&mut out, place, Some(Norm::Rms { weight: &table, eps: 1e-6 }), angles)
    });
    let logits = vec![0.5; 151_936];
    let sum = best_of(5, || kernels.log_sum_exp(&logits, logits.len(), &mut out[..1]));
    println!(
        "  512 rows: norm {:.0} us, norm_rope {:.0} us; log_sum_exp of 152k {:.0} us",
        norms * 1e6,
        rope * 1e6,
        sum * 1e6
    );
}

fn best_of(passes: usize, mut pass: impl FnMut()) -> f64 {
    pass();
    let time = |_| {
        let start = Instant::now();
        pass();
        start.elapsed().as_secs_f64()
    };
    (0..passes).map(time).fold(f64::INFINITY, f64::min)
}
