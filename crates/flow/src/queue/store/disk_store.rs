//! A store in a folder: what is noted is written in groups, one sync for whatever arrived during the one before.

mod settling;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::disk::{Disk, Folder};
use super::log::{self, Kept, Log, Upkeep};
use super::record::Record;
use super::{Entry, KeyWindow, Position, Recovered, Settled, Store, StoreError, Usage};
use settling::{Settling, State};

/// The most that [`DiskOptions::segment_bytes`] and [`DiskOptions::waiting_bytes`] may be.
const MOST_BYTES: u64 = 1 << 30;

/// A group is never held up for longer than this, and for no more than so great a part of the time that writing takes.
const LONGEST_PATIENCE: Duration = Duration::from_millis(1);
const PATIENCE_PART: u32 = 2;

/// After it was waited in vain so often in a row, the pauses become no longer.
const MOST_IN_VAIN: u32 = 6;

/// A buffer that has become larger than this is given back to the system.
const BUFFER_BYTES: usize = 8 << 20;

/// Sizes and bounds of a [`DiskStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// A new file is begun when one has become this large, from 4 KiB to 1 GiB. Once all work is done the files take
    /// up at most twice the bytes that are needed plus three of these.
    pub segment_bytes: u64,
    /// The most that may wait to be written, up to 1 GiB. It is also the largest entry.
    pub waiting_bytes: usize,
    /// Room that is held for acknowledgements on a full disk, about 30 bytes each. 0 holds none.
    pub reserve_bytes: u64,
    /// How long the idempotency keys of items are kept that are done.
    pub keys: KeyWindow,
}

impl Default for DiskOptions {
    /// Files of 16 MiB, 64 MiB waiting, 1 MiB held, and the default window of keys.
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            waiting_bytes: 64 << 20,
            reserve_bytes: 1 << 20,
            keys: KeyWindow::default(),
        }
    }
}

impl DiskOptions {
    pub(super) fn within_limits(self) -> Self {
        Self {
            segment_bytes: self.segment_bytes.clamp(4 << 10, MOST_BYTES),
            waiting_bytes: self.waiting_bytes.clamp(4 << 10, MOST_BYTES as usize),
            ..self
        }
    }
}

/// A store in a folder of the file system.
///
/// One thread writes; while it waits for the disk, the notes that arrive form the next group, so that many producers
/// share one sync and a single one waits for none but its own. Dropping the store writes what was noted, which may
/// take as long as a sync, and lets the folder go.
///
/// It is not a database: there is no search and no order but that of the notes, and everything that is not done is
/// read into memory when it is opened.
pub struct DiskStore {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

/// What the callers and the writer share.
struct Shared {
    state: Mutex<State>,
    /// Wakes the writer.
    work: Condvar,
    place: String,
    waiting_bytes: usize,
}

impl DiskStore {
    /// Opens the store in a folder, which is created where it is missing, and says what it held.
    ///
    /// This reads the disk and blocks until it is done.
    ///
    /// # Errors
    /// If another process has it open, if a later version wrote it, or if the disk cannot be read or written.
    pub fn open(folder: impl AsRef<Path>, options: DiskOptions) -> Result<(Self, Recovered), StoreError> {
        let path = folder.as_ref();
        let folder = Folder::open(path).map_err(|error| StoreError::Failed {
            place: path.display().to_string(),
            cause: error.to_string(),
        })?;
        Self::open_on(folder, options)
    }

    /// Opens the store on any disk, such as a [`SimulatedDisk`](super::disk::SimulatedDisk).
    ///
    /// # Errors
    /// As [`DiskStore::open`].
    pub fn open_on(disk: impl Disk, options: DiskOptions) -> Result<(Self, Recovered), StoreError> {
        let place = disk.place();
        let (log, recovered) = Log::open(disk, options)?;
        let waiting_bytes = options.within_limits().waiting_bytes;
        let state = Mutex::new(State::new(log.usage()));
        let shared = Arc::new(Shared { state, work: Condvar::new(), place, waiting_bytes });
        let writing = Arc::clone(&shared);
        let spawned = std::thread::Builder::new()
            .name("flow-store".to_owned())
            .spawn(move || Writer::new(log, writing).run());
        let writer = spawned
            .map_err(|error| StoreError::Failed { place: shared.place.clone(), cause: error.to_string() })?;
        Ok((Self { shared, writer: Some(writer) }, recovered))
    }
}

impl Store for DiskStore {
    fn note(&self, entry: Entry<'_>) -> Result<Position, StoreError> {
        let limit = self.shared.waiting_bytes;
        let size = size_hint(&entry);
        if size > limit {
            return Err(StoreError::TooLarge { bytes: size as u64, limit: limit as u64 });
        }
        // Entries without an item are small, and refusing an acknowledgement helps nobody: they may go over.
        let most = if matches!(entry, Entry::Accepted { .. }) { limit } else { 2 * limit };
        let mut state = self.shared.state();
        state.has_not_failed()?;
        if !state.waiting.is_empty() && state.waiting.len() + size > most {
            return Err(StoreError::Behind { place: self.shared.place.clone(), limit: most as u64 });
        }
        log::push(&mut state.waiting, &Record::from(entry));
        let position = state.note();
        if state.is_wanted() {
            self.shared.work.notify_one();
        }
        Ok(position)
    }

