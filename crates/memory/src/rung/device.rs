//! Objects in the memory of a device, each in a region of its own.
//!
//! What a driver says is done need not be, and memory without error correction flips bits, so a checksum of every object
//! stays with the host and is compared whenever the object comes back. Nothing of it is there after the process has ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Defect, Medium, Parcel, Rung, RungError, STRIDE, Stop};
use crate::buffers::BLOCK;
use crate::devices::{Device, DeviceFault};
use crate::{Buffer, Key};

/// A rung in the memory of a device.
#[derive(Debug)]
pub struct DeviceRung<D: Device> {
    objects: Mutex<HashMap<Key, Arc<Kept<D::Region>>>>,
    device: D,
}

#[derive(Debug)]
struct Kept<R> {
    note: Box<[u8]>,
    bytes: usize,
    checksum: u32,
    region: R,
}

impl<D: Device> DeviceRung<D> {
    /// An empty rung on that device.
    pub fn new(device: D) -> Self {
        Self { device, objects: Mutex::default() }
    }

    fn objects(&self) -> MutexGuard<'_, HashMap<Key, Arc<Kept<D::Region>>>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn object(&self, key: Key) -> String {
        format!("object {key} on {}", self.device.place())
    }

    fn write(&self, parcel: &Parcel<'_>) -> Result<(), DeviceFault> {
        // There are no regions of nothing.
        let region = self.device.allocate(self.footprint(parcel.bytes.len()))?;
        for (number, stride) in parcel.bytes.chunks(STRIDE).enumerate() {
            self.device.write(&region, number * STRIDE, stride)?;
        }
        let checksum = crc32c::crc32c(parcel.bytes);
        let kept = Kept { note: parcel.note.into(), bytes: parcel.bytes.len(), checksum, region };
        self.objects().insert(parcel.key, Arc::new(kept));
        Ok(())
    }
}

impl<D: Device> Rung for DeviceRung<D> {
    fn place(&self) -> String {
        self.device.place()
    }

    fn medium(&self) -> Medium {
        Medium::Device
    }

    fn footprint(&self, bytes: usize) -> usize {
        bytes.max(1).next_multiple_of(BLOCK)
    }

    fn keep(&self, parcels: &[Parcel<'_>]) -> Vec<Result<(), RungError>> {
        let place = || self.device.place();
        let refusal = |fault| match fault {
            DeviceFault::Full { cause } => RungError::Full { place: place(), cause },
            DeviceFault::Lost { cause } | DeviceFault::Failed { cause } => {
                RungError::Failed { act: "write to", place: place(), cause }
            }
        };
        parcels.iter().map(|parcel| self.write(parcel).map_err(refusal)).collect()
    }

    fn fetch(&self, key: Key, into: &mut Buffer, stop: &Stop) -> Result<Box<[u8]>, RungError> {
        let kept = self.objects().get(&key).cloned();
        let kept = kept.ok_or_else(|| RungError::Gone { place: self.object(key) })?;
        let damaged = |defect| RungError::Damaged { place: self.object(key), defect };
        if self.footprint(into.len()) != self.footprint(kept.bytes) {
            let (expected, found) = (into.len() as u64, kept.bytes as u64);
            return Err(damaged(Defect::Length { expected, found }));
        }
        into.truncate(kept.bytes);
        for (number, stride) in into.chunks_mut(STRIDE).enumerate() {
            if stop.asked() {
                return Err(RungError::Stopped);
            }
            self.device.read(&kept.region, number * STRIDE, stride).map_err(|fault| match fault {
                DeviceFault::Lost { cause } => {
                    RungError::Gone { place: format!("{} ({cause})", self.object(key)) }
                }
                DeviceFault::Full { cause } | DeviceFault::Failed { cause } => {
                    RungError::Failed { act: "read", place: self.object(key), cause }
                }
            })?;
        }
        match crc32c::crc32c(into) {
            found if found == kept.checksum => Ok(kept.note.clone()),
            found => Err(damaged(Defect::Checksum { expected: kept.checksum, found })),
        }
    }

    fn remove(&self, key: Key) -> Result<(), RungError> {
        self.objects().remove(&key);
        Ok(())
    }

    fn inventory(&self) -> Result<Vec<(Key, usize)>, RungError> {
        Ok(self.objects().iter().map(|(key, kept)| (*key, kept.bytes)).collect())
    }
}
