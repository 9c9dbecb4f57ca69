//! Files in memory on a disk that breaks, fills up, lies and loses power when told, as a seed decides.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Files;
use crate::buffers::BLOCK;

/// Something that happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The disk breaks: the call is done in part and fails.
    Broken,
    /// There is no room: the call is done in part and fails.
    Full,
    /// The disk lies: a write is done in part and said to be done, a read comes back shorter. Other calls are not
    /// touched by it.
    Short,
    /// The disk lies: a bit of what is written or read is another.
    Flipped,
}

/// Files in memory on a disk that is as bad as disks can be. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimulatedFiles {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    random: u64,
    files: BTreeMap<String, File>,
    /// What the files are called after a power loss, and what is in them then.
    kept: BTreeMap<String, Vec<u8>>,
    calls: u64,
    faults: BTreeMap<u64, Fault>,
    room: u64,
}

#[derive(Clone, Debug)]
struct File {
    bytes: Vec<u8>,
    synced: bool,
}

impl State {
    /// A number below `n` (splitmix64).
    fn below(&mut self, n: usize) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }

    fn begin(&mut self) -> Option<Fault> {
        let fault = self.faults.remove(&self.calls);
        self.calls += 1;
        fault
    }

    /// For calls that are done or not done.
    fn begin_plain(&mut self) -> io::Result<()> {
        match self.begin() {
            Some(Fault::Broken) => Err(io::Error::other("input/output error")),
            Some(Fault::Full) => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn taken(&self) -> u64 {
        self.files.values().map(|file| file.bytes.len() as u64).sum()
    }

    fn flip(&mut self, bytes: &mut [u8]) {
        if !bytes.is_empty() {
            let (at, bit) = (self.below(bytes.len()), self.below(8));
            bytes[at] ^= 1 << bit;
        }
    }
}

impl SimulatedFiles {
    /// An empty disk whose misfortunes follow from the seed.
    pub fn new(seed: u64) -> Self {
        let state = State {
            random: seed,
            files: BTreeMap::new(),
            kept: BTreeMap::new(),
            calls: 0,
            faults: BTreeMap::new(),
            room: u64::MAX,
        };
        Self { state: Arc::new(Mutex::new(state)) }
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

    /// Bytes of all files together.
    pub fn taken(&self) -> u64 {
        self.state().taken()
    }

    /// Takes the power away and gives it back: of what was not synced each block survives or not, and files whose names
    /// were not synced have their old names or their new ones.
    pub fn lose_power(&self) {
        let mut state = self.state();
        let now = std::mem::take(&mut state.files);
        let mut left = state.kept.clone();
        for (name, file) in now {
            if state.below(2) == 0 {
                left.insert(name, file.bytes);
                continue;
            }
            let mut bytes = file.bytes;
            if !file.synced {
                for block in bytes.chunks_mut(BLOCK) {
                    if state.below(2) == 0 {
                        block.fill(0);
                    }
                }
                let length = state.below(bytes.len() + 1);
                bytes.truncate(length);
            }
            left.insert(name, bytes);
        }
        state.files = left.into_iter().map(|(name, bytes)| (name, File { bytes, synced: true })).collect();
        state.kept = state.files.iter().map(|(name, file)| (name.clone(), file.bytes.clone())).collect();
        state.faults.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files for SimulatedFiles {
    fn place(&self) -> String {
        "a simulated disk".to_owned()
    }

    fn lock(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut state = self.state();
        state.begin_plain()?;
        Ok(state.files.iter().map(|(name, file)| (name.clone(), file.bytes.len() as u64)).collect())
    }

    fn write(&self, name: &str, parts: [&[u8]; 2]) -> io::Result<()> {
        let mut state = self.state();
        let fault = state.begin();
        let mut bytes = parts.concat();
        assert!(bytes.len().is_multiple_of(BLOCK), "{name} is written in whole blocks");
        let before = state.files.remove(name).map_or(0, |file| file.bytes.len() as u64);
        let room = usize::try_from(state.room.saturating_sub(state.taken())).unwrap_or(usize::MAX);
        let mut result = Ok(());
        match fault {
            Some(Fault::Flipped) => state.flip(&mut bytes),
            Some(fault) => {
                let length = state.below(bytes.len());
                bytes.truncate(length);
                result = match fault {
                    Fault::Broken => Err(io::Error::other("input/output error")),
                    Fault::Full => Err(io::ErrorKind::StorageFull.into()),
                    Fault::Short | Fault::Flipped => Ok(()),
                };
            }
            None => {}
        }
        if bytes.len() > room.max(before as usize) {
            bytes.truncate(room);
            result = Err(io::ErrorKind::StorageFull.into());
        }
        state.files.insert(name.to_owned(), File { bytes, synced: false });
        result
    }

    fn read(&self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state();
        let fault = state.begin();
        let file = state.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        let rest = file.bytes.get(offset as usize..).unwrap_or_default();
        let mut count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        match fault {
            Some(Fault::Broken | Fault::Full) => return Err(io::Error::other("input/output error")),
            Some(Fault::Short) => count = state.below(count),
            Some(Fault::Flipped) => state.flip(&mut into[..count]),
            None => {}
        }
        Ok(count)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.begin_plain()?;
        state.files.get_mut(name).ok_or(io::ErrorKind::NotFound)?.synced = true;
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.state();
        state.begin_plain()?;
        let synced = state.files.iter().filter(|(_, file)| file.synced);
        state.kept = synced.map(|(name, file)| (name.clone(), file.bytes.clone())).collect();
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.begin_plain()?;
        let file = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.begin_plain()?;
        state.files.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}
