//! A store in memory, for tests: it forgets with the process, and it is stricter than a disk.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use super::ledger::{KeyWindow, Ledger, Place};
use super::record::{ItemRecord, Kind, Record};
use super::{Entry, Position, Recovered, RecoveredItem, Settled, Store, StoreError, Usage};
use crate::queue::TicketId;

/// Where the store is, in its errors.
const PLACE: &str = "memory";

/// A store in memory, for tests of what is built on a store.
///
/// Clones are the same store, so that a test can hold one while a queue holds another. It is stricter than a disk:
/// - Nothing is settled on its own. Polling [`Store::settled`] settles up to that position and no further; what nobody
///   asked for is lost in a [`crash`](MemoryStore::crash). A store that is [`held`](MemoryStore::held) settles only
///   when told, so that a test can look at what waits.
/// - Full means full: it has no room that is held for acknowledgements.
/// - It panics where its user breaks the agreement: an id that is accepted twice, a word about an item that is not
///   there, a position that was never given out.
///
/// ```
/// # use std::{sync::Arc, time::SystemTime};
/// use flow::queue::store::{Entry, Facts, MemoryStore, Store};
/// # let (owner, accepted) = (Arc::from("tenant"), SystemTime::UNIX_EPOCH);
/// # let facts = Facts { owner, level: 0, cost: 1, accepted, deadline: None, key: None };
/// let store = MemoryStore::held();
/// store.note(Entry::Accepted { id: 7.into(), facts: &facts, item: b"work" })?;
/// assert!(store.survivors().items.is_empty());
/// store.settle();
/// assert_eq!(store.survivors().items[0].item, b"work");
/// # Ok::<(), flow::queue::store::StoreError>(())
/// ```
#[derive(Clone)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

struct State {
    settling: When,
    room: Room,
    /// Encoded, as a disk would have them.
    noted: Vec<(Kind, Vec<u8>)>,
    /// How many of them, from the first on, are settled or refused.
    decided: usize,
    /// Those that were refused because there was no room.
    refused: BTreeSet<usize>,
    /// Ids that were accepted, with what its user may say of them.
    standing: BTreeMap<TicketId, Standing>,
    failed: Option<StoreError>,
    waiters: Vec<Waker>,
}

/// When things are settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Asked,
    Told,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Enough,
    None,
}

/// Where an item stands, by what was noted of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    InLine,
    Dead,
    Done,
}

impl MemoryStore {
    /// An empty store that settles what it is asked for.
    pub fn new() -> Self {
        Self::settling(When::Asked)
    }

    /// An empty store that settles only in [`MemoryStore::settle`].
    pub fn held() -> Self {
        Self::settling(When::Told)
    }

