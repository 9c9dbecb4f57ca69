//! Every operation on every instruction set of this machine: near the reference, and every row as if it were alone.

mod attention;
mod linear;
mod quantised;
mod rows;

use std::sync::OnceLock;

use super::*;

/// All kernels of this machine but the scalar ones, on one thread and on two; made once, because threads are dear.
fn all() -> &'static [Cpu] {
    static ALL: OnceLock<Vec<Cpu>> = OnceLock::new();
    ALL.get_or_init(|| {
        let fast = Isa::available().into_iter().filter(|&isa| isa != Isa::Scalar);
        fast.flat_map(|isa| [1, 2].map(|threads| Cpu::new(isa, Arc::new(Pool::new(threads))))).collect()
    })
}

/// Numbers in -1..1 that look random and follow from `seed`.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Panics unless all elements are within `tolerance`, taken of one or of the expected value if that is larger.
#[track_caller]
fn near(cpu: &Cpu, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let allowed = tolerance * expected.abs().max(1.0);
        assert!(
            (found - expected).abs() <= allowed,
            "{}: element {i} is {found}, not {expected}",
            cpu.describe()
        );
    }
}

/// Panics unless all bits agree.
#[track_caller]
fn same_bits(cpu: &Cpu, found: &[f32], expected: &[f32]) {
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert!(bits(found) == bits(expected), "{}: bits differ", cpu.describe());
}
