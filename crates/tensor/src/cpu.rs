//! The kernels of this machine: one body per operation, instantiated per instruction set, split over the pool.

use std::sync::Arc;

use crate::{Isa, Pool};

/// Kernels for x86-64 at a given instruction set level.
pub struct Cpu {
    isa: Isa,
    pool: Arc<Pool>,
}

impl Cpu {
    /// Kernels of `isa`, which the machine must run, split over `pool`.
    pub fn new(isa: Isa, pool: Arc<Pool>) -> Self {
        Self { isa, pool }
    }
}
