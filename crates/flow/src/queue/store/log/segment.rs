//! One file of the log: its name, its header, and what can be read of it after whatever happened.

use std::ops::Range;

use super::frame::{self, Frame};

/// Bytes in front of the first record: two sectors with the same header, so that no single bad one costs the segment.
pub(super) const HEADER_BLOCK: usize = 2 * COPY;
const COPY: usize = 512;

/// Bytes of a header that mean something.
const HEADER: usize = 44;
const MAGIC: [u8; 8] = *b"tdgtflow";
const VERSION: u32 = 2;

const PREFIX: &str = "segment-";

/// The name of the file of a segment.
pub(super) fn name(number: u64) -> String {
    format!("{PREFIX}{number:016x}")
}

/// The segment whose file has that name.
pub(super) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX).filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

/// What the checksums of the records of one segment start from. A record counts only where it was written: what a file
/// held when it was another segment means nothing in this one.
pub(super) fn salt(log: u32, number: u64) -> u32 {
    crc32c::crc32c_append(log, &number.to_le_bytes())
}

/// The name under which a damaged segment is kept for people when the log needs it no more.
pub(super) fn damaged_name(number: u64) -> String {
    format!("damaged-{number:016x}")
}

/// What stands at the start of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) number: u64,
    /// The sequence of its first record. All records before it were on the disk before the segment was created.
    pub(super) first: u64,
    /// Ids below this one were used before the segment was created.
    pub(super) next_id: u64,
    /// What the checksums of all segments of the log start from.
    pub(super) salt: u32,
}

/// What was found where a header should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// A header, perhaps only one of its two copies.
    Header(Header),
    /// A header of another version.
    OfVersion(u32),
    /// Nothing that could be read.
    Nothing,
}

impl Header {
    /// The block with which a segment starts.
    pub(super) fn block(&self) -> Vec<u8> {
        let mut block = vec![0; HEADER_BLOCK];
        for (offset, copy) in self.copies() {
            block[offset as usize..][..HEADER].copy_from_slice(&copy);
        }
        block
    }

    /// The two copies of the header, and where they lie.
    pub(super) fn copies(&self) -> [(u64, Vec<u8>); 2] {
        let mut copy = Vec::with_capacity(HEADER);
        copy.extend(MAGIC);
        copy.extend(VERSION.to_le_bytes());
        copy.extend(self.salt.to_le_bytes());
        for number in [self.number, self.first, self.next_id] {
            copy.extend(number.to_le_bytes());
        }
        let sum = crc32c::crc32c(&copy);
        copy.extend(sum.to_le_bytes());
        [(0, copy.clone()), (COPY as u64, copy)]
    }

    /// What the start of a file says.
    pub(super) fn read(block: &[u8]) -> Opening {
        let copies = [block.get(..HEADER), block.get(COPY..COPY + HEADER)];
        let mut opening = Opening::Nothing;
        for copy in copies.into_iter().flatten() {
            match Self::read_copy(copy) {
                Some(Opening::Header(header)) => return Opening::Header(header),
                Some(other) => opening = other,
                None => {}
            }
        }
        opening
    }

    fn read_copy(copy: &[u8]) -> Option<Opening> {
        let (text, sum) = copy.split_last_chunk::<4>()?;
        if !text.starts_with(&MAGIC) || crc32c::crc32c(text) != u32::from_le_bytes(*sum) {
            return None;
        }
        let version = u32::from_le_bytes(*text[8..].first_chunk()?);
        if version != VERSION {
            return Some(Opening::OfVersion(version));
        }
        let salt = u32::from_le_bytes(*text[12..].first_chunk()?);
        let number = |at: usize| text[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        Some(Opening::Header(Self { number: number(16)?, first: number(24)?, next_id: number(32)?, salt }))
    }
}

/// A record in a segment, and where it lies.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) offset: usize,
    pub(super) frame: Frame<'a>,
}

/// What a segment holds.
#[derive(Debug)]
pub(super) struct Contents<'a> {
    /// The records that count, in their order.
    pub(super) found: Vec<Found<'a>>,
    /// Sequences that were on the disk once and cannot be read any more.
    pub(super) lost: Vec<Range<u64>>,
    /// Records below this sequence were on the disk when a later one of the segment was written.
    pub(super) claimed: u64,
    /// Where the last record that counts ends.
    pub(super) end: usize,
    /// The sequence after the last record that counts.
    pub(super) next: u64,
}

/// Which records of a segment are known to have been on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Those below this sequence: a later segment was created after them.
    Below(u64),
    /// It is the last segment, and only its own records can tell.
    Last,
}

/// Reads the records of a segment whose first one should have the sequence `first`.
///
/// Where a record cannot be read, the next one that can be is looked for byte by byte. Whether what is missing in
/// between is damage or the trace of a power loss follows from what later records say of the syncs before them: what
/// was not yet on the disk when power failed ends at the first gap, and what lies behind such a gap never counted.
pub(super) fn contents<'a>(bytes: &'a [u8], salt: u32, first: u64, standing: Standing) -> Contents<'a> {
    let all = frames(bytes, salt, first);
    let claimed = all.iter().map(|found| found.frame.durable).max().unwrap_or(first);
    let durable = match standing {
        Standing::Below(sequence) => sequence,
        Standing::Last => claimed,
    };
    let (found, lost) = (Vec::new(), Vec::new());
    let mut contents = Contents { found, lost, claimed, end: HEADER_BLOCK, next: first };
    for found in all {
        let sequence = found.frame.sequence;
        if sequence > contents.next {
            if sequence > durable {
                break;
            }
            contents.lost.push(contents.next..sequence);
        }
        contents.end = found.offset + found.frame.length;
        contents.next = sequence + 1;
        contents.found.push(found);
    }
    if contents.next < durable {
        contents.lost.push(contents.next..durable);
        contents.next = durable;
    }
    contents
}

/// All frames that can be read, in their order.
fn frames(bytes: &[u8], salt: u32, first: u64) -> Vec<Found<'_>> {
    let mut all = Vec::new();
    let (mut offset, mut next) = (HEADER_BLOCK, first);
    while offset + frame::HEADER <= bytes.len() {
        let Some(found) =
            read_at(bytes, salt, offset, next..next + 1).or_else(|| resume(bytes, salt, offset, next))
        else {
            break;
        };
        offset = found.offset + found.frame.length;
        next = found.frame.sequence + 1;
        all.push(found);
    }
    all
}

fn read_at(bytes: &[u8], salt: u32, offset: usize, wanted: Range<u64>) -> Option<Found<'_>> {
    let frame = frame::read(&bytes[offset..], salt, wanted)?;
    Some(Found { offset, frame })
}

/// The first whole frame behind a place where there is none. The bytes in between can have held only so many records.
fn resume(bytes: &[u8], salt: u32, from: usize, next: u64) -> Option<Found<'_>> {
    let last = bytes.iter().rposition(|byte| *byte != 0)?;
    let wanted = |offset: usize| next + 1..next + 2 + ((offset - from) / frame::HEADER) as u64;
    (from + 1..=last).find_map(|offset| read_at(bytes, salt, offset, wanted(offset)))
}
