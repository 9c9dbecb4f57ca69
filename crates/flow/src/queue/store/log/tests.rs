//! The log against a naive model of what a store must remember, on a disk that is as bad as disks are allowed to be.

mod bound;
mod damage;
mod faults;
mod model;
mod power_loss;
mod sequences;
mod spare;

use std::time::Duration;

use super::{Log, Upkeep};
use crate::queue::store::disk::SimulatedDisk;
use crate::queue::store::{DiskOptions, KeyWindow, Recovered, StoreError};

/// Small files, so that a few records fill one; keys are kept.
const OPTIONS: DiskOptions = DiskOptions {
    segment_bytes: 4096,
    waiting_bytes: 1 << 20,
    reserve_bytes: 512,
    keys: KeyWindow { age: Duration::from_secs(1 << 30), count: 1 << 20 },
};

fn open(disk: &SimulatedDisk) -> Result<(Log<SimulatedDisk>, Recovered), StoreError> {
    Log::open(disk.clone(), OPTIONS)
}

/// Tidies until there is nothing more to do.
fn tidy(log: &mut Log<SimulatedDisk>) -> Result<(), StoreError> {
    while log.tidy()? == Upkeep::Due {}
    Ok(())
}
