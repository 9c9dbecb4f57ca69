//! What is on a simulated disk, what a program sees of it, and what a power loss leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Weak;

use super::Fault;
use crate::random::Random;

/// What survives a power loss does so in pieces of this size.
const SECTOR: usize = 512;

#[derive(Debug)]
pub(super) struct State {
    pub(super) fate: Fate,
    pub(super) files: Vec<File>,
    /// The names as a program sees them.
    pub(super) names: BTreeMap<String, usize>,
    /// The names as they are on the disk.
    pub(super) kept_names: BTreeMap<String, usize>,
    /// What leads from the second to the first.
    pub(super) changes: Vec<Change>,
    pub(super) calls: u64,
    pub(super) faults: BTreeMap<u64, Fault>,
    pub(super) power: Power,
    /// The most bytes that all files together may have.
    pub(super) room: u64,
    pub(super) lock: Weak<()>,
}

#[derive(Debug, Default)]
pub(super) struct File {
    /// As a program sees it.
    pub(super) now: Vec<u8>,
    /// As it is on the disk.
    pub(super) kept: Vec<u8>,
    /// Sectors that a failed sync gave up: no sync writes them unless they are written anew.
    pub(super) given_up: BTreeSet<usize>,
}

#[derive(Debug)]
pub(super) enum Change {
    Created(String, usize),
    Renamed(String, String),
    Removed(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Power {
    On,
    Off,
}

/// Where decisions come from.
#[derive(Debug)]
pub(super) enum Fate {
    Drawn(Random),
    /// One bit for each coin, from the lowest on, and no bit flips; zeros when there are none left.
    Listed {
        bits: u64,
        used: u32,
    },
}

impl Fate {
    pub(super) fn coin(&mut self) -> bool {
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
    pub(super) fn seldom(&mut self, n: u64) -> bool {
        match self {
            Self::Drawn(random) => random.below(n) == 0,
            Self::Listed { .. } => false,
        }
    }

    /// A number from 0 to `most`.
    pub(super) fn up_to(&mut self, most: usize) -> usize {
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

impl State {
    pub(super) fn new(fate: Fate) -> Self {
        Self {
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
        }
    }

    /// Counts a call and says what happens to it.
    pub(super) fn begin(&mut self) -> Result<(), Fault> {
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

    pub(super) fn failing(fault: Fault) -> io::Result<()> {
        Err(match fault {
            Fault::Broken => io::Error::other("input/output error"),
            Fault::Full => io::ErrorKind::StorageFull.into(),
            Fault::PowerLoss => io::Error::other("the power is off"),
        })
    }

    pub(super) fn file(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn create(&mut self, name: &str) {
        if let Some(number) = self.names.get(name) {
            self.files[*number].now.clear();
            return;
        }
        let number = self.files.len();
        self.files.push(File::default());
        self.names.insert(name.to_owned(), number);
        self.changes.push(Change::Created(name.to_owned(), number));
    }

    pub(super) fn taken(&self) -> u64 {
        self.names.values().map(|number| self.files[*number].now.len() as u64).sum()
    }

    pub(super) fn restart(&mut self) {
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
    pub(super) fn apply(self, names: &mut BTreeMap<String, usize>) {
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
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
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

    pub(super) fn sync(&mut self) {
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

    pub(super) fn sync_in_part(&mut self, fate: &mut Fate) {
        for number in 0..self.now.len().div_ceil(SECTOR) {
            let range = number * SECTOR..self.now.len().min((number + 1) * SECTOR);
            if self.kept.get(range.clone()) != Some(&self.now[range]) && fate.coin() {
                self.given_up.insert(number);
            }
        }
        self.sync();
    }

    /// Keeps what a power loss leaves.
    pub(super) fn survive(&mut self, fate: &mut Fate) {
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
