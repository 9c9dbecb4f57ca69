//! What a store must remember, written down as plainly as possible, and a program that uses one at random.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::queue::TicketId;
use crate::queue::store::log::{Kept, push};
use crate::queue::store::record::Record;
use crate::queue::store::{Entry, Facts, Recovered, RecoveredItem};
use crate::random::Random;

/// An entry that owns what it speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Accepted(u64, Facts, Vec<u8>),
    Taken(u64, u32),
    Done(u64),
    Dead(u64, String),
    Revived(u64),
}

impl Event {
    pub(super) fn accepted(id: u64, size: usize) -> Self {
        let accepted = SystemTime::UNIX_EPOCH + Duration::from_secs(id);
        // Every third item has a key, every fifth a deadline.
        let facts = Facts {
            owner: Arc::from(format!("owner {}", id % 3)),
            level: (id % 8) as u8,
            cost: id * 7,
            accepted,
            deadline: id.is_multiple_of(5).then(|| accepted + Duration::from_nanos(id * 1_000_003)),
            key: id.is_multiple_of(3).then(|| Arc::from(format!("key {id}"))),
        };
        let mut bytes = Random::seeded(id);
        Self::Accepted(id, facts, (0..size).map(|_| bytes.bits() as u8).collect())
    }

    fn entry(&self) -> Entry<'_> {
        match self {
            Self::Accepted(id, facts, item) => Entry::Accepted { id: TicketId(*id), facts, item },
            Self::Taken(id, attempt) => Entry::Taken { id: TicketId(*id), attempt: *attempt },
            Self::Done(id) => Entry::Done { id: TicketId(*id) },
            Self::Dead(id, cause) => Entry::Dead { id: TicketId(*id), cause },
            Self::Revived(id) => Entry::Revived { id: TicketId(*id) },
        }
    }
}

/// The records of a group.
pub(super) fn encoded(group: &[Event]) -> Vec<u8> {
    let mut frames = Vec::new();
    group.iter().for_each(|event| push(&mut frames, &Record::from(event.entry())));
    frames
}

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) items: BTreeMap<u64, RecoveredItem>,
    used: BTreeMap<u64, (Arc<str>, SystemTime)>,
    next_id: u64,
}

impl Memory {
    pub(super) fn apply(&mut self, event: &Event) {
        match event {
            Event::Accepted(id, facts, item) => {
                let (facts, item) = (facts.clone(), item.clone());
                let item = RecoveredItem { id: TicketId(*id), facts, item, attempts: 0, dead: None };
                self.items.insert(*id, item);
                self.next_id = self.next_id.max(id + 1);
            }
            Event::Taken(id, attempt) => self.items.get_mut(id).unwrap().attempts = *attempt,
            Event::Done(id) => {
                let facts = self.items.remove(id).unwrap().facts;
                if let Some(key) = facts.key {
                    self.used.insert(*id, (key, facts.accepted));
                }
            }
            Event::Dead(id, cause) => self.items.get_mut(id).unwrap().dead = Some(cause.clone()),
            Event::Revived(id) => {
                let item = self.items.get_mut(id).unwrap();
                (item.attempts, item.dead) = (0, None);
            }
        }
    }

    /// Applies what a full disk left of a group.
    pub(super) fn apply_kept(&mut self, group: &[Event], kept: Kept) {
        let refused = |event: &&Event| match kept {
            Kept::All => true,
            Kept::AllButItems => !matches!(event, Event::Accepted(..)),
            Kept::Nothing => false,
        };
        for event in group.iter().filter(refused) {
            let (Event::Accepted(id, ..)
            | Event::Taken(id, _)
            | Event::Done(id)
            | Event::Dead(id, _)
            | Event::Revived(id)) = event;
            if matches!(event, Event::Accepted(..)) || self.items.contains_key(id) {
                self.apply(event);
            }
        }
    }

    /// Whether a store that was opened says exactly this.
    pub(super) fn is(&self, recovered: &Recovered) -> bool {
        let items: Vec<_> = self.items.values().collect();
        let used: BTreeMap<_, _> =
            recovered.used_keys.iter().map(|(key, id, time)| (id.0, (Arc::clone(key), *time))).collect();
        items == recovered.items.iter().collect::<Vec<_>>()
            && used == self.used
            && recovered.used_keys.len() == used.len()
            && recovered.next_id >= self.next_id
    }

    /// Something that may happen next, which the memory is told of.
    pub(super) fn next_event(&mut self, random: &mut Random, ids: &mut u64) -> Event {
        let chosen = random.below(self.items.len() as u64) as usize;
        let event = match (self.items.values().nth(chosen), random.below(10)) {
            (None, _) | (_, 0..=3) => {
                *ids += 1;
                let most = if random.below(8) == 0 { 1500 } else { 120 };
                Event::accepted(*ids, random.below(most) as usize)
            }
            (Some(item), 4) if item.dead.is_none() => Event::Dead(item.id.0, format!("cause {chosen}")),
            (Some(item), 5) if item.dead.is_some() => Event::Revived(item.id.0),
            (Some(item), 4..=6) => Event::Taken(item.id.0, item.attempts + 1),
            (Some(item), _) => Event::Done(item.id.0),
        };
        self.apply(&event);
        event
    }
}

/// What a store may say when it is opened: what was settled, and the first so many of the events after that.
#[derive(Clone, Debug, Default)]
pub(super) struct Expected {
    pub(super) settled: Memory,
    /// What may have been settled when the program died.
    pub(super) unsettled: Vec<Event>,
}

impl Expected {
    /// Compares; what was found is settled from then on.
    pub(super) fn check(&mut self, recovered: &Recovered) -> Result<(), String> {
        let mut memory = self.settled.clone();
        // On a full disk the items of a group may be missing and the rest of it be there.
        let mut without_items = self.settled.clone();
        let mut found = memory.is(recovered).then(|| memory.clone());
        for event in &self.unsettled {
            memory.apply(event);
            without_items.apply_kept(std::slice::from_ref(event), Kept::AllButItems);
            let possible = [&memory, &without_items].into_iter().find(|memory| memory.is(recovered));
            found = found.or_else(|| possible.cloned());
        }
        let Some(found) = found else {
            let Self { settled, unsettled } = self;
            return Err(format!("settled: {settled:?}\nafter that: {unsettled:?}\nfound: {recovered:?}"));
        };
        self.settled = found;
        self.unsettled.clear();
        Ok(())
    }
}
