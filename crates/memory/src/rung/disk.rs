//! Objects as files, each named by its key: a block of header, then the bytes.
//!
//! A file is written under another name, synced and renamed, so under its own name it is whole; and because a disk may lie
//! about that, and age, its length, its key and two checksums are compared whenever it is read. What is wrong there is an
//! error and never other bytes. The names of a batch are synced once.

use std::io;

use super::{Defect, Medium, Parcel, Rung, RungError, STRIDE, Stop};
use crate::buffers::BLOCK;
use crate::files::Files;
use crate::{Buffer, Key};

/// What a file has before the bytes of its object.
pub const HEADER_BYTES: usize = BLOCK;

/// The longest note that fits into the header.
pub const MAX_NOTE_BYTES: usize = HEADER_BYTES - FIELDS;

const MAGIC: &[u8; 8] = b"TIDERUN1";

/// Magic, key, length, checksum of the bytes, length of the note; then the note, and at the very end the checksum of all
/// that.
const FIELDS: usize = 8 + 16 + 8 + 4 + 4 + 4;

/// Ending of the files.
const ENDING: &str = ".object";

/// Ending of files that are being written.
const UNFINISHED: &str = ".unfinished";

/// A rung of files.
#[derive(Debug)]
pub struct DiskRung<F> {
    files: F,
}

/// A block at the address that access past the page cache needs.
#[repr(align(4096))]
struct Block([u8; BLOCK]);

impl<F: Files> DiskRung<F> {
    /// Opens the rung, keeps other processes out of it, and removes what a process that was killed has left half written.
    ///
    /// # Errors
    /// When somebody else is there, or the system refuses.
    pub fn open(mut files: F) -> Result<Self, RungError> {
        if let Err(error) = files.lock() {
            let place = files.place();
            return Err(match error.kind() {
                io::ErrorKind::WouldBlock => RungError::Taken { place },
                _ => failed("lock", place, &error),
            });
        }
        let rung = Self { files };
        for (name, _) in rung.list()? {
            if name.ends_with(UNFINISHED) {
                rung.files.remove(&name).map_err(|error| rung.failed("remove", &name, &error))?;
            }
        }
        Ok(rung)
    }

    /// The files.
    pub fn files(&self) -> &F {
        &self.files
    }

    fn list(&self) -> Result<Vec<(String, u64)>, RungError> {
        self.files.list().map_err(|error| failed("list", self.files.place(), &error))
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.files.place())
    }

    fn failed(&self, act: &'static str, name: &str, error: &io::Error) -> RungError {
        let (place, cause) = (self.path(name), error.to_string());
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                RungError::Full { place: self.files.place(), cause }
            }
            io::ErrorKind::NotFound => RungError::Gone { place },
            _ => RungError::Failed { act, place, cause },
        }
    }

    /// Writes one object under its temporary name, and syncs it.
    fn write(&self, parcel: &Parcel<'_>) -> Result<(), RungError> {
        let key = parcel.key;
        let name = format!("{key}{UNFINISHED}");
        let write = self.files.write(&name, [&header(parcel).0, parcel.bytes.padded()]);
        let done = write.map_err(|error| self.failed("write", &name, &error)).and_then(|()| {
            self.files.sync(&name).map_err(|error| self.failed("sync", &name, &error))?;
            let whole = format!("{key}{ENDING}");
            self.files.rename(&name, &whole).map_err(|error| self.failed("rename", &name, &error))
        });
        if done.is_err() {
            // The room of what could not be written is of more use to others; if that fails too, it is removed when the
            // folder is opened next.
            let _ = self.files.remove(&name);
        }
        done
    }

    fn check_length(&self, name: &str, found: usize, expected: usize) -> Result<(), RungError> {
        if found == expected {
            return Ok(());
        }
        Err(self.damaged(name, Defect::Length { expected: expected as u64, found: found as u64 }))
    }

    fn damaged(&self, name: &str, defect: Defect) -> RungError {
        RungError::Damaged { place: self.path(name), defect }
    }

    /// Reads and checks the header: the length of the object, the checksum of its bytes, and the note.
    fn read_header(&self, name: &str, key: Key) -> Result<(usize, u32, Box<[u8]>), RungError> {
        let mut block = Box::new(Block([0; BLOCK]));
        let count =
            self.files.read(name, 0, &mut block.0).map_err(|error| self.failed("read", name, &error))?;
        self.check_length(name, count, HEADER_BYTES)?;
        let block = &block.0;
        let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
        let (expected, found) = (word(BLOCK - 4), crc32c::crc32c(&block[..BLOCK - 4]));
        if &block[..8] != MAGIC {
            return Err(self.damaged(name, Defect::Header));
        }
        if expected != found {
            return Err(self.damaged(name, Defect::Checksum { expected, found }));
        }
        let mut digest = [0; 16];
        digest.copy_from_slice(&block[8..24]);
        let holds = Key(u128::from_le_bytes(digest));
        if holds != key {
            return Err(self.damaged(name, Defect::Key { found: holds }));
        }
        let length = u64::from(word(24)) | u64::from(word(28)) << 32;
        let note = block.get(40..40 + word(36) as usize).ok_or_else(|| self.damaged(name, Defect::Header))?;
        let length = usize::try_from(length).map_err(|_| self.damaged(name, Defect::Header))?;
        Ok((length, word(32), note.into()))
    }
}

