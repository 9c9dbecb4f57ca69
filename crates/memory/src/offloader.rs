//! Tensors of users, by name: put away, brought back, brought up ahead; within a budget of memory over a device, a folder on
//! the disk, or both.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::devices::DeviceChoice;
use crate::ladder::{OpenError, Stay, Terms, Watermarks, Writing};
use crate::replay::Recorder;
use crate::rung::{Blob, Level};
use crate::{
    Buffer, Key, Ladder, LadderError, LadderSettings, LadderStatistics, Places, PolicyChoice, Residency,
};

/// How an offloader works.
#[derive(Clone, Debug)]
pub struct OffloaderSettings {
    /// Bytes of memory for what is put away, for what is loaded and not dropped yet, and for what is in transfer.
    pub memory: usize,
    /// The share of the memory above which tensors begin to go to the disk, before room is needed: 0 to 1.
    pub threshold: f64,
    /// The most tensors in memory; what is more begins to go to the disk.
    pub items: Option<usize>,
    /// A device, such as a GPU, and how many bytes of its memory: where tensors go that memory has no room for.
    pub device: Option<(DeviceChoice, usize)>,
    /// Where tensors go that there is no room for on a device either, and how many bytes of them. Without both, what does not
    /// fit is refused.
    pub disk: Option<(PathBuf, usize)>,
    /// Which tensors go first.
    pub policy: PolicyChoice,
    /// Whether the memory is locked, as staging for devices has to be.
    pub residency: Residency,
    /// Threads that transfer.
    pub threads: usize,
    /// Takes down what is put away and loaded, so that [`replay`](crate::replay) can tell what other policies and sizes would
    /// have found.
    pub recorder: Option<Recorder>,
}

impl Default for OffloaderSettings {
    fn default() -> Self {
        Self {
            memory: 256 << 20,
            threshold: 0.8,
            items: None,
            device: None,
            disk: None,
            policy: PolicyChoice::default(),
            residency: Residency::default(),
            threads: 2,
            recorder: None,
        }
    }
}

/// Keeps byte strings by name, in memory while there is room and below when there is not. They live as long as it
/// does. Clones are the same offloader.
#[derive(Clone)]
pub struct Offloader {
    ladder: Ladder,
    names: Arc<Mutex<Names>>,
}

#[derive(Default)]
struct Names {
    keys: HashMap<String, Key>,
    given: u128,
}

/// Why an offloader does not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OffloadError {
    /// There is nothing of that name.
    #[error("nothing is offloaded under the name '{name}'")]
    Unknown {
        /// The name.
        name: String,
    },
    /// The ladder could not do it.
    #[error("cannot {act} '{name}': {source}")]
    Ladder {
        /// What was to be done.
        act: &'static str,
        /// The name.
        name: String,
        /// Why not.
        source: Box<LadderError>,
    },
}

impl Offloader {
    /// An empty offloader. What its folder holds of an earlier one is removed.
    ///
    /// # Errors
    /// When the memory is refused, there is no such device, or the folder cannot be used or is in use.
    pub fn open(settings: &OffloaderSettings) -> Result<Self, OpenError> {
        let places = Places { device: settings.device.clone(), disk: settings.disk.clone() };
        let below = places.open(Writing::Back, &settings.policy)?;
        let high = settings.threshold.clamp(0.0, 1.0);
        let ladder = LadderSettings {
            host_bytes: settings.memory,
            host_items: settings.items.unwrap_or(usize::MAX),
            below_bytes: below.as_ref().map_or(0, |step| step.bytes),
            watermarks: Watermarks { high, low: high * 0.75 },
            policy: settings.policy.clone(),
            residency: settings.residency,
            threads: settings.threads,
            recorder: settings.recorder.clone(),
            ..LadderSettings::default()
        };
        Ok(Self { ladder: Ladder::open(&ladder, below.map(|step| step.rung))?, names: Arc::default() })
    }

    /// Puts a copy of the bytes away under a name, in place of what had it. Completes when there is room in memory; it goes
    /// to the disk in its own time.
    ///
    /// # Errors
    /// When there is no room in memory that could be made.
    pub async fn offload(&self, name: &str, bytes: &[u8]) -> Result<(), OffloadError> {
        let mut staging = self.staging(name, bytes.len()).await?;
        staging.copy_from_slice(bytes);
        self.offload_staged(name, staging);
        Ok(())
    }

