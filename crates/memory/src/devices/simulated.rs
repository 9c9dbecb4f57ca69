//! Memory of a device that refuses, breaks, flips bits and is lost when told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Device, DeviceFault};

/// Something that happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfortune {
    /// There is no memory.
    Full,
    /// The call fails, and the next may work.
    Broken,
    /// A bit of what is written or read is another.
    Flipped,
    /// The device is lost, with all that it holds, for good.
    Lost,
}

/// Memory of a device that is as bad as such memory can be. Clones are the same device.
#[derive(Clone, Debug)]
pub struct SimulatedDevice {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    room: usize,
    taken: usize,
    calls: u64,
    misfortunes: BTreeMap<u64, Misfortune>,
    is_lost: bool,
}

/// Memory of the simulated device.
#[derive(Debug)]
pub struct SimulatedRegion {
    state: Arc<Mutex<State>>,
    bytes: Mutex<Vec<u8>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Counts a call; whether a bit is flipped in it.
    fn begin(&mut self) -> Result<bool, DeviceFault> {
        let misfortune = self.misfortunes.remove(&self.calls);
        self.calls += 1;
        self.is_lost |= misfortune == Some(Misfortune::Lost);
        let cause = "as it was told".to_owned();
        match misfortune {
            _ if self.is_lost => Err(DeviceFault::Lost { cause }),
            Some(Misfortune::Full) => Err(DeviceFault::Full { cause }),
            Some(Misfortune::Broken) => Err(DeviceFault::Failed { cause }),
            other => Ok(other == Some(Misfortune::Flipped)),
        }
    }
}

impl SimulatedDevice {
    /// A device with so many bytes of memory.
    pub fn new(bytes: usize) -> Self {
        let (misfortunes, taken, calls) = (BTreeMap::new(), 0, 0);
        let state = State { room: bytes, taken, calls, misfortunes, is_lost: false };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// How many calls were made.
    pub fn calls(&self) -> u64 {
        lock(&self.state).calls
    }

    /// Lets the call of that number, counted from 0, meet with a misfortune.
    pub fn fail_at(&self, call: u64, misfortune: Misfortune) {
        lock(&self.state).misfortunes.insert(call, misfortune);
    }

    /// Whether it was lost.
    pub fn is_lost(&self) -> bool {
        lock(&self.state).is_lost
    }

    /// Bytes of all regions together.
    pub fn taken(&self) -> usize {
        lock(&self.state).taken
    }
}

impl Device for SimulatedDevice {
    type Region = SimulatedRegion;

    fn place(&self) -> String {
        "a simulated device".to_owned()
    }

    fn allocate(&self, bytes: usize) -> Result<SimulatedRegion, DeviceFault> {
        let mut state = lock(&self.state);
        state.begin()?;
        if state.taken + bytes > state.room {
            return Err(DeviceFault::Full { cause: format!("{} of {} are taken", state.taken, state.room) });
        }
        state.taken += bytes;
        Ok(SimulatedRegion { state: Arc::clone(&self.state), bytes: Mutex::new(vec![0xAA; bytes]) })
    }

    fn write(&self, region: &SimulatedRegion, offset: usize, bytes: &[u8]) -> Result<(), DeviceFault> {
        let is_flipped = lock(&self.state).begin()?;
        let mut held = lock(&region.bytes);
        let held = &mut held[offset..offset + bytes.len()];
        held.copy_from_slice(bytes);
        if is_flipped {
            flip(held);
        }
        Ok(())
    }

    fn read(&self, region: &SimulatedRegion, offset: usize, into: &mut [u8]) -> Result<(), DeviceFault> {
        let is_flipped = lock(&self.state).begin()?;
        into.copy_from_slice(&lock(&region.bytes)[offset..offset + into.len()]);
        if is_flipped {
            flip(into);
        }
        Ok(())
    }
}

/// Makes a bit in the middle another.
fn flip(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    bytes.iter_mut().skip(middle).take(1).for_each(|byte| *byte ^= 0x10);
}

impl Drop for SimulatedRegion {
    fn drop(&mut self) {
        lock(&self.state).taken -= lock(&self.bytes).len();
    }
}
