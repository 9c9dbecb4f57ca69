//! A segment that is needed no more becomes the next one. Its bytes have their place on the disk already, so a sync of
//! what is written over them has nothing else to note: 130 instead of 300 µs for 70 KB.
//!
//! - The spare is as long as a segment should be, and none is kept that would make the log too large.
//! - It gets the header of the segment it is to become, and that is synced, before it gets its name.
//! - Records are checked with a salt of their segment, so what lies in the file from before is no record of this one.

use std::io;

use super::segment::Header;
use super::{Log, StoreError, Trouble, is_full};
use crate::queue::store::disk::Disk;

/// The file that is to become a segment.
pub(super) const SPARE: &str = "spare";

impl<D: Disk> Log<D> {
    /// Takes up the spare of an earlier life, if it can still be used.
    pub(super) fn find_spare(&mut self, files: &[(String, u64)]) -> io::Result<()> {
        let Some((_, length)) = files.iter().find(|(name, _)| name == SPARE) else { return Ok(()) };
        if *length < self.options.segment_bytes {
            return self.disk.remove(SPARE);
        }
        self.trim_spare(*length)
    }

    /// Whether the oldest segment should become the spare.
    pub(super) fn has_use_for_oldest(&self) -> bool {
        let size = self.options.segment_bytes;
        let length = self.segments.front().map_or(0, |oldest| oldest.length);
        self.spare == 0 && length >= size && self.file_bytes() - length + size <= self.most_bytes()
    }

    /// Makes the file of a segment in which nothing is needed the spare.
    pub(super) fn keep_as_spare(&mut self, name: &str) -> Result<(), Trouble> {
        match self.disk.rename(name, SPARE) {
            // The folder has no room for another name: then there is no spare, and no such segment either.
            Err(error) if is_full(&error) => self.discard_both(name),
            renamed => {
                let length = self.segments.front().map_or(0, |oldest| oldest.length);
                let kept = renamed.and_then(|()| self.disk.sync_dir()).and_then(|()| self.trim_spare(length));
                kept.map_err(|error| self.fail(&error))
            }
        }
    }

    fn trim_spare(&mut self, length: u64) -> io::Result<()> {
        let size = self.options.segment_bytes;
        if length > size {
            self.disk.cut(SPARE, size)?;
        }
        self.spare = size;
        Ok(())
    }

    /// Makes the spare a segment; answers how long its file is.
    pub(super) fn begin_on_spare(&mut self, name: &str, header: &Header) -> Result<u64, Trouble> {
        let length = std::mem::take(&mut self.spare);
        match self.disk.write(SPARE, 0, &header.block()) {
            Err(error) if is_full(&error) => return Err(self.discard(SPARE)),
            written => written.and_then(|()| self.disk.sync(SPARE)).map_err(|error| self.fail(&error))?,
        }
        match self.disk.rename(SPARE, name) {
            Err(error) if is_full(&error) => self.discard_both(name).and(Err(Trouble::Full)),
            renamed => {
                renamed.and_then(|()| self.disk.sync_dir()).map_err(|error| self.fail(&error))?;
                Ok(length)
            }
        }
    }

    /// Lets the spare go; false if there is none.
    pub(super) fn give_up_spare(&mut self) -> Result<bool, StoreError> {
        if std::mem::take(&mut self.spare) == 0 {
            return Ok(false);
        }
        match self.discard(SPARE) {
            Trouble::Full => Ok(true),
            Trouble::Failed(error) => Err(error),
        }
    }

    /// After a renaming of which nobody knows whether it happened, neither name is left.
    fn discard_both(&mut self, name: &str) -> Result<(), Trouble> {
        for name in [SPARE, name] {
            if let Trouble::Failed(error) = self.discard(name) {
                return Err(Trouble::Failed(error));
            }
        }
        Ok(())
    }
}