    /// Page-aligned memory to write a tensor into, locked if the settings say so and the system agrees.
    ///
    /// # Errors
    /// When there is no room in memory that could be made.
    pub async fn staging(&self, name: &str, bytes: usize) -> Result<Buffer, OffloadError> {
        let failed = |source| failed("offload", name, source);
        self.ladder.reserve(bytes).await.map_err(failed)
    }

    /// As [`Offloader::staging`], if there is room at once. If not, room begins to be made.
    pub fn try_staging(&self, bytes: usize) -> Option<Buffer> {
        self.ladder.try_reserve(bytes)
    }

    /// Puts staged bytes away without a copy.
    pub fn offload_staged(&self, name: &str, bytes: Buffer) {
        let (key, before) = {
            let mut names = self.names();
            names.given += 1;
            let key = Key(names.given);
            (key, names.keys.insert(name.to_owned(), key))
        };
        self.ladder.put(key, Blob { note: [].into(), bytes }, Terms { stay: Stay::Always, cost: 0.0 });
        before.into_iter().for_each(|before| self.ladder.remove(before));
    }

    /// The bytes under a name, from memory or the disk. It takes memory until it is dropped; it stays put away. Dropping
    /// the future cancels the transfer.
    ///
    /// # Errors
    /// When there is nothing of that name, it cannot be read or is damaged, or there is no room in memory.
    pub async fn load(&self, name: &str) -> Result<Loaded, OffloadError> {
        let failed = |source| failed("load", name, source);
        self.ladder.get(self.key(name)?).await.map(Loaded).map_err(failed)
    }

    /// Brings tensors up before they are loaded, as far as half of the memory goes, and returns how many are there or on
    /// their way. Names of nothing do not count.
    pub fn prefetch<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> usize {
        let keys: Vec<Key> = names.into_iter().filter_map(|name| self.key(name).ok()).collect();
        self.ladder.prefetch(keys)
    }

    /// Removes what is under a name; false if there is nothing.
    pub fn remove(&self, name: &str) -> bool {
        let key = self.names().keys.remove(name);
        key.map(|key| self.ladder.remove(key)).is_some()
    }

    /// Keeps it in memory once it is there, until it is unpinned as often.
    ///
    /// # Errors
    /// When there is nothing of that name.
    pub fn pin(&self, name: &str) -> Result<(), OffloadError> {
        self.ladder.pin(self.key(name)?);
        Ok(())
    }

    /// Takes one pin away.
    ///
    /// # Errors
    /// When there is nothing of that name.
    pub fn unpin(&self, name: &str) -> Result<(), OffloadError> {
        self.ladder.unpin(self.key(name)?);
        Ok(())
    }

    /// The names of all that is put away, in any order.
    pub fn names_of_all(&self) -> Vec<String> {
        self.names().keys.keys().cloned().collect()
    }

    /// Allows more or less memory from now on, up to what it was opened with.
    pub fn set_memory(&self, bytes: usize) {
        self.ladder.set_host_budget(bytes);
    }

    /// Uses no more memory than this while memory is short for everybody; what is more goes to the disk. Nothing is refused for
    /// that: what finds no other room is let in all the same. As much as is allowed, or more, takes it back.
    pub fn ease(&self, bytes: usize) {
        self.ladder.ease(bytes);
    }

    /// Lets another policy decide from now on.
    pub fn set_policy(&self, policy: &PolicyChoice) {
        self.ladder.set_policy(policy);
    }

    /// Moves what nobody has loaded together, so that free memory is in few stretches; returns how many moved.
    pub fn defragment(&self) -> usize {
        self.ladder.defragment()
    }

    /// What it holds and has done.
    pub fn stats(&self) -> LadderStatistics {
        self.ladder.statistics()
    }

    /// The places below memory, from the top, with what each holds and has done.
    pub fn levels(&self) -> Vec<Level> {
        self.ladder.levels()
    }

    fn key(&self, name: &str) -> Result<Key, OffloadError> {
        let key = self.names().keys.get(name).copied();
        key.ok_or_else(|| OffloadError::Unknown { name: name.to_owned() })
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(act: &'static str, name: &str, source: LadderError) -> OffloadError {
    OffloadError::Ladder { act, name: name.to_owned(), source: Box::new(source) }
}

impl fmt::Debug for Offloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offloader").field("names", &self.names().keys.len()).finish()
    }
}

/// Bytes that were loaded, page-aligned. They stay in memory until this is dropped.
#[derive(Clone, Debug)]
pub struct Loaded(Arc<Blob>);

impl Deref for Loaded {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.bytes
    }
}
