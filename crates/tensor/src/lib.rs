//! Dtypes, packed weights and kernels: the arithmetic of a forward pass, close to the limit of the machine.
//!
//! This crate refuses to know models, sequences, requests and time. It sees matrices, rows and KV pages. Every kernel
//! computes an output row from that row alone, in an order of additions fixed by shapes and absolute positions, so
//! that a row's bits do not depend on the batch, the chunk or the number of threads. Read `kernels.rs` first.

pub mod dtype;
pub mod gguf;
pub mod isa;
pub mod kernels;
pub mod kv;
pub mod packed;
pub mod peak;
pub mod pool;
pub mod quantised;
pub mod ragged;
pub mod reference;
pub mod safetensors;
pub mod scan;
pub mod stored;
pub mod timed;

#[cfg(target_arch = "x86_64")]
mod cpu;
mod error;
mod shapes;

use std::sync::Arc;

#[cfg(target_arch = "x86_64")]
pub use cpu::Cpu;
pub use dtype::Dtype;
pub use error::TensorError;
pub use isa::Isa;
pub use kernels::{Activation, Angles, Epilogue, Fused, Kernels, Norm, Product, Queries, Write};
pub use kv::{KvArena, KvDtype, KvLayout, PAGE_TOKENS};
pub use packed::archive::{Archive, ArchiveWriter};
pub use packed::{Linear, Packer};
pub use pool::{Cores, CoresError, PerThread, Pool};
pub use quantised::{Bits, Quantised, Scheme};
pub use ragged::{Ragged, Span};
pub use timed::Timed;

/// The kernels of an instruction set, on `threads` threads (the caller's included; the scalar ones use no others).
/// The machine must run `isa`: see [`Isa::require`].
pub fn kernels(isa: Isa, threads: usize) -> Arc<dyn Kernels> {
    kernels_on(isa, threads, &Cores::default())
}

/// As [`kernels()`], with threads that stay on these processors, but for the caller's.
pub fn kernels_on(isa: Isa, threads: usize, cores: &Cores) -> Arc<dyn Kernels> {
    match isa {
        Isa::Scalar => Arc::new(reference::Reference),
        #[cfg(target_arch = "x86_64")]
        _ => Arc::new(Cpu::new(isa, Arc::new(Pool::on(threads, cores)))),
        #[cfg(not(target_arch = "x86_64"))]
        _ => panic!("this machine does not run {isa}, {threads} threads on {cores} or not"),
    }
}
