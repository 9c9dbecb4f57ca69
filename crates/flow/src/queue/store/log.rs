//! The log of a durable queue: records appended to segments, without threads, locks or a clock.
//!
//! ```text
//! folder/  lock  reserve  spare  segment-…07  segment-…08  segment-…09   <- records are appended here
//!                            ^------- oldest: when nothing in it is needed, it becomes the next segment
//! ```
//!
//! What must hold, in the order in which it is made to hold:
//! - A group of records counts once the file is synced; only then the ledger is told of it.
//! - A segment is created, its header synced and its name synced before the first record goes into it, and everything
//!   before it is synced before that. So only the last segment can be torn.
//! - Segments go from the oldest on and one at a time, with a sync of the folder after each: what made an item done
//!   never goes before the item itself.
//! - What a group left behind that did not fit on a full disk is cut off and synced before anybody is told, so that a
//!   refused item does not come back.
//! - While the disk is full, no more items are taken until the reserve, a file of zeros, is whole. Acknowledgements
//!   may use its room, because they are what makes room again.

mod compaction;
mod frame;
mod recovery;
mod segment;
mod spare;

#[cfg(test)]
mod mutant;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::io;

use super::disk::Disk;
use super::ledger::{Ledger, Place};
use super::record::{Kind, Record};
use super::{DiskOptions, StoreError, Usage};

pub(super) use compaction::Upkeep;
pub(super) use frame::{push, walk};

use compaction::Moving;
use segment::{HEADER_BLOCK, Header};

/// The file whose room is for acknowledgements when the disk is full.
const RESERVE: &str = "reserve";

/// Groups up to this size go into a place that was filled with zeros before, which spares the file system from noting
/// a new length at every sync: 66 instead of 101 µs at the median for 4 KiB. Larger ones gain nothing by it.
const SMALL_GROUP: u64 = 16 << 10;

/// How much is filled with zeros at a time.
const ZEROS_AHEAD: u64 = 256 << 10;

/// What of a group is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// All of it.
    All,
    /// The disk is full: all but the new items.
    AllButItems,
    /// The disk is full: nothing.
    Nothing,
}

/// Why something was not written.
#[derive(Debug)]
enum Trouble {
    /// There is no room now.
    Full,
    /// Nothing more can be written.
    Failed(StoreError),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// One file of the log.
#[derive(Clone, Copy, Debug)]
struct Segment {
    number: u64,
    /// Where its last record ends.
    end: u64,
    /// The length of the file; zeros lie between the end and here.
    length: u64,
}

impl Segment {
    fn name(&self) -> String {
        segment::name(self.number)
    }
}

/// The log of one queue.
#[derive(Debug)]
pub(super) struct Log<D> {
    disk: D,
    options: DiskOptions,
    salt: u32,
    /// From the oldest to the one that is written.
    segments: VecDeque<Segment>,
    ledger: Ledger,
    /// The sequence of the next record.
    next: u64,
    /// All records below this sequence survive a power loss.
    durable: u64,
    /// Whether the reserve is whole.
    has_reserve: bool,
    /// Bytes of the file that is to become a segment; 0 without one.
    spare: u64,
    moving: Option<Moving>,
    /// Segments in which something could not be read.
    damaged: BTreeSet<u64>,
    failed: Option<StoreError>,
}

impl<D: Disk> Log<D> {
    /// Appends a group of records and returns when those that are kept survive a power loss.
    ///
    /// # Errors
    /// From the first failure to write or to sync on, always with that failure.
    pub(super) fn commit(&mut self, frames: &mut Vec<u8>) -> Result<Kept, StoreError> {
        self.has_not_failed()?;
        let mut held = self.commit_whole(frames);
        if matches!(held, Err(Trouble::Full)) && self.give_up_spare()? {
            held = self.commit_whole(frames);
        }
        match held {
            Ok(()) => Ok(Kept::All),
            Err(Trouble::Failed(error)) => Err(error),
            Err(Trouble::Full) => self.commit_without_items(frames),
        }
    }

    /// Says that everything was written, so that whatever cannot be read at the next opening is damage.
    pub(super) fn close(&mut self) -> Result<(), StoreError> {
        let mut frames = Vec::new();
        push(&mut frames, &Record::Whole);
        self.commit(&mut frames).map(|_| ())
    }

