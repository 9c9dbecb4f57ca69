//! A disk in memory that loses power, breaks and fills up when told, as a seed decides.

mod state;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Disk;
use crate::random::Random;
use state::{Change, Fate, State};

/// Something that happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The disk breaks: the call is done in part and fails. A sync that fails leaves data behind that can be read and
    /// that no later sync will write.
    Broken,
    /// There is no room: the call is done in part and fails.
    Full,
    /// The power goes in the middle of the call. Every later call fails until
    /// [`SimulatedDisk::restore_power`].
    PowerLoss,
}

/// A disk in memory that is as bad as disks are allowed to be. Clones are the same disk.
///
/// When power goes, of everything that was not synced each sector of 512 bytes survives or not on its own, in part, or
/// with a flipped bit; what a file grew by survives or not, perhaps as garbage; and every file that was created,
/// renamed or removed since the last sync of the folder has its old name or its new one, each on its own.
#[derive(Clone)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
    lock: Option<Arc<()>>,
}

impl SimulatedDisk {
    /// An empty disk whose misfortunes follow from the seed.
    pub fn new(seed: u64) -> Self {
        Self::with_fate(Fate::Drawn(Random::seeded(seed)))
    }

    /// An empty disk that decides as the bits say, so that a test can go through all decisions.
    pub fn listed(bits: u64) -> Self {
        Self::with_fate(Fate::Listed { bits, used: 0 })
    }

    /// How many decisions were made by listed bits, or would have been made if there had been more.
    pub fn decisions(&self) -> u32 {
        match self.state().fate {
            Fate::Listed { used, .. } => used,
            Fate::Drawn(_) => 0,
        }
    }

    fn with_fate(fate: Fate) -> Self {
        Self { state: Arc::new(Mutex::new(State::new(fate))), lock: None }
    }

    /// How many calls were made.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Lets the call of that number, counted from 0, meet with a fault.
    pub fn fail_at(&self, call: u64, fault: Fault) {
        self.state().faults.insert(call, fault);
    }

    /// Lets all files together have at most so many bytes; what is there already stays.
    pub fn limit(&self, bytes: u64) {
        self.state().room = bytes;
    }

    /// Takes the power away, if it is still on, and gives it back: what is on the disk now is what survived. Faults
    /// that are still to come are dropped.
    pub fn restore_power(&self) {
        self.state().restart();
    }

    /// Flips bits of one byte of a file, as age does.
    ///
    /// # Errors
    /// If there is no such byte.
    pub fn flip(&self, name: &str, offset: u64, bits: u8) -> io::Result<()> {
        let mut state = self.state();
        let number = state.file(name)?;
        let file = &mut state.files[number];
        for content in [&mut file.now, &mut file.kept] {
            *content.get_mut(offset as usize).ok_or(io::ErrorKind::UnexpectedEof)? ^= bits;
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for SimulatedDisk {
    fn place(&self) -> String {
        "a simulated disk".to_owned()
    }

    fn lock(&mut self) -> io::Result<()> {
        let mut state = self.state();
        if state.lock.upgrade().is_some() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let lock = Arc::new(());
        state.lock = Arc::downgrade(&lock);
        drop(state);
        self.lock = Some(lock);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut state = self.state();
        state.begin().or_else(State::failing)?;
        let length = |number: &usize| state.files[*number].now.len() as u64;
        Ok(state.names.iter().map(|(name, number)| (name.clone(), length(number))).collect())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        let fault = state.begin();
        if fault.is_ok() && state.taken() >= state.room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if fault.is_ok() || state.fate.coin() {
            state.create(name);
        }
        fault.or_else(State::failing)
    }

    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let number = state.file(name)?;
        let mut result = state.begin().or_else(State::failing);
        let mut count = bytes.len();
        if result.is_err() {
            count = state.fate.up_to(count);
        }
        let length = state.files[number].now.len() as u64;
        assert!(offset <= length, "{name} has {length} bytes, and {offset} is behind its end");
        let grows = (offset + count as u64).saturating_sub(length);
        let room = state.room.saturating_sub(state.taken());
        if grows > room {
            count -= (grows - room) as usize;
            result = result.and(Err(io::ErrorKind::StorageFull.into()));
        }
        state.files[number].write(offset as usize, &bytes[..count]);
        result
    }

    fn read(&mut self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut state = self.state();
        let number = state.file(name)?;
        state.begin().or_else(State::failing)?;
        let rest = state.files[number].now.get(offset as usize..).unwrap_or_default();
        Ok(rest[..length.min(rest.len())].to_vec())
    }

    fn cut(&mut self, name: &str, length: u64) -> io::Result<()> {
        let mut state = self.state();
        let number = state.file(name)?;
        let fault = state.begin();
        if fault.is_ok() || state.fate.coin() {
            state.files[number].now.truncate(length as usize);
        }
        fault.or_else(State::failing)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        let number = state.file(name)?;
        let fault = state.begin();
        let State { files, fate, .. } = &mut *state;
        match fault {
            Ok(()) => files[number].sync(),
            Err(Fault::PowerLoss) => {}
            Err(Fault::Broken | Fault::Full) => files[number].sync_in_part(fate),
        }
        fault.or_else(State::failing)
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        let mut state = self.state();
        let fault = state.begin();
        if fault.is_ok() {
            state.kept_names = state.names.clone();
            state.changes.clear();
        }
        fault.or_else(State::failing)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let fault = state.begin();
        let number = state.file(from)?;
        if fault.is_ok() || state.fate.coin() {
            state.names.remove(from);
            state.names.insert(to.to_owned(), number);
            state.changes.push(Change::Renamed(from.to_owned(), to.to_owned()));
        }
        fault.or_else(State::failing)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        let fault = state.begin();
        state.file(name)?;
        if fault.is_ok() || state.fate.coin() {
            state.names.remove(name);
            state.changes.push(Change::Removed(name.to_owned()));
        }
        fault.or_else(State::failing)
    }
}

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("SimulatedDisk")
            .field("files", &state.names.keys())
            .field("calls", &state.calls)
            .field("room", &state.room)
            .finish_non_exhaustive()
    }
}
