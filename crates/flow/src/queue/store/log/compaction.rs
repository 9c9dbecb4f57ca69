//! Keeps the log small: segments in which nothing is needed go, and what the oldest one still holds is copied forward.
//! The same empties damaged segments, so that damage is reported until they are gone and no longer.
//!
//! The bound: once [`Log::tidy`] has nothing more to do, the segments and the spare take up at most twice the bytes that
//! are needed plus three segments, of which one may be longer than it should by one group. Copying the needed half of a
//! log frees the other half, so no byte is copied more than once for every byte that is written.

use std::io;
use std::time::SystemTime;

use super::{Log, Trouble, frame, is_full, push, segment};
use crate::queue::TicketId;
use crate::queue::store::StoreError;
use crate::queue::store::disk::Disk;
use crate::queue::store::record::Record;

/// How many bytes are copied before new records get their turn.
const TURN: usize = 256 << 10;

/// Whether there is more to tidy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::queue::store) enum Upkeep {
    /// Not now.
    Done,
    /// Yes.
    Due,
}

/// What is still to be copied out of a segment.
#[derive(Debug)]
pub(super) struct Moving {
    segment: u64,
    items: Vec<TicketId>,
    keys: Vec<(SystemTime, TicketId)>,
    /// Whether something in it could not be read. Then it stays: the next opening reports what is lost.
    is_stuck: bool,
}

impl<D: Disk> Log<D> {
    /// Does one small step of what keeps the log small.
    ///
    /// # Errors
    /// If the log fails in it, or has failed.
    pub(in crate::queue::store) fn tidy(&mut self) -> Result<Upkeep, StoreError> {
        self.has_not_failed()?;
        let step = match self.segments.front() {
            _ if self.spare > 0 && self.file_bytes() > self.most_bytes() => {
                self.give_up_spare().map(|_| Upkeep::Due).map_err(Trouble::from)
            }
            Some(oldest) if self.segments.len() > 1 => {
                let number = oldest.number;
                if !self.ledger.needs(number) {
                    self.remove_oldest(number)
                } else if self.is_too_large() || !self.damaged.is_empty() {
                    self.copy_some(number)
                } else {
                    Ok(Upkeep::Done)
                }
            }
            _ => Ok(Upkeep::Done),
        };
        match step {
            Ok(upkeep) => Ok(upkeep),
            Err(Trouble::Full) => Ok(Upkeep::Done),
            Err(Trouble::Failed(error)) => Err(error),
        }
    }

    fn is_too_large(&self) -> bool {
        self.file_bytes() - self.spare > self.most_bytes() - self.options.segment_bytes
    }

    /// No spare is kept beyond this.
    pub(super) fn most_bytes(&self) -> u64 {
        2 * self.ledger.needed_bytes() + 3 * self.options.segment_bytes
    }

    fn remove_oldest(&mut self, number: u64) -> Result<Upkeep, Trouble> {
        if self.durable < self.next {
            self.sync()?;
        }
        let name = segment::name(number);
        let is_damaged = self.damaged.contains(&number);
        if !is_damaged && self.has_use_for_oldest() {
            self.keep_as_spare(&name)?;
        } else {
            let freed = if is_damaged {
                self.disk.rename(&name, &segment::damaged_name(number))
            } else {
                self.disk.remove(&name)
            };
            match freed {
                Err(error) if is_full(&error) => return Err(Trouble::Full),
                other => other.and_then(|()| self.disk.sync_dir()).map_err(|error| self.fail(&error))?,
            }
        }
        self.segments.pop_front();
        self.damaged.remove(&number);
        self.moving = None;
        Ok(Upkeep::Due)
    }

    fn copy_some(&mut self, number: u64) -> Result<Upkeep, Trouble> {
        let mut moving = match self.moving.take() {
            Some(moving) if moving.segment == number => moving,
            _ => Moving {
                segment: number,
                items: self.ledger.items_in(number),
                keys: self.ledger.keys_in(number),
                is_stuck: false,
            },
        };
        let mut frames = Vec::new();
        self.collect(&mut moving, &mut frames);
        if frames.is_empty() {
            // Items that became done meanwhile may have left keys behind: look again, unless nothing can be read.
            let is_stuck = moving.is_stuck;
            self.moving = is_stuck.then_some(moving);
            return Ok(if is_stuck { Upkeep::Done } else { Upkeep::Due });
        }
        // If the disk is full, what is to be copied is looked up anew the next time.
        self.make_room_for(&frames)?;
        let place = self.append(&mut frames)?;
        self.note(&frames, place);
        self.moving = Some(moving);
        Ok(Upkeep::Due)
    }

    /// Takes from what is to be moved as much as goes into one turn.
    fn collect(&mut self, moving: &mut Moving, frames: &mut Vec<u8>) {
        while frames.len() < TURN
            && let Some(id) = moving.items.pop()
        {
            if self.copy_item(moving.segment, id, frames).is_err() {
                moving.is_stuck = true;
            }
        }
        while frames.len() < TURN
            && let Some(name) = moving.keys.pop()
        {
            if let Some(key) = self.ledger.used_key(&name) {
                let (accepted, id) = name;
                push(frames, &Record::Used { id, key, accepted });
            }
        }
    }

    /// Adds the record of an item as it stands now, if it lies in the segment.
    pub(super) fn copy_item(&mut self, segment: u64, id: TicketId, frames: &mut Vec<u8>) -> io::Result<()> {
        let Some(place) = self.ledger.place(id).filter(|place| place.segment == segment) else {
            return Ok(());
        };
        let name = segment::name(segment);
        let bytes = self.disk.read(&name, u64::from(place.offset), place.length as usize)?;
        let salt = segment::salt(self.salt, segment);
        match frame::read(&bytes, salt, 0..u64::MAX).and_then(|frame| frame.record()) {
            Some(Record::Item(item)) if item.id == id => {
                push(frames, &Record::Item(self.ledger.renewed(item)));
                Ok(())
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