    /// What the log takes up.
    pub(super) fn usage(&self) -> Usage {
        let reserve = if self.has_reserve { self.options.reserve_bytes } else { 0 };
        Usage {
            bytes: self.file_bytes() + reserve,
            live_bytes: self.ledger.item_bytes(),
            files: self.segments.len() + usize::from(self.has_reserve) + usize::from(self.spare > 0),
        }
    }

    /// Bytes of the segments and the spare.
    fn file_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.length).sum::<u64>() + self.spare
    }

    fn commit_whole(&mut self, frames: &mut Vec<u8>) -> Result<(), Trouble> {
        match self.ensure_reserve() {
            Err(Trouble::Full) if holds_items(frames) => Err(Trouble::Full),
            Err(Trouble::Full) | Ok(()) => self.append_and_sync(frames),
            failed => failed,
        }
    }

    fn commit_without_items(&mut self, frames: &[u8]) -> Result<Kept, StoreError> {
        let mut others = Vec::new();
        for (range, _) in walk(frames).filter(|(_, kind)| *kind != Kind::Item as u8) {
            others.extend_from_slice(&frames[range]);
        }
        if others.is_empty() {
            return Ok(Kept::Nothing);
        }
        let mut held = self.append_and_sync(&mut others);
        if matches!(held, Err(Trouble::Full)) && self.give_up_reserve()? {
            held = self.append_and_sync(&mut others);
        }
        match held {
            Ok(()) => Ok(Kept::AllButItems),
            Err(Trouble::Full) => Ok(Kept::Nothing),
            Err(Trouble::Failed(error)) => Err(error),
        }
    }

    fn append_and_sync(&mut self, frames: &mut Vec<u8>) -> Result<(), Trouble> {
        self.make_room_for(frames)?;
        let place = self.append(frames)?;
        self.sync()?;
        self.note(frames, place);
        Ok(())
    }

    fn make_room_for(&mut self, frames: &[u8]) -> Result<(), Trouble> {
        if self.active().end < self.options.segment_bytes {
            return Ok(());
        }
        match self.roll() {
            // The segment may become larger than it should, so that acknowledgements need no new file.
            Err(Trouble::Full) if !holds_items(frames) => Ok(()),
            other => other,
        }
    }

    /// Writes records behind the last one and answers where they begin. They count after the next sync.
    fn append(&mut self, frames: &mut Vec<u8>) -> Result<Place, Trouble> {
        let salt = segment::salt(self.salt, self.active().number);
        let next = frame::seal(frames, salt, self.next, self.durable);
        let ahead = self.zeros_ahead(frames.len() as u64);
        let mut held = self.write_behind(frames, ahead);
        if ahead > 0 && matches!(held, Err(Trouble::Full)) {
            held = self.write_behind(frames, 0);
        }
        match held {
            Ok(_) => self.next = next,
            Err(_) => frame::unseal(frames),
        }
        held
    }

    /// Writes bytes and zeros behind the last record.
    fn write_behind(&mut self, bytes: &mut Vec<u8>, zeros: u64) -> Result<Place, Trouble> {
        let (active, size) = (self.active(), bytes.len());
        bytes.resize(size + zeros as usize, 0);
        let written = self.disk.write(&active.name(), active.end, bytes);
        bytes.truncate(size);
        if let Err(error) = written {
            return Err(self.undo_write(&error, active, size as u64));
        }
        let end = active.end + size as u64;
        self.set_active(Segment { end, length: active.length.max(end + zeros), ..active });
        Ok(Place { segment: active.number, offset: active.end as u32, length: 0 })
    }

    /// How many zeros to write behind a small group that makes the file longer.
    fn zeros_ahead(&self, size: u64) -> u64 {
        let active = self.active();
        let end = active.end + size;
        if size > SMALL_GROUP || end <= active.length {
            return 0;
        }
        let ahead = ZEROS_AHEAD.min(self.options.segment_bytes / 8);
        end.next_multiple_of(ahead).min(self.options.segment_bytes).saturating_sub(end)
    }

    /// Removes what a failed write left behind, so that it cannot come back.
    fn undo_write(&mut self, error: &io::Error, active: Segment, size: u64) -> Trouble {
        if !is_full(error) {
            return self.fail(error);
        }
        let name = active.name();
        let mut undone = self.disk.cut(&name, active.length);
        if undone.is_ok() && active.end < active.length {
            let zeros = vec![0; size.min(active.length - active.end) as usize];
            undone = self.disk.write(&name, active.end, &zeros);
            if undone.as_ref().is_err_and(is_full) {
                undone = self.disk.cut(&name, active.end);
                self.set_active(Segment { length: active.end, ..active });
            }
        }
        let synced = undone.map_err(|error| self.fail(&error)).and_then(|()| self.sync());
        synced.err().unwrap_or(Trouble::Full)
    }

    fn sync(&mut self) -> Result<(), Trouble> {
        let name = self.active().name();
        self.disk.sync(&name).map_err(|error| self.fail(&error))?;
        self.durable = self.next;
        Ok(())
    }

    /// Tells the ledger of records that begin at a place.
    fn note(&mut self, frames: &[u8], start: Place) {
        for (range, _) in walk(frames) {
            let place =
                Place { offset: start.offset + range.start as u32, length: range.len() as u32, ..start };
            if let Some(record) = frame::record_in(&frames[range]) {
                self.ledger.apply(&record, place);
            }
        }
    }

    /// Goes on in a new segment.
    fn roll(&mut self) -> Result<(), Trouble> {
        if self.durable < self.next {
            self.sync()?;
        }
        let full = self.active();
        if full.end < full.length {
            self.disk.cut(&full.name(), full.end).map_err(|error| self.fail(&error))?;
            self.set_active(Segment { length: full.end, ..full });
        }
        self.create_segment(full.number + 1)
    }

    fn create_segment(&mut self, number: u64) -> Result<(), Trouble> {
        let header = Header { number, first: self.next, next_id: self.ledger.next_id(), salt: self.salt };
        let (name, end) = (segment::name(number), HEADER_BLOCK as u64);
        if self.spare > 0 {
            let length = self.begin_on_spare(&name, &header)?;
            self.segments.push_back(Segment { number, end, length });
            return Ok(());
        }
        let written = self.disk.create(&name).and_then(|()| self.disk.write(&name, 0, &header.block()));
        match written {
            Ok(()) => {
                let synced = self.disk.sync(&name).and_then(|()| self.disk.sync_dir());
                synced.map_err(|error| self.fail(&error))?;
                self.segments.push_back(Segment { number, end, length: end });
                Ok(())
            }
            Err(error) if is_full(&error) => Err(self.discard(&name)),
            Err(error) => Err(self.fail(&error)),
        }
    }

    /// Makes sure that there is room for acknowledgements when there is none for items.
    fn ensure_reserve(&mut self) -> Result<(), Trouble> {
        if self.has_reserve || self.options.reserve_bytes == 0 {
            return Ok(());
        }
        let zeros = vec![0; self.options.reserve_bytes as usize];
        let written = self.disk.create(RESERVE).and_then(|()| self.disk.write(RESERVE, 0, &zeros));
        match written {
            Ok(()) => {
                self.disk.sync(RESERVE).map_err(|error| self.fail(&error))?;
                self.has_reserve = true;
                Ok(())
            }
            Err(error) if is_full(&error) => Err(self.discard(RESERVE)),
            Err(error) => Err(self.fail(&error)),
        }
    }

    /// Lets the reserve go; false if there is none.
    fn give_up_reserve(&mut self) -> Result<bool, StoreError> {
        if !std::mem::take(&mut self.has_reserve) {
            return Ok(false);
        }
        match self.discard(RESERVE) {
            Trouble::Full => Ok(true),
            Trouble::Failed(error) => Err(error),
        }
    }

    /// Removes a file for which there is no room or no use; it may not even have come to be.
    fn discard(&mut self, name: &str) -> Trouble {
        let removed = self.disk.remove(name).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        });
        match removed.and_then(|()| self.disk.sync_dir()) {
            Ok(()) => Trouble::Full,
            Err(error) => self.fail(&error),
        }
    }

    fn active(&self) -> Segment {
        // A log that is open has a segment to write to: opening creates the first, and the last is never removed.
        self.segments.back().copied().unwrap_or(Segment { number: 0, end: 0, length: 0 })
    }

    fn set_active(&mut self, active: Segment) {
        if let Some(last) = self.segments.back_mut() {
            *last = active;
        }
    }

    fn has_not_failed(&self) -> Result<(), StoreError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Takes nothing more from here on: after a failed sync nobody knows what the disk holds.
    fn fail(&mut self, error: &io::Error) -> Trouble {
        let cause = error.to_string();
        let failure = StoreError::Failed { place: self.disk.place(), cause };
        Trouble::Failed(self.failed.get_or_insert(failure).clone())
    }
}

fn holds_items(frames: &[u8]) -> bool {
    walk(frames).any(|(_, kind)| kind == Kind::Item as u8)
}

/// Whether it is about room, which comes back, and not about the disk.
fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
