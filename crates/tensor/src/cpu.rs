//! The kernels of this machine: one body per operation, instantiated per instruction set, split over the pool.

use std::sync::Arc;

use crate::{Isa, Pool};

/// Kernels for x86-64 at a given instruction set level.
pub struct Cpu {
    #[expect(dead_code, reason = "seam")]
    isa: Isa,
    #[expect(dead_code, reason = "seam")]
    pool: Arc<Pool>,
}