fn failed(act: &'static str, place: String, error: &io::Error) -> RungError {
    RungError::Failed { act, place, cause: error.to_string() }
}

fn header(&Parcel { key, note, bytes }: &Parcel<'_>) -> Box<Block> {
    let mut block = Box::new(Block([0; BLOCK]));
    let note = &note[..note.len().min(MAX_NOTE_BYTES)];
    let mut at = 0;
    for field in [
        MAGIC,
        &key.0.to_le_bytes()[..],
        &(bytes.len() as u64).to_le_bytes(),
        &crc32c::crc32c(bytes).to_le_bytes(),
        &(note.len() as u32).to_le_bytes(),
        note,
    ] {
        block.0[at..at + field.len()].copy_from_slice(field);
        at += field.len();
    }
    let sum = crc32c::crc32c(&block.0[..BLOCK - 4]);
    block.0[BLOCK - 4..].copy_from_slice(&sum.to_le_bytes());
    block
}

impl<F: Files> Rung for DiskRung<F> {
    fn place(&self) -> String {
        self.files.place()
    }

    fn medium(&self) -> Medium {
        Medium::Disk
    }

    fn footprint(&self, bytes: usize) -> usize {
        HEADER_BYTES + bytes.next_multiple_of(BLOCK)
    }

    fn keep(&self, parcels: &[Parcel<'_>]) -> Vec<Result<(), RungError>> {
        let mut outcomes: Vec<_> = parcels.iter().map(|parcel| self.write(parcel)).collect();
        if outcomes.iter().any(Result::is_ok)
            && let Err(error) = self.files.sync_names()
        {
            // They may be there or not after a power loss; what is not certain is not said to be there.
            let error = failed("sync the names in", self.files.place(), &error);
            for (parcel, outcome) in parcels.iter().zip(&mut outcomes).filter(|(_, outcome)| outcome.is_ok())
            {
                let _ = self.files.remove(&format!("{}{ENDING}", parcel.key));
                *outcome = Err(error.clone());
            }
        }
        outcomes
    }

    fn fetch(&self, key: Key, into: &mut Buffer, stop: &Stop) -> Result<Box<[u8]>, RungError> {
        let name = format!("{key}{ENDING}");
        let (length, expected, note) = self.read_header(&name, key)?;
        self.check_length(&name, into.len().next_multiple_of(BLOCK), length.next_multiple_of(BLOCK))?;
        into.truncate(length);
        let mut offset = HEADER_BYTES as u64;
        for stride in into.padded_mut().chunks_mut(STRIDE) {
            if stop.asked() {
                return Err(RungError::Stopped);
            }
            let read = self.files.read(&name, offset, stride);
            let count = read.map_err(|error| self.failed("read", &name, &error))?;
            self.check_length(&name, count, stride.len())?;
            offset += count as u64;
        }
        match crc32c::crc32c(into) {
            found if found == expected => Ok(note),
            found => Err(self.damaged(&name, Defect::Checksum { expected, found })),
        }
    }

    fn remove(&self, key: Key) -> Result<(), RungError> {
        let name = format!("{key}{ENDING}");
        match self.files.remove(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.failed("remove", &name, &error))
            }
            _ => Ok(()),
        }
    }

    fn inventory(&self) -> Result<Vec<(Key, usize)>, RungError> {
        let object = |(name, bytes): (String, u64)| {
            let key = name.strip_suffix(ENDING)?.parse().ok()?;
            Some((key, usize::try_from(bytes).ok()?.saturating_sub(HEADER_BYTES)))
        };
        Ok(self.list()?.into_iter().filter_map(object).collect())
    }
}