    fn settled(&self, position: Position) -> Settled<'_> {
        Box::pin(Settling::new(&self.shared, position))
    }

    fn usage(&self) -> Usage {
        self.shared.state().usage
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        self.shared.state().stop();
        self.shared.work.notify_one();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has told those who wait; there is nobody to tell here.
            let _ended = writer.join();
        }
    }
}

impl fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskStore")
            .field("place", &self.shared.place)
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Nobody panics while holding the lock, so what is behind it is whole in any case.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that writes.
struct Writer<D: Disk> {
    log: Log<D>,
    shared: Arc<Shared>,
    /// How long to wait for a group to become complete.
    patience: Duration,
    /// How often in a row it was waited for callers who did not come, and how many groups are begun without waiting.
    in_vain: u32,
    not_waiting: u32,
}

/// What the writer does next.
enum Task {
    Write,
    Tidy,
    Close,
}

impl<D: Disk> Writer<D> {
    fn new(log: Log<D>, shared: Arc<Shared>) -> Self {
        Self { log, shared, patience: Duration::ZERO, in_vain: 0, not_waiting: 0 }
    }

    fn run(mut self) {
        let mut frames = Vec::new();
        let mut upkeep = Upkeep::Due;
        loop {
            let outcome = match self.next_task(&mut frames, upkeep) {
                Task::Write => self.write(&mut frames),
                Task::Tidy => self.tidy(),
                Task::Close => {
                    // An end without the closing record is like a crash, after which nothing is lost either.
                    let _closed = self.log.close();
                    return;
                }
            };
            match outcome {
                Ok(next) => upkeep = next,
                Err(error) => return State::publish_failure(&self.shared, error),
            }
        }
    }

    /// Writes a group, tells who waits for it, and tidies a little while they think of something new: callers who come
    /// back at once must not keep the log from becoming small.
    fn write(&mut self, frames: &mut Vec<u8>) -> Result<Upkeep, StoreError> {
        let begun = Instant::now();
        let kept = self.log.commit(frames)?;
        State::publish(&self.shared, kept, frames, self.log.usage());
        self.patience = (begun.elapsed() / PATIENCE_PART).min(LONGEST_PATIENCE);
        frames.clear();
        frames.shrink_to(BUFFER_BYTES);
        self.tidy()
    }

    fn tidy(&mut self) -> Result<Upkeep, StoreError> {
        let upkeep = self.log.tidy()?;
        self.shared.state().usage = self.log.usage();
        Ok(upkeep)
    }

    /// Waits until there is something to do, and takes over what is to be written.
    fn next_task(&mut self, frames: &mut Vec<u8>, upkeep: Upkeep) -> Task {
        self.gather();
        let mut state = self.shared.state();
        loop {
            if state.begin_group(frames) {
                return Task::Write;
            }
            if state.is_stopping() {
                return Task::Close;
            }
            if upkeep == Upkeep::Due {
                return Task::Tidy;
            }
            state.fall_asleep();
            state = self.shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.wake_up();
        }
    }

    /// Lets those come who have just been told of their last notes, but not for long. Without this the callers part
    /// into two halves, of which one is being written while the other waits, and each sync serves only half of them.
    /// Callers that take their time are not waited for again and again.
    fn gather(&mut self) {
        let mut state = self.shared.state();
        if !state.expects_more() {
            return;
        }
        if self.not_waiting > 0 {
            self.not_waiting -= 1;
            return;
        }
        state.gather();
        let work = &self.shared.work;
        let gathered = work.wait_timeout_while(state, self.patience, |state| state.is_gathering());
        let (mut state, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        state.wake_up();
        self.in_vain = if state.give_up_gathering() { 0 } else { (self.in_vain + 1).min(MOST_IN_VAIN) };
        self.not_waiting = (1 << self.in_vain) - 1;
    }
}

impl<D: Disk> Drop for Writer<D> {
    /// Whoever waits must not wait for a writer that is gone, for whatever reason it went.
    fn drop(&mut self) {
        let cause = "its writer has ended".to_owned();
        let error = StoreError::Failed { place: self.shared.place.clone(), cause };
        State::publish_failure(&self.shared, error);
    }
}

/// About how many bytes an entry takes.
fn size_hint(entry: &Entry<'_>) -> usize {
    128 + match entry {
        Entry::Accepted { facts, item, .. } => {
            item.len() + facts.owner.len() + facts.key.as_ref().map_or(0, |key| key.len())
        }
        Entry::Dead { cause, .. } => cause.len(),
        Entry::Taken { .. } | Entry::Done { .. } | Entry::Revived { .. } => 0,
    }
}
