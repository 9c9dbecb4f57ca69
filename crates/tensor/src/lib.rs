//! Dtypes, packed weights and kernels: the arithmetic of a forward pass, close to the limit of the machine.
//!
//! This crate refuses to know models, sequences, requests and time. It sees matrices, rows and KV pages. Every kernel
//! computes an output row from that row alone, in an order of additions fixed by shapes and absolute positions, so
//! that a row's bits do not depend on the batch, the chunk or the number of threads. Read `kernels.rs` first.

pub mod dtype;
pub mod isa;
pub mod kernels;
pub mod kv;
pub mod packed;
pub mod pool;
pub mod ragged;
pub mod reference;
pub mod safetensors;

mod cpu;
mod error;
mod shapes;

use std::sync::Arc;

pub use cpu::Cpu;
pub use dtype::Dtype;
pub use error::TensorError;
pub use isa::Isa;
pub use kernels::{Activation, Angles, Epilogue, Kernels, Norm, Write};
pub use kv::{KvArena, KvLayout, PAGE_TOKENS};
pub use packed::{Linear, Packer};
pub use pool::Pool;
pub use ragged::{Ragged, Span};

/// The kernels of an instruction set, on `threads` threads (the caller's included; the scalar ones use no others).
/// The machine must run `isa`: see [`Isa::require`].
pub fn kernels(isa: Isa, _threads: usize) -> Arc<dyn Kernels> {
    match isa {
        Isa::Scalar => Arc::new(reference::Reference),
        _ => Arc::new(reference::Reference),
    }
}
