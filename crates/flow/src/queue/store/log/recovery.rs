//! Opening a log after whatever happened to it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;

use super::segment::{self, Contents, HEADER_BLOCK, Header, Opening, Standing};
use super::{Log, RESERVE, Segment, Trouble, frame, push};
use crate::queue::TicketId;
use crate::queue::store::disk::Disk;
use crate::queue::store::ledger::{Ledger, Place};
use crate::queue::store::record::Record;
use crate::queue::store::{DiskOptions, Recovered, RecoveredItem, StoreError};
use crate::random::Random;

/// A file that is named like a segment.
#[derive(Debug)]
struct Sighted {
    number: u64,
    length: u64,
    header: Option<Header>,
}

/// What is known while the segments are read one after another.
#[derive(Debug, Default)]
struct Reading {
    damage: Vec<String>,
    /// The sequence that should come next; unknown before the first segment.
    expected: Option<u64>,
    /// Items of which the last records speak, those of which nobody knows whether they were synced.
    unproven: BTreeSet<TicketId>,
    /// The sequence of the first of them.
    doubtful: u64,
}

impl<D: Disk> Log<D> {
    /// Opens the log on a disk, and creates it where there is none.
    ///
    /// What is reported was synced before: a record that was read after a crash may have been in the memory of the
    /// system only, and after a failed sync it may stay there without ever reaching the disk, so what the last group
    /// came to is written once more.
    ///
    /// # Errors
    /// If somebody else has it open, if it is of a later version, or if the disk cannot be read or written.
    pub(in crate::queue::store) fn open(
        mut disk: D,
        options: DiskOptions,
    ) -> Result<(Self, Recovered), StoreError> {
        let options = options.within_limits();
        let place = disk.place();
        let failed = |error: io::Error| StoreError::Failed { place: place.clone(), cause: error.to_string() };
        disk.lock().map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => StoreError::Locked { place: place.clone() },
            _ => failed(error),
        })?;
        // A file may be here only because the system has not been restarted since it was created.
        disk.sync_dir().map_err(failed)?;
        let files = disk.list().map_err(failed)?;
        let has_reserve =
            files.iter().any(|(name, length)| name == RESERVE && *length >= options.reserve_bytes);
        let sighted = sight(&mut disk, &files, &place)?;
        let salt =
            sighted.iter().find_map(|sighted| sighted.header).map_or_else(fresh_salt, |header| header.salt);
        let mut log = Self {
            disk,
            options,
            salt,
            segments: VecDeque::new(),
            ledger: Ledger::new(options.keys),
            next: 0,
            durable: 0,
            has_reserve,
            spare: 0,
            moving: None,
            damaged: BTreeSet::new(),
            failed: None,
        };
        log.find_spare(&files).map_err(failed)?;
        let reading = log.read_segments(&sighted).map_err(failed)?;
        log.make_ready(reading).map_err(|trouble| match trouble {
            Trouble::Full => StoreError::Full { place: place.clone() },
            Trouble::Failed(error) => error,
        })
    }

    fn read_segments(&mut self, sighted: &[Sighted]) -> io::Result<Reading> {
        let mut reading = Reading::default();
        for (at, one) in sighted.iter().enumerate() {
            let later = sighted.get(at + 1);
            self.read_segment(one, later, &mut reading)?;
        }
        self.next = reading.expected.unwrap_or(0);
        self.durable = reading.doubtful.min(self.next);
        Ok(reading)
    }

    fn read_segment(
        &mut self,
        sighted: &Sighted,
        later: Option<&Sighted>,
        reading: &mut Reading,
    ) -> io::Result<()> {
        let name = segment::name(sighted.number);
        let bytes = self.disk.read(&name, 0, sighted.length as usize)?;
        let before = reading.damage.len();
        if sighted.header.is_none() {
            reading.damage.push(format!("{name}: its header could not be read"));
        }
        let first = self.first_of(sighted, &bytes).or(reading.expected).unwrap_or(0);
        if let Some(expected) = reading.expected.filter(|expected| *expected != first) {
            let missing = first.saturating_sub(expected);
            reading.damage.push(format!("{missing} records before {name} are missing"));
        }
        let standing = match later.map(|later| later.header) {
            Some(Some(header)) => Standing::Below(header.first),
            Some(None) | None => Standing::Last,
        };
        let contents = segment::contents(&bytes, segment::salt(self.salt, sighted.number), first, standing);
        if let Some(header) = sighted.header {
            self.ledger.skip_to(header.next_id);
        }
        self.add_up(sighted.number, &contents, &mut reading.damage);
        reading.expected = Some(contents.next);
        let mut end = contents.end as u64;
        let mut length = sighted.length;
        if reading.damage.len() > before {
            self.damaged.insert(sighted.number);
            end = length;
        } else if bytes.get(contents.end..).is_some_and(|rest| rest.iter().any(|byte| *byte != 0)) {
            self.disk.cut(&name, end)?;
            length = end;
        }
        if later.is_none() {
            reading.doubtful = contents.claimed;
            reading.unproven = unproven(&contents);
            self.renew_header(sighted)?;
        }
        self.segments.push_back(Segment { number: sighted.number, end, length });
        Ok(())
    }

    /// Writes the header of the last segment once more, since its sync may have failed: one copy after the other, so
    /// that one is whole at any time.
    fn renew_header(&mut self, last: &Sighted) -> io::Result<()> {
        let name = segment::name(last.number);
        for (offset, copy) in last.header.iter().flat_map(Header::copies) {
            self.disk.write(&name, offset, &copy)?;
            self.disk.sync(&name)?;
        }
        self.disk.sync(&name)
    }

    /// The sequence of the first record of a segment, as far as the segment itself says.
    fn first_of(&self, sighted: &Sighted, bytes: &[u8]) -> Option<u64> {
        let by_header = sighted.header.map(|header| header.first);
        by_header.or_else(|| {
            let salt = segment::salt(self.salt, sighted.number);
            let frame = frame::read(bytes.get(HEADER_BLOCK..)?, salt, 0..u64::MAX)?;
            Some(frame.sequence)
        })
    }

    fn add_up(&mut self, number: u64, contents: &Contents<'_>, damage: &mut Vec<String>) {
        let name = segment::name(number);
        for lost in &contents.lost {
            damage.push(format!("{name}: {} records could not be read", lost.end - lost.start));
        }
        for found in &contents.found {
            let place =
                Place { segment: number, offset: found.offset as u32, length: found.frame.length as u32 };
            match found.frame.record() {
                Some(record) => self.ledger.apply(&record, place),
                None => damage.push(format!("{name}: record {} means nothing", found.frame.sequence)),
            }
        }
    }

    /// Makes the log fit to be written to and collects what it holds.
    fn make_ready(mut self, mut reading: Reading) -> Result<(Self, Recovered), Trouble> {
        match self.segments.back().map(|last| last.number) {
            None => self.create_segment(1)?,
            Some(last) if self.damaged.contains(&last) => self.create_segment(last + 1)?,
            Some(_) => {}
        }
        self.rewrite(&reading.unproven)?;
        match self.ensure_reserve() {
            Err(Trouble::Failed(error)) => return Err(Trouble::Failed(error)),
            Err(Trouble::Full) | Ok(()) => {}
        }
        let items = self.read_items(&mut reading.damage).map_err(|error| self.fail(&error))?;
        let recovered = self.ledger.recovered(items, reading.damage);
        Ok((self, recovered))
    }

    /// Writes once more how items stand. Each has one record that says all of it, so that a power loss in the middle
    /// leaves nothing half said.
    fn rewrite(&mut self, unproven: &BTreeSet<TicketId>) -> Result<(), Trouble> {
        if unproven.is_empty() {
            self.durable = self.next;
            return Ok(());
        }
        let mut frames = Vec::new();
        for id in unproven {
            match self.ledger.place(*id) {
                Some(place) => {
                    self.copy_item(place.segment, *id, &mut frames).map_err(|error| self.fail(&error))?
                }
                None => push(&mut frames, &Record::Done { id: *id }),
            }
        }
        for ((accepted, id), key) in self.ledger.used_keys().filter(|((_, id), _)| unproven.contains(id)) {
            push(&mut frames, &Record::Used { id, key, accepted });
        }
        let mut held = self.append(&mut frames);
        while matches!(held, Err(Trouble::Full)) && (self.give_up_spare()? || self.give_up_reserve()?) {
            held = self.append(&mut frames);
        }
        let place = held?;
        self.sync()?;
        self.note(&frames, place);
        // Only now it is true that everything before is on the disk, in one form or the other.
        frames.clear();
        push(&mut frames, &Record::Whole);
        self.append(&mut frames)?;
        self.sync()
    }

    /// Reads every item from where it lies, each segment once.
    fn read_items(&mut self, damage: &mut Vec<String>) -> io::Result<Vec<RecoveredItem>> {
        let mut places: BTreeMap<u64, Vec<(TicketId, Place)>> = BTreeMap::new();
        for (id, place) in self.ledger.items() {
            places.entry(place.segment).or_default().push((id, place));
        }
        let mut items = Vec::new();
        for (number, places) in places {
            let name = segment::name(number);
            let length =
                self.segments.iter().find(|segment| segment.number == number).map_or(0, |one| one.length);
            let bytes = self.disk.read(&name, 0, length as usize)?;
            for (id, place) in places {
                match self.item_at(&bytes, id, place) {
                    Some(item) => items.push(item),
                    None => {
                        damage.push(format!("{name}: an item could not be read a second time"));
                        self.damaged.insert(number);
                        self.ledger.forget(id);
                    }
                }
            }
        }
        items.sort_unstable_by_key(|item| item.id);
        Ok(items)
    }

    fn item_at(&self, bytes: &[u8], id: TicketId, place: Place) -> Option<RecoveredItem> {
        let salt = segment::salt(self.salt, place.segment);
        let frame = frame::read(bytes.get(place.offset as usize..)?, salt, 0..u64::MAX)?;
        match frame.record()? {
            Record::Item(item) if item.id == id => Some(self.ledger.renewed(item).recovered()),
            _ => None,
        }
    }
}

