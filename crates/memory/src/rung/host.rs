//! A rung in the memory of the process: for tests, and for whoever wants the ladder without a disk. It is stricter than a
//! disk: it forgets nothing, and panics where the contract is broken.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::{Medium, Parcel, Rung, RungError, Stop};
use crate::{Buffer, Key};

/// A rung in the memory of the process.
#[derive(Debug, Default)]
pub struct HostRung {
    objects: Mutex<BTreeMap<Key, Kept>>,
}

#[derive(Debug)]
struct Kept {
    note: Box<[u8]>,
    bytes: Box<[u8]>,
}

impl HostRung {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    fn objects(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Kept>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rung for HostRung {
    fn place(&self) -> String {
        "memory".to_owned()
    }

    fn medium(&self) -> Medium {
        Medium::Host
    }

    fn footprint(&self, bytes: usize) -> usize {
        bytes.max(1)
    }

    fn keep(&self, parcels: &[Parcel<'_>]) -> Vec<Result<(), RungError>> {
        let mut objects = self.objects();
        let mut keep = |parcel: &Parcel<'_>| {
            let kept = Kept { note: parcel.note.into(), bytes: parcel.bytes[..].into() };
            let before = objects.insert(parcel.key, kept);
            assert!(before.is_none(), "{} is kept twice", parcel.key);
            Ok(())
        };
        parcels.iter().map(&mut keep).collect()
    }

    fn fetch(&self, key: Key, into: &mut Buffer, stop: &Stop) -> Result<Box<[u8]>, RungError> {
        if stop.asked() {
            return Err(RungError::Stopped);
        }
        let objects = self.objects();
        let kept = objects.get(&key).ok_or_else(|| RungError::Gone { place: format!("{key} in memory") })?;
        assert_eq!(into.len(), kept.bytes.len(), "the buffer is as long as the object");
        into.truncate(kept.bytes.len());
        into.copy_from_slice(&kept.bytes);
        Ok(kept.note.clone())
    }

    fn remove(&self, key: Key) -> Result<(), RungError> {
        self.objects().remove(&key);
        Ok(())
    }

    fn inventory(&self) -> Result<Vec<(Key, usize)>, RungError> {
        let objects = self.objects();
        Ok(objects.iter().map(|(key, kept)| (*key, kept.bytes.len())).collect())
    }
}
