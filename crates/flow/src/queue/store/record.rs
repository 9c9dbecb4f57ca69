//! What stores write: entries and what compaction adds to them, as bytes.
//!
//! All numbers are little-endian. Texts and optional values carry their length or presence in front; an item's own
//! bytes come last and need none.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Entry, Facts, RecoveredItem};
use crate::queue::TicketId;

/// Something a store remembers. Borrowed from an entry or from the bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    /// An item, with what has happened to it so far: just accepted, or copied forward by compaction.
    Item(ItemRecord<'a>),
    /// An item was handed out.
    Taken { id: TicketId, attempt: u32 },
    /// An item is gone.
    Done { id: TicketId },
    /// An item lies among the dead letters.
    Dead { id: TicketId, cause: &'a str },
    /// An item is back from there.
    Revived { id: TicketId },
    /// An item is gone and its key counts as used, copied forward by compaction.
    Used { id: TicketId, key: &'a str, accepted: SystemTime },
    /// Everything before this record was synced: the store was closed in order, or recovered.
    Whole,
}

/// An item as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ItemRecord<'a> {
    pub(super) id: TicketId,
    pub(super) owner: &'a str,
    pub(super) level: u8,
    pub(super) cost: u64,
    pub(super) accepted: SystemTime,
    pub(super) deadline: Option<SystemTime>,
    pub(super) key: Option<&'a str>,
    pub(super) attempts: u32,
    pub(super) dead: Option<&'a str>,
    pub(super) item: &'a [u8],
}

/// The kinds of records, as files number them. A number is never given a second meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Item = 1,
    Taken = 2,
    Done = 3,
    Dead = 4,
    Revived = 5,
    Used = 6,
    Whole = 7,
}

impl Kind {
    const ALL: [Self; 7] =
        [Self::Item, Self::Taken, Self::Done, Self::Dead, Self::Revived, Self::Used, Self::Whole];

    pub(super) fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

impl<'a> ItemRecord<'a> {
    /// An item that was just accepted.
    pub(super) fn accepted(id: TicketId, facts: &'a Facts, item: &'a [u8]) -> Self {
        Self {
            id,
            owner: &facts.owner,
            level: facts.level,
            cost: facts.cost,
            accepted: facts.accepted,
            deadline: facts.deadline,
            key: facts.key.as_deref(),
            attempts: 0,
            dead: None,
            item,
        }
    }

    fn facts(&self) -> Facts {
        Facts {
            owner: Arc::from(self.owner),
            level: self.level,
            cost: self.cost,
            accepted: self.accepted,
            deadline: self.deadline,
            key: self.key.map(Arc::from),
        }
    }

    pub(super) fn recovered(&self) -> RecoveredItem {
        RecoveredItem {
            id: self.id,
            facts: self.facts(),
            item: self.item.to_vec(),
            attempts: self.attempts,
            dead: self.dead.map(str::to_owned),
        }
    }
}

impl<'a> From<Entry<'a>> for Record<'a> {
    fn from(entry: Entry<'a>) -> Self {
        match entry {
            Entry::Accepted { id, facts, item } => Self::Item(ItemRecord::accepted(id, facts, item)),
            Entry::Taken { id, attempt } => Self::Taken { id, attempt },
            Entry::Done { id } => Self::Done { id },
            Entry::Dead { id, cause } => Self::Dead { id, cause },
            Entry::Revived { id } => Self::Revived { id },
        }
    }
}

impl<'a> Record<'a> {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Item(_) => Kind::Item,
            Self::Taken { .. } => Kind::Taken,
            Self::Done { .. } => Kind::Done,
            Self::Dead { .. } => Kind::Dead,
            Self::Revived { .. } => Kind::Revived,
            Self::Used { .. } => Kind::Used,
            Self::Whole => Kind::Whole,
        }
    }

    /// The item of which it speaks.
    pub(super) fn id(&self) -> Option<TicketId> {
        match self {
            Self::Item(item) => Some(item.id),
            Self::Taken { id, .. }
            | Self::Done { id }
            | Self::Dead { id, .. }
            | Self::Revived { id }
            | Self::Used { id, .. } => Some(*id),
            Self::Whole => None,
        }
    }

    /// Appends the body of the record.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Item(item) => write_item(item, out),
            Self::Taken { id, attempt } => {
                out.extend(id.0.to_le_bytes());
                out.extend(attempt.to_le_bytes());
            }
            Self::Done { id } | Self::Revived { id } => out.extend(id.0.to_le_bytes()),
            Self::Dead { id, cause } => {
                out.extend(id.0.to_le_bytes());
                write_text(cause, out);
            }
            Self::Used { id, key, accepted } => {
                out.extend(id.0.to_le_bytes());
                write_text(key, out);
                write_time(*accepted, out);
            }
            Self::Whole => {}
        }
    }

    /// The record whose body this is; `None` if it is none.
    pub(super) fn read(kind: Kind, body: &'a [u8]) -> Option<Self> {
        let rest = &mut { body };
        let record = match kind {
            Kind::Item => Self::Item(read_item(rest)?),
            Kind::Taken => {
                Self::Taken { id: read_id(rest)?, attempt: u32::from_le_bytes(*take_array(rest)?) }
            }
            Kind::Done => Self::Done { id: read_id(rest)? },
            Kind::Dead => Self::Dead { id: read_id(rest)?, cause: read_text(rest)? },
            Kind::Revived => Self::Revived { id: read_id(rest)? },
            Kind::Used => {
                Self::Used { id: read_id(rest)?, key: read_text(rest)?, accepted: read_time(rest)? }
            }
            Kind::Whole => Self::Whole,
        };
        rest.is_empty().then_some(record)
    }
}

