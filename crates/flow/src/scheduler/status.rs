//! What a scheduler says about itself.

use std::sync::Arc;
use std::time::Duration;

use super::amount::Unit;
use super::pressure::Pressure;
use crate::metrics::HistogramSnapshot;

/// A scheduler at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct SchedulerStatus {
    /// What the machine has.
    pub resources: Vec<ResourceStatus>,
    /// The devices, those included that get no more work.
    pub devices: Vec<DeviceStatus>,
    /// Pieces of work that wait.
    pub waiting: usize,
    /// How long the oldest of them has waited.
    pub oldest: Option<Duration>,
    /// Reservations that have not been given back.
    pub running: usize,
    /// Reservations that were ever granted.
    pub started: u64,
    /// How long those waited that were started.
    pub waits: HistogramSnapshot,
    /// The pressure on memory, as last measured.
    pub pressure: Pressure,
    /// The largest share that each owner has of anything, 0 to 1; owners without work are left out.
    pub owners: Vec<(Arc<str>, f64)>,
}

/// One resource of one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceStatus {
    /// What needs call it.
    pub name: Arc<str>,
    /// What the amounts count.
    pub unit: Unit,
    /// All of it.
    pub capacity: u64,
    /// What is reserved; above the capacity only after the capacity was lowered.
    pub reserved: u64,
}

impl ResourceStatus {
    /// What can still be reserved.
    pub fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.reserved)
    }
}

/// One device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceStatus {
    /// Its name.
    pub name: Arc<str>,
    /// Its kind.
    pub kind: Arc<str>,
    /// What it has.
    pub resources: Vec<ResourceStatus>,
    /// Whether it was removed and gets no more work.
    pub is_retired: bool,
}