    fn settling(settling: When) -> Self {
        let state = State {
            settling,
            room: Room::Enough,
            noted: Vec::new(),
            decided: 0,
            refused: BTreeSet::new(),
            standing: BTreeMap::new(),
            failed: None,
            waiters: Vec::new(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Settles everything that was noted, or refuses it where there is no room.
    pub fn settle(&self) {
        let mut state = self.state();
        let end = state.noted.len();
        state.decide(end);
    }

    /// How many notes are neither settled nor refused.
    pub fn unsettled(&self) -> usize {
        let state = self.state();
        state.noted.len() - state.decided
    }

    /// From now on there is no room: what is not settled yet is refused.
    pub fn fill(&self) {
        self.state().room = Room::None;
    }

    /// There is room again.
    pub fn make_room(&self) {
        self.state().room = Room::Enough;
    }

    /// From now on everything fails, as after a failed sync; what is settled stays.
    pub fn fail(&self, cause: impl Into<String>) {
        let mut state = self.state();
        let failure = StoreError::Failed { place: PLACE.to_owned(), cause: cause.into() };
        state.failed.get_or_insert(failure);
        state.wake();
    }

    /// What would be there after a crash now.
    pub fn survivors(&self) -> Recovered {
        let state = self.state();
        let mut ledger = Ledger::new(KeyWindow::default());
        for (number, (kind, bytes)) in state.survivors() {
            if let Some(record) = Record::read(kind, bytes) {
                ledger
                    .apply(&record, Place { segment: 0, offset: number as u32, length: bytes.len() as u32 });
            }
        }
        let read = |(_, place): (TicketId, Place)| {
            let (kind, bytes) = &state.noted[place.offset as usize];
            match Record::read(*kind, bytes) {
                Some(Record::Item(item)) => Some(ledger.renewed(item).recovered()),
                _ => None,
            }
        };
        let items = ledger.items().filter_map(read).collect();
        ledger.recovered(items, Vec::new())
    }

    /// Ends this store as a power loss would and opens it again: what was not settled is gone, and whoever still holds
    /// the old one gets only failures from it.
    pub fn crash(&self) -> (Self, Recovered) {
        self.fail("the power went");
        let recovered = self.survivors();
        let next = Self::settling(self.state().settling);
        let mut state = next.state();
        for item in &recovered.items {
            let standing = if item.dead.is_some() { Standing::Dead } else { Standing::InLine };
            state.standing.insert(item.id, standing);
            state.keep(&Record::Item(renewed(item)));
        }
        for (key, id, accepted) in &recovered.used_keys {
            state.standing.insert(*id, Standing::Done);
            state.keep(&Record::Used { id: *id, key, accepted: *accepted });
        }
        state.decided = state.noted.len();
        drop(state);
        (next, recovered)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Store for MemoryStore {
    /// # Panics
    /// If the entry does not go with what was noted before.
    fn note(&self, entry: Entry<'_>) -> Result<Position, StoreError> {
        let mut state = self.state();
        state.failed.clone().map_or(Ok(()), Err)?;
        let id = id_of(&entry);
        let before = state.standing.get(&id).copied();
        let Some(after) = standing_after(&entry, before) else {
            drop(state);
            panic!("{entry:?} does not go with what was noted of it before: {before:?}");
        };
        state.standing.insert(id, after);
        state.keep(&Record::from(entry));
        Ok(Position(state.noted.len() as u64))
    }

    /// # Panics
    /// If the position was never given out.
    fn settled(&self, position: Position) -> Settled<'_> {
        // Positions count what is noted with their own note.
        let end = position.0 as usize;
        Box::pin(poll_fn(move |cx| {
            let mut state = self.state();
            let noted = state.noted.len();
            if end > noted {
                drop(state);
                panic!("position {end} was never given out: the last is {noted}");
            }
            if state.settling == When::Asked && state.failed.is_none() {
                state.decide(end);
            }
            match state.verdict(end) {
                Some(verdict) => Poll::Ready(verdict),
                None => {
                    state.waiters.push(cx.waker().clone());
                    Poll::Pending
                }
            }
        }))
    }

    fn usage(&self) -> Usage {
        let live: usize = self.survivors().items.iter().map(|item| item.item.len()).sum();
        let state = self.state();
        let bytes: usize = state.survivors().map(|(_, (_, bytes))| bytes.len()).sum();
        Usage { bytes: bytes as u64, live_bytes: live as u64, files: 0 }
    }
}

impl State {
    fn keep(&mut self, record: &Record<'_>) {
        let mut bytes = Vec::new();
        record.write(&mut bytes);
        self.noted.push((record.kind(), bytes));
    }

    /// Settles or refuses what was noted before the `end`-th.
    fn decide(&mut self, end: usize) {
        if self.failed.is_some() {
            return;
        }
        for number in self.decided..end {
            if self.room == Room::None {
                self.refused.insert(number);
                self.take_back(number);
            }
        }
        self.decided = self.decided.max(end);
        self.wake();
    }

    /// What was refused did not happen, so its user may try it again.
    fn take_back(&mut self, number: usize) {
        let (kind, bytes) = &self.noted[number];
        match Record::read(*kind, bytes) {
            Some(Record::Item(item)) => {
                self.standing.remove(&item.id);
            }
            Some(Record::Done { id } | Record::Dead { id, .. }) => {
                self.standing.entry(id).and_modify(|standing| *standing = Standing::InLine);
            }
            Some(Record::Revived { id }) => {
                self.standing.entry(id).and_modify(|standing| *standing = Standing::Dead);
            }
            Some(Record::Taken { .. } | Record::Used { .. } | Record::Whole) | None => {}
        }
    }

    fn survivors(&self) -> impl Iterator<Item = (usize, (Kind, &Vec<u8>))> {
        let decided = self.noted.iter().take(self.decided).enumerate();
        decided
            .filter(|(number, _)| !self.refused.contains(number))
            .map(|(number, (kind, bytes))| (number, (*kind, bytes)))
    }

    /// What became of the note with which the first `end` are noted.
    fn verdict(&self, end: usize) -> Option<Result<(), StoreError>> {
        if end > 0 && self.refused.contains(&(end - 1)) {
            Some(Err(StoreError::Full { place: PLACE.to_owned() }))
        } else if end <= self.decided {
            Some(Ok(()))
        } else {
            self.failed.clone().map(Err)
        }
    }

    fn wake(&mut self) {
        self.waiters.drain(..).for_each(Waker::wake);
    }
}

fn id_of(entry: &Entry<'_>) -> TicketId {
    match entry {
        Entry::Accepted { id, .. }
        | Entry::Taken { id, .. }
        | Entry::Done { id }
        | Entry::Dead { id, .. }
        | Entry::Revived { id } => *id,
    }
}

/// Where an item stands once the entry is noted; `None` if the entry makes no sense.
fn standing_after(entry: &Entry<'_>, before: Option<Standing>) -> Option<Standing> {
    match (entry, before) {
        (Entry::Accepted { .. }, None) => Some(Standing::InLine),
        (Entry::Taken { .. }, Some(Standing::InLine)) => Some(Standing::InLine),
        (Entry::Done { .. }, Some(Standing::InLine | Standing::Dead)) => Some(Standing::Done),
        (Entry::Dead { .. }, Some(Standing::InLine)) => Some(Standing::Dead),
        (Entry::Revived { .. }, Some(Standing::Dead)) => Some(Standing::InLine),
        _ => None,
    }
}

/// The record of an item that was recovered.
fn renewed(item: &RecoveredItem) -> ItemRecord<'_> {
    ItemRecord {
        attempts: item.attempts,
        dead: item.dead.as_deref(),
        ..ItemRecord::accepted(item.id, &item.facts, &item.item)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("MemoryStore")
            .field("noted", &state.noted.len())
            .field("decided", &state.decided)
            .field("settling", &state.settling)
            .field("room", &state.room)
            .finish_non_exhaustive()
    }
}