fn write_item(item: &ItemRecord<'_>, out: &mut Vec<u8>) {
    out.extend(item.id.0.to_le_bytes());
    out.extend(item.cost.to_le_bytes());
    out.extend(item.attempts.to_le_bytes());
    out.push(item.level);
    out.push(
        u8::from(item.deadline.is_some())
            | u8::from(item.key.is_some()) << 1
            | u8::from(item.dead.is_some()) << 2,
    );
    write_time(item.accepted, out);
    if let Some(deadline) = item.deadline {
        write_time(deadline, out);
    }
    write_text(item.owner, out);
    for text in [item.key, item.dead].into_iter().flatten() {
        write_text(text, out);
    }
    out.extend_from_slice(item.item);
}

fn read_item<'a>(rest: &mut &'a [u8]) -> Option<ItemRecord<'a>> {
    let id = read_id(rest)?;
    let cost = u64::from_le_bytes(*take_array(rest)?);
    let attempts = u32::from_le_bytes(*take_array(rest)?);
    let [level, present] = *take_array(rest)?;
    let has = |bit: u8| present & (1 << bit) != 0;
    let accepted = read_time(rest)?;
    let deadline = if has(0) { Some(read_time(rest)?) } else { None };
    let owner = read_text(rest)?;
    let key = if has(1) { Some(read_text(rest)?) } else { None };
    let dead = if has(2) { Some(read_text(rest)?) } else { None };
    let item = std::mem::take(rest);
    Some(ItemRecord { id, owner, level, cost, accepted, deadline, key, attempts, dead, item })
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    // A text that long is refused before it comes here, with the whole entry.
    out.extend((text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn read_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let length = u32::from_le_bytes(*take_array(rest)?);
    let (text, after) = rest.split_at_checked(length as usize)?;
    *rest = after;
    std::str::from_utf8(text).ok()
}

/// A time as whole seconds since 1970, rounded towards the past, and the nanoseconds to add to them.
fn write_time(time: SystemTime, out: &mut Vec<u8>) {
    let (seconds, nanoseconds) = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => (i64::try_from(after.as_secs()).unwrap_or(i64::MAX), after.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            let seconds = i64::try_from(before.as_secs()).map_or(i64::MIN, |seconds| -seconds);
            match before.subsec_nanos() {
                0 => (seconds, 0),
                nanoseconds => (seconds - 1, 1_000_000_000 - nanoseconds),
            }
        }
    };
    out.extend(seconds.to_le_bytes());
    out.extend(nanoseconds.to_le_bytes());
}

fn read_time(rest: &mut &[u8]) -> Option<SystemTime> {
    let seconds = i64::from_le_bytes(*take_array(rest)?);
    let nanoseconds = Duration::from_nanos(u64::from(u32::from_le_bytes(*take_array(rest)?)));
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let start = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(whole)?
    } else {
        SystemTime::UNIX_EPOCH.checked_add(whole)?
    };
    start.checked_add(nanoseconds)
}

fn read_id(rest: &mut &[u8]) -> Option<TicketId> {
    Some(TicketId(u64::from_le_bytes(*take_array(rest)?)))
}

fn take_array<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (array, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(array)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn times() -> impl Strategy<Value = SystemTime> {
        (any::<i32>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanoseconds)| {
            let whole = Duration::from_secs(u64::from(seconds.unsigned_abs()));
            let start =
                if seconds < 0 { SystemTime::UNIX_EPOCH - whole } else { SystemTime::UNIX_EPOCH + whole };
            start + Duration::from_nanos(u64::from(nanoseconds))
        })
    }

    fn check(record: &Record<'_>) {
        let mut bytes = Vec::new();
        record.write(&mut bytes);
        assert_eq!(Record::read(record.kind(), &bytes).as_ref(), Some(record));
        assert_eq!(Kind::of_number(record.kind() as u8), Some(record.kind()));
        if !matches!(record, Record::Item(_)) {
            bytes.push(0);
            assert_eq!(Record::read(record.kind(), &bytes), None, "trailing bytes are no part of a record");
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            (id, cost, attempts, level) in any::<(u64, u64, u32, u8)>(),
            (accepted, deadline) in (times(), prop::option::of(times())),
            (owner, key, dead) in (".{0,9}", prop::option::of(".{0,9}"), prop::option::of(".{0,9}")),
            item in prop::collection::vec(any::<u8>(), 0..99),
        ) {
            let id = TicketId(id);
            let (key, dead, item) = (key.as_deref(), dead.as_deref(), item.as_slice());
            check(&Record::Taken { id, attempt: attempts });
            check(&Record::Done { id });
            check(&Record::Dead { id, cause: &owner });
            check(&Record::Revived { id });
            check(&Record::Used { id, key: &owner, accepted });
            check(&Record::Whole);
            let owner = owner.as_str();
            check(&Record::Item(ItemRecord {
                id, owner, level, cost, accepted, deadline, key, attempts, dead, item,
            }));
        }

        #[test]
        fn any_bytes_are_read_or_refused(number in 1..=7_u8, bytes in prop::collection::vec(any::<u8>(), 0..99)) {
            if let Some(record) = Kind::of_number(number).and_then(|kind| Record::read(kind, &bytes)) {
                let mut again = Vec::new();
                record.write(&mut again);
                prop_assert_eq!(Record::read(record.kind(), &again), Some(record));
            }
        }
    }
}
