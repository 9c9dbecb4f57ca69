//! Parts of one file that somebody else has written and that is only read, such as the layers of a model.
//!
//! Their owner knows where they are and what they add up to. What is read is compared with that each time, and read once
//! more where it differs, because between a sound disk and memory there is more that may go wrong than the disk.

use super::{Defect, Medium, Parcel, Rung, RungError, STRIDE, Stop};
use crate::buffers::BLOCK;
use crate::files::Files;
use crate::{Buffer, Key};

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it begins; a multiple of 4 KiB.
    pub offset: u64,
    /// Its length.
    pub bytes: usize,
    /// Its CRC-32C.
    pub checksum: u32,
}

/// A rung whose objects are the parts of a file, each with its number as key.
#[derive(Debug)]
pub struct PartsRung<F> {
    files: F,
    name: String,
    parts: Vec<Part>,
    /// What a buffer for each part holds at least, so that buffers are alike and one can take another's place.
    room: Vec<usize>,
}

impl<F: Files> PartsRung<F> {
    /// The parts of the file of that name. A buffer for a part is as long as `room` says, or as the part if that is more.
    pub fn new(files: F, name: &str, parts: Vec<Part>, room: impl Fn(usize) -> usize) -> Self {
        let room = (0..).zip(&parts).map(|(number, part)| part.bytes.max(room(number))).collect();
        Self { files, name: name.to_owned(), parts, room }
    }

    fn place_of(&self, part: Part) -> String {
        let end = part.offset + part.bytes as u64;
        format!("{}/{} from {} to {end}", self.files.place(), self.name, part.offset)
    }

    fn refusal(&self, act: &'static str, cause: &str) -> RungError {
        RungError::Failed { act, place: self.place(), cause: cause.to_owned() }
    }

    fn read(&self, part: Part, into: &mut Buffer, stop: &Stop) -> Result<(), RungError> {
        let damaged = |defect| RungError::Damaged { place: self.place_of(part), defect };
        let (mut found, mut offset) = (0, part.offset);
        for stride in into.padded_mut().chunks_mut(STRIDE) {
            if stop.asked() {
                return Err(RungError::Stopped);
            }
            let read = self.files.read(&self.name, offset, stride);
            let count = read.map_err(|error| RungError::Failed {
                act: "read",
                place: self.place_of(part),
                cause: error.to_string(),
            })?;
            found += count;
            offset += stride.len() as u64;
            if count < stride.len() {
                break;
            }
        }
        // The file may end inside of the last block.
        if found < part.bytes {
            return Err(damaged(Defect::Length { expected: part.bytes as u64, found: found as u64 }));
        }
        match crc32c::crc32c(into) {
            found if found == part.checksum => Ok(()),
            found => Err(damaged(Defect::Checksum { expected: part.checksum, found })),
        }
    }
}

impl<F: Files> Rung for PartsRung<F> {
    fn place(&self) -> String {
        format!("{}/{}", self.files.place(), self.name)
    }

    fn medium(&self) -> Medium {
        Medium::Disk
    }

    fn footprint(&self, bytes: usize) -> usize {
        bytes.next_multiple_of(BLOCK)
    }

    fn keep(&self, parcels: &[Parcel<'_>]) -> Vec<Result<(), RungError>> {
        parcels.iter().map(|_| Err(self.refusal("write to", "it is only read"))).collect()
    }

    fn fetch(&self, key: Key, into: &mut Buffer, stop: &Stop) -> Result<Box<[u8]>, RungError> {
        let part = usize::try_from(key.0).ok().and_then(|number| self.parts.get(number)).copied();
        let part = part.ok_or_else(|| RungError::Gone { place: format!("{} of {}", key, self.place()) })?;
        into.truncate(part.bytes);
        let read = match self.read(part, into, stop) {
            Err(RungError::Damaged { .. }) => self.read(part, into, stop),
            read => read,
        };
        read.map(|()| Box::default())
    }

    /// The file is not this rung's: what is removed is not looked for any more, and stays where it is.
    fn remove(&self, _key: Key) -> Result<(), RungError> {
        Ok(())
    }

    fn inventory(&self) -> Result<Vec<(Key, usize)>, RungError> {
        Ok((0..).map(Key).zip(self.room.iter().copied()).collect())
    }
}
