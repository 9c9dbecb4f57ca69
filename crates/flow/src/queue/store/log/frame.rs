//! How a record lies in a file: a header that says how long it is and what comes before it, and its body.
//!
//! ```text
//! crc 4 | length of the body 4 | kind 1, sequence 7 | records since the last sync 4 | body
//! ```
//!
//! The checksum covers the body, the salt of the segment and the rest of the header, so that bytes inside an item never
//! pass for a record, not even those of another log. It begins with the body, so that whoever notes an item adds that
//! up, and the thread that writes only reads the headers. The sequence numbers all records of a log without a gap. A record
//! also says how many records lie between it and the last sync before it was written: every record before those was
//! on the disk already, so if one of them cannot be read, that is damage and not the trace of a power loss.

use crate::queue::store::record::{Kind, Record};

/// Bytes in front of the body.
pub(super) const HEADER: usize = 20;

const SEQUENCE_BITS: u32 = 56;

/// A record that was found whole.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    pub(super) sequence: u64,
    /// Every record with a smaller sequence was on the disk when this one was written.
    pub(super) durable: u64,
    /// Bytes of the header and the body.
    pub(super) length: usize,
    kind: Kind,
    body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The record; `None` if a body that is whole means nothing to this version.
    pub(super) fn record(&self) -> Option<Record<'a>> {
        Record::read(self.kind, self.body)
    }
}

/// Appends a record. Its sequence is still to be filled in by [`seal`], and its checksum is only that of the body.
pub(in crate::queue::store) fn push(frames: &mut Vec<u8>, record: &Record<'_>) {
    let start = frames.len();
    frames.extend([0; HEADER]);
    record.write(frames);
    let sum = crc32c::crc32c(&frames[start + HEADER..]);
    let length = (frames.len() - start - HEADER) as u32;
    frames[start..start + 4].copy_from_slice(&sum.to_le_bytes());
    frames[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
    frames[start + 15] = record.kind() as u8;
}

/// The record in a frame that was made here and needs no check.
pub(super) fn record_in(frame: &[u8]) -> Option<Record<'_>> {
    let kind = Kind::of_number(*frame.get(15)?)?;
    Record::read(kind, frame.get(HEADER..)?)
}

/// Where the frames of a run begin, and what kind of record each holds.
pub(in crate::queue::store) fn walk(frames: &[u8]) -> impl Iterator<Item = (std::ops::Range<usize>, u8)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let header = frames.get(at..at + HEADER)?;
        let range = at..at + HEADER + length_in(header);
        at = range.end;
        Some((range, header[15]))
    })
}

/// Gives the frames of a run their sequence numbers, from `first` on, and their checksums; answers with the number
/// after the last.
pub(super) fn seal(frames: &mut [u8], salt: u32, first: u64, durable: u64) -> u64 {
    let (mut at, mut sequence) = (0, first);
    while let Some(header) = frames.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<HEADER>) {
        let kind = u64::from(header[15]);
        let stamp = (kind << SEQUENCE_BITS) | sequence;
        header[8..16].copy_from_slice(&stamp.to_le_bytes());
        let since = u32::try_from(sequence - durable).unwrap_or(u32::MAX);
        header[16..20].copy_from_slice(&since.to_le_bytes());
        let sum = whole_sum(sum_in(header), salt, header);
        header[..4].copy_from_slice(&sum.to_le_bytes());
        (at, sequence) = (at + HEADER + length_in(header), sequence + 1);
    }
    sequence
}

/// Makes a run that was sealed and not written ready to be sealed once more.
pub(super) fn unseal(frames: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = frames.get(at..at + HEADER) {
        let end = at + HEADER + length_in(header);
        let sum = crc32c::crc32c(&frames[at + HEADER..end]);
        frames[at..at + 4].copy_from_slice(&sum.to_le_bytes());
        at = end;
    }
}

fn sum_in(header: &[u8; HEADER]) -> u32 {
    let [a, b, c, d, ..] = *header;
    u32::from_le_bytes([a, b, c, d])
}

/// The checksum of a frame, from that of its body.
fn whole_sum(body: u32, salt: u32, header: &[u8; HEADER]) -> u32 {
    let mut rest = *header;
    rest[..4].copy_from_slice(&salt.to_le_bytes());
    crc32c::crc32c_append(body, &rest)
}

/// The frame at the start of the bytes, if its sequence is one of those wanted and all of it is whole.
pub(super) fn read(bytes: &[u8], salt: u32, wanted: std::ops::Range<u64>) -> Option<Frame<'_>> {
    let header: &[u8; HEADER] = bytes.first_chunk()?;
    let stamp = u64::from_le_bytes(*header[8..].first_chunk()?);
    let sequence = stamp & ((1 << SEQUENCE_BITS) - 1);
    if !wanted.contains(&sequence) {
        return None;
    }
    let length = HEADER + length_in(header);
    let frame = bytes.get(..length)?;
    if !checks_out(salt, header, &frame[HEADER..]) {
        return None;
    }
    let since = u32::from_le_bytes(*header[16..].first_chunk()?);
    let kind = Kind::of_number((stamp >> SEQUENCE_BITS) as u8)?;
    let durable = sequence.saturating_sub(u64::from(since));
    Some(Frame { sequence, durable, length, kind, body: &frame[HEADER..] })
}

/// The length of the body that a header speaks of.
pub(super) fn length_in(header: &[u8]) -> usize {
    header[4..].first_chunk().map_or(0, |length| u32::from_le_bytes(*length) as usize)
}

fn checks_out(salt: u32, header: &[u8; HEADER], body: &[u8]) -> bool {
    #[cfg(test)]
    if super::mutant::TRUSTS_EVERY_SUM.get() {
        return true;
    }
    whole_sum(crc32c::crc32c(body), salt, header) == sum_in(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::TicketId;

    fn run(records: &[Record<'_>]) -> Vec<u8> {
        let mut frames = Vec::new();
        records.iter().for_each(|record| push(&mut frames, record));
        assert_eq!(seal(&mut frames, 7, 100, 98), 100 + records.len() as u64);
        frames
    }

    #[test]
    fn frames_say_what_was_durable_before_them() {
        let records = [Record::Done { id: TicketId(3) }, Record::Whole, Record::Revived { id: TicketId(4) }];
        let frames = run(&records);
        let found: Vec<_> = walk(&frames)
            .map(|(range, kind)| {
                let frame = read(&frames[range.start..], 7, 100..200).unwrap();
                assert_eq!(frame.length, range.len());
                assert_eq!(frame.kind as u8, kind);
                (frame.sequence, frame.durable, frame.record().unwrap())
            })
            .collect();
        let expected: Vec<_> =
            (100..).zip(records).map(|(sequence, record)| (sequence, 98, record)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_was_sealed_in_vain_is_sealed_again() {
        let records = [Record::Done { id: TicketId(3) }, Record::Whole];
        let (mut frames, expected) = (run(&records), run(&records));
        unseal(&mut frames);
        assert_ne!(frames, expected);
        seal(&mut frames, 7, 100, 98);
        assert_eq!(frames, expected);
    }

    #[test]
    fn no_flipped_bit_passes() {
        let frames = run(&[Record::Dead { id: TicketId(3), cause: "too hot" }]);
        assert!(read(&frames, 7, 100..101).is_some());
        assert!(read(&frames, 7, 101..102).is_none(), "a sequence that is not wanted");
        assert!(read(&frames, 8, 100..101).is_none(), "the salt of another log");
        for bit in 0..frames.len() * 8 {
            let mut flipped = frames.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&flipped, 7, 0..u64::MAX).is_none(), "bit {bit}");
        }
    }
}