/// The segments in their order. One at the end that never got all of its header is removed: nothing was ever in it.
fn sight<D: Disk>(disk: &mut D, files: &[(String, u64)], place: &str) -> Result<Vec<Sighted>, StoreError> {
    let failed = |error: io::Error| StoreError::Failed { place: place.to_owned(), cause: error.to_string() };
    let mut all = Vec::new();
    for (name, length) in files {
        let Some(number) = segment::number(name) else { continue };
        let block = disk.read(name, 0, HEADER_BLOCK).map_err(failed)?;
        let header = match Header::read(&block) {
            Opening::Header(header) => Some(header),
            Opening::Nothing => None,
            Opening::OfVersion(version) => {
                let found = format!("version {version} in {name}");
                return Err(StoreError::Foreign { place: place.to_owned(), found });
            }
        };
        all.push(Sighted { number, length: *length, header });
    }
    all.sort_unstable_by_key(|sighted| sighted.number);
    let block = HEADER_BLOCK as u64;
    let is_unfinished =
        |last: &mut Sighted| last.length < block || (last.header.is_none() && last.length == block);
    while let Some(last) = all.pop_if(is_unfinished) {
        disk.remove(&segment::name(last.number)).and_then(|()| disk.sync_dir()).map_err(failed)?;
    }
    Ok(all)
}

/// The items of which records speak that no later sync vouches for.
fn unproven(contents: &Contents<'_>) -> BTreeSet<TicketId> {
    let doubtful = contents.found.iter().filter(|found| found.frame.sequence >= contents.claimed);
    doubtful.filter_map(|found| found.frame.record()?.id()).collect()
}

/// Differs from log to log, so that no item can hold bytes that pass for a record of the log that holds it.
fn fresh_salt() -> u32 {
    Random::unpredictable().bits() as u32
}
