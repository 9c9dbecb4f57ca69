//! A disk in memory that loses power, breaks and fills up when told, as a seed decides.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::Disk;
use crate::random::Random;

/// What survives a power loss does so in pieces of this size.
const SECTOR: usize = 512;

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

#[derive(Debug)]
struct State {
    fate: Fate,
    files: Vec<File>,
    /// The names as a program sees them.
    names: BTreeMap<String, usize>,
    /// The names as they are on the disk.
    kept_names: BTreeMap<String, usize>,
    /// What leads from the second to the first.
    changes: Vec<Change>,
    calls: u64,
    faults: BTreeMap<u64, Fault>,
    power: Power,
    /// The most bytes that all files together may have.
    room: u64,
    lock: Weak<()>,
}

#[derive(Debug, Default)]
struct File {
    /// As a program sees it.
    now: Vec<u8>,
    /// As it is on the disk.
    kept: Vec<u8>,
    /// Sectors that a failed sync gave up: no sync writes them unless they are written anew.
    given_up: BTreeSet<usize>,
}

#[derive(Debug)]
enum Change {
    Created(String, usize),
    Renamed(String, String),
    Removed(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    On,
    Off,
}

/// Where decisions come from.
#[derive(Debug)]
enum Fate {
    Drawn(Random),
    /// One bit for each coin, from the lowest on, and no bit flips; zeros when there are none left.
    Listed {
        bits: u64,
        used: u32,
    },
}

impl Fate {
    fn coin(&mut self) -> bool {
        match self {
            Self::Drawn(random) => random.bits() >> 63 == 1,
            Self::Listed { bits, used } => {
                *used += 1;
                let heads = *bits & 1 == 1;
                *bits >>= 1;
                heads
            }
        }
    }

    /// Something that happens once in `n` times; never where decisions are listed.
    fn seldom(&mut self, n: u64) -> bool {
        match self {
            Self::Drawn(random) => random.below(n) == 0,
            Self::Listed { .. } => false,
        }
    }

    /// A number from 0 to `most`.
    fn up_to(&mut self, most: usize) -> usize {
        match self {
            Self::Drawn(random) => random.below(most as u64 + 1) as usize,
            Self::Listed { .. } => {
                if self.coin() {
                    most
                } else {
                    0
                }
            }
        }
    }
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
        let state = State {
            fate,
            files: Vec::new(),
            names: BTreeMap::new(),
            kept_names: BTreeMap::new(),
            changes: Vec::new(),
            calls: 0,
            faults: BTreeMap::new(),
            power: Power::On,
            room: u64::MAX,
            lock: Weak::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), lock: None }
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

impl State {
    /// Counts a call and says what happens to it.
    fn begin(&mut self) -> Result<(), Fault> {
        if self.power == Power::Off {
            return Err(Fault::PowerLoss);
        }
        let fault = self.faults.remove(&self.calls);
        self.calls += 1;
        if fault == Some(Fault::PowerLoss) {
            self.power = Power::Off;
        }
        fault.map_or(Ok(()), Err)
    }

    fn failing(fault: Fault) -> io::Result<()> {
        Err(match fault {
            Fault::Broken => io::Error::other("input/output error"),
            Fault::Full => io::ErrorKind::StorageFull.into(),
            Fault::PowerLoss => io::Error::other("the power is off"),
        })
    }

    fn file(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn create(&mut self, name: &str) {
        if let Some(number) = self.names.get(name) {
            self.files[*number].now.clear();
            return;
        }
        let number = self.files.len();
        self.files.push(File::default());
        self.names.insert(name.to_owned(), number);
        self.changes.push(Change::Created(name.to_owned(), number));
    }

    fn taken(&self) -> u64 {
        self.names.values().map(|number| self.files[*number].now.len() as u64).sum()
    }

    fn restart(&mut self) {
        for change in std::mem::take(&mut self.changes) {
            if self.fate.coin() {
                change.apply(&mut self.kept_names);
            }
        }
        self.names = self.kept_names.clone();
        for (number, file) in self.files.iter_mut().enumerate() {
            if self.names.values().any(|named| *named == number) {
                file.survive(&mut self.fate);
            } else {
                *file = File::default();
            }
        }
        self.faults.clear();
        self.power = Power::On;
        self.lock = Weak::new();
    }
}

impl Change {
    fn apply(self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Created(name, number) => {
                names.insert(name, number);
            }
            Self::Renamed(from, to) => {
                if let Some(number) = names.remove(&from) {
                    names.insert(to, number);
                }
            }
            Self::Removed(name) => {
                names.remove(&name);
            }
        }
    }
}

impl File {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.now.len() < end {
            self.now.resize(end, 0);
        }
        self.now[offset..end].copy_from_slice(bytes);
        if !self.given_up.is_empty() && !bytes.is_empty() {
            let rewritten = offset / SECTOR..=(end - 1) / SECTOR;
            self.given_up.retain(|sector| !rewritten.contains(sector));
        }
    }

    fn sync(&mut self) {
        let (now, given_up) = (&self.now, &self.given_up);
        self.kept.resize(now.len(), 0);
        if given_up.is_empty() {
            self.kept.copy_from_slice(now);
            return;
        }
        let sectors = self.kept.chunks_mut(SECTOR).zip(now.chunks(SECTOR)).enumerate();
        for (number, (kept, now)) in sectors {
            if !given_up.contains(&number) {
                kept.copy_from_slice(now);
            }
        }
    }

    fn sync_in_part(&mut self, fate: &mut Fate) {
        for number in 0..self.now.len().div_ceil(SECTOR) {
            let range = number * SECTOR..self.now.len().min((number + 1) * SECTOR);
            if self.kept.get(range.clone()) != Some(&self.now[range]) && fate.coin() {
                self.given_up.insert(number);
            }
        }
        self.sync();
    }

    /// Keeps what a power loss leaves.
    fn survive(&mut self, fate: &mut Fate) {
        let (shorter, longer) = (self.now.len().min(self.kept.len()), self.now.len().max(self.kept.len()));
        let length = if shorter == longer { longer } else { shorter + fate.up_to(longer - shorter) };
        let mut left = self.kept.clone();
        left.resize(length, 0);
        let starts = (0..length.min(self.now.len())).step_by(SECTOR);
        for start in starts {
            let end = length.min(self.now.len()).min(start + SECTOR);
            let (left, now) = (&mut left[start..end], &self.now[start..end]);
            if left != now && !self.given_up.contains(&(start / SECTOR)) {
                survive_in_sector(left, now, fate);
            }
        }
        self.now.clone_from(&left);
        self.kept = left;
        self.given_up.clear();
    }
}

/// Decides on a sector that was written since the last sync. Only bytes that changed are at risk.
fn survive_in_sector(left: &mut [u8], now: &[u8], fate: &mut Fate) {
    let flipped = if fate.seldom(4) { Some(fate.up_to(now.len() - 1)) } else { None };
    let flipped = flipped.filter(|at| left[*at] != now[*at]);
    if fate.coin() {
        let whole = if fate.seldom(4) { fate.up_to(now.len()) } else { now.len() };
        left[..whole].copy_from_slice(&now[..whole]);
    }
    if let Some(at) = flipped {
        left[at] ^= 1 << fate.up_to(7);
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
