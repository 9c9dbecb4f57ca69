//! The log against a naive model of what a store must remember, on a disk that is as bad as disks are allowed to be.

mod model;
mod power_loss;

use std::time::Duration;

use super::Log;
use crate::queue::store::{DiskOptions, KeyWindow};

/// Small files, so that a few records fill one; keys are kept.
const OPTIONS: DiskOptions = DiskOptions {
    segment_bytes: 4096,
    waiting_bytes: 1 << 20,
    reserve_bytes: 512,
    keys: KeyWindow { age: Duration::from_secs(1 << 30), count: 1 << 20 },
};
