//! What there is to share out: amounts of the machine, and devices that have amounts of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::thread::available_parallelism;

use super::amount::Unit;
use super::needs::{Needs, NeedsError};
use crate::metrics::System;

/// The shares into which a processor and a device are divided.
pub const WHOLE: u64 = 1000;

/// The name of memory, of the machine and of a device.
const MEMORY: &str = "memory";
const CPU: &str = "cpu";

/// So much of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quantity {
    pub(super) unit: Unit,
    pub(super) amount: u64,
}

/// One device of a kind: it can be taken whole or in shares, and has amounts of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub(super) kind: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) resources: BTreeMap<Arc<str>, Quantity>,
}

impl Device {
    /// A device; needs name its kind ("gpu"), people its name ("gpu0").
    pub fn new(kind: &str, name: &str) -> Self {
        Self { kind: kind.into(), name: name.into(), resources: BTreeMap::new() }
    }

    /// It has so many bytes of memory, which a need of "KIND_memory" takes.
    pub fn memory(self, bytes: u64) -> Self {
        self.with(MEMORY, Unit::Bytes, bytes)
    }

    /// It has so many slots of some sort, which a need of "KIND_NAME" takes.
    pub fn slots(self, name: &str, slots: u64) -> Self {
        self.with(name, Unit::Count, slots)
    }

    fn with(mut self, name: &str, unit: Unit, amount: u64) -> Self {
        self.resources.insert(name.into(), Quantity { unit, amount });
        self
    }

    /// What needs call its resources, and how much it has of each; the whole device first.
    pub(super) fn keys(&self) -> impl Iterator<Item = (Arc<str>, Quantity)> {
        let whole = (Arc::clone(&self.kind), Quantity { unit: Unit::Thousandths, amount: WHOLE });
        let own = self.resources.iter().map(|(name, has)| (format!("{}_{name}", self.kind).into(), *has));
        std::iter::once(whole).chain(own)
    }
}

/// All that a scheduler may share out.
///
/// ```
/// use flow::scheduler::{Device, Inventory};
///
/// let inventory = Inventory::new()
///     .memory(64_000_000_000)
///     .cpu(8000)
///     .slots("connections", 100)
///     .device(Device::new("gpu", "gpu0").memory(80 << 30))
///     .device(Device::new("gpu", "gpu1").memory(80 << 30));
/// assert!(inventory.needs("memory: 2GB, gpu: true, gpu_memory: 24GiB").is_ok());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    pub(super) resources: BTreeMap<Arc<str>, Quantity>,
    pub(super) devices: Vec<Device>,
}

impl Inventory {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The processors and the memory that the system and its control groups grant this process. Devices are given, as
    /// nothing generic can ask for them.
    pub fn detected() -> Self {
        let processors = available_parallelism().map_or(1, usize::from) as u64;
        Self::of(&System::here(), processors)
    }

    /// What a system grants that runs this process on so many processors.
    pub fn of(system: &System, processors: u64) -> Self {
        let cpu = processors.saturating_mul(WHOLE).min(system.processor_quota().unwrap_or(u64::MAX));
        let inventory = Self::new().cpu(cpu);
        match system.memory().capacity() {
            Some(bytes) => inventory.memory(bytes),
            None => inventory,
        }
    }

    /// So many bytes of memory, which a need of "memory" takes.
    pub fn memory(self, bytes: u64) -> Self {
        self.with(MEMORY, Unit::Bytes, bytes)
    }

    /// So many thousandths of processors, which a need of "cpu" takes.
    pub fn cpu(self, thousandths: u64) -> Self {
        self.with(CPU, Unit::Thousandths, thousandths)
    }

    /// So many slots of some sort, which a need of that name takes.
    pub fn slots(self, name: &str, slots: u64) -> Self {
        self.with(name, Unit::Count, slots)
    }

    /// A device more.
    pub fn device(mut self, device: Device) -> Self {
        self.devices.push(device);
        self
    }

    fn with(mut self, name: &str, unit: Unit, amount: u64) -> Self {
        self.resources.insert(name.into(), Quantity { unit, amount });
        self
    }

    /// Reads needs that are written as text, for instance `memory: 2GB, cpu: 0.5, gpu: true` or as a JSON object
    /// `{"memory": "2GB", "gpu": 1}`. A number of devices may be a fraction of one or a whole number; `true` is one.
    ///
    /// # Errors
    /// If the text is no list of names with amounts, or names something that is not in the inventory.
    pub fn needs(&self, text: &str) -> Result<Needs, NeedsError> {
        Needs::parse(text, &self.keys())
    }

    /// Everything that needs can name, by name.
    pub(super) fn keys(&self) -> Vec<Key> {
        let shared = self.resources.iter().map(|(name, has)| Key {
            name: Arc::clone(name),
            unit: has.unit,
            kind: None,
        });
        let mut keys: Vec<Key> = shared.collect();
        for device in &self.devices {
            add_keys(&mut keys, device);
        }
        keys
    }

    /// Whether names are used once.
    pub(super) fn check(&self) -> Result<(), InventoryError> {
        let mut names = BTreeSet::new();
        for device in &self.devices {
            if !names.insert(&device.name) {
                return Err(InventoryError::SameName { name: device.name.to_string() });
            }
            for (key, _) in device.keys() {
                if self.resources.contains_key(&key) {
                    return Err(InventoryError::Ambiguous { key: key.to_string() });
                }
            }
        }
        Ok(())
    }
}

/// Something that needs can name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) name: Arc<str>,
    pub(super) unit: Unit,
    /// The kind of device that has it, or `None` for what the machine has.
    pub(super) kind: Option<Arc<str>>,
}

impl Key {
    /// Whether it names devices themselves rather than something that they have.
    pub(super) fn is_device(&self) -> bool {
        self.kind.as_ref() == Some(&self.name)
    }
}

/// Adds what a device has and was not known.
pub(super) fn add_keys(keys: &mut Vec<Key>, device: &Device) {
    for (name, Quantity { unit, .. }) in device.keys() {
        if !keys.iter().any(|key| key.name == name) {
            keys.push(Key { name, unit, kind: Some(Arc::clone(&device.kind)) });
        }
    }
}

/// Why an inventory or a change of it makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InventoryError {
    /// Two devices have one name.
    SameName {
        /// The name.
        name: String,
    },
    /// A resource of the machine and one of a device would be called the same by needs.
    Ambiguous {
        /// The name.
        key: String,
    },
    /// There is no such resource of the machine, or no such device.
    Unknown {
        /// The name.
        name: String,
    },
}

impl std::error::Error for InventoryError {}

impl fmt::Display for InventoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SameName { name } => write!(f, "two devices are called '{name}'; give each its own name"),
            Self::Ambiguous { key } => {
                write!(
                    f,
                    "the machine and a device both have a '{key}'; rename the device's kind or resource"
                )
            }
            Self::Unknown { name } => {
                write!(f, "the inventory has no '{name}'; name one of its resources or devices")
            }
        }
    }
}
