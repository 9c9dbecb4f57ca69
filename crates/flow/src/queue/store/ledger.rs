//! What a run of records comes to: where the items lie that are not done, and which keys count as used.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::record::{ItemRecord, Record};
use super::{Recovered, RecoveredItem};
use crate::queue::TicketId;

/// How long a store keeps the idempotency keys of items that are done.
///
/// The age is counted from the acceptance of an item to that of the newest one, so that a store needs no clock: a key
/// is kept at least as long as the window says, and longer while nothing new is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyWindow {
    /// Older keys are dropped.
    pub age: Duration,
    /// The most keys that are kept; the oldest are dropped first.
    pub count: usize,
}

impl Default for KeyWindow {
    /// A day, and a million keys.
    fn default() -> Self {
        Self { age: Duration::from_secs(24 * 60 * 60), count: 1_000_000 }
    }
}

/// Bytes of a record that keeps a used key, without the key.
const USED_BYTES: u64 = 44;

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u32,
    pub(super) length: u32,
}

/// What is known of an item without reading it.
#[derive(Debug)]
struct Slot {
    place: Place,
    attempts: u32,
}

/// A key that counts as used.
#[derive(Debug)]
pub(super) struct UsedKey {
    pub(super) key: Arc<str>,
    /// The record that must not go before another one says the same.
    place: Place,
}

/// Records, added up. The items stay where they lie; only what is asked for often is held here.
#[derive(Debug)]
pub(super) struct Ledger {
    window: KeyWindow,
    items: HashMap<TicketId, Slot>,
    /// Keys of the items that have one, with the time of their acceptance.
    keys: BTreeMap<TicketId, (Arc<str>, SystemTime)>,
    /// Why the dead among the items are dead.
    causes: BTreeMap<TicketId, Box<str>>,
    used: BTreeMap<(SystemTime, TicketId), UsedKey>,
    /// How many records of a segment are still needed.
    needed: BTreeMap<u64, u64>,
    item_bytes: u64,
    key_bytes: u64,
    newest: SystemTime,
    next_id: u64,
}

impl Ledger {
    pub(super) fn new(window: KeyWindow) -> Self {
        Self {
            window,
            items: HashMap::new(),
            keys: BTreeMap::new(),
            causes: BTreeMap::new(),
            used: BTreeMap::new(),
            needed: BTreeMap::new(),
            item_bytes: 0,
            key_bytes: 0,
            newest: SystemTime::UNIX_EPOCH,
            next_id: 0,
        }
    }

    /// Adds one record. What it says of items that are not there is left out: they are done.
    pub(super) fn apply(&mut self, record: &Record<'_>, place: Place) {
        match record {
            Record::Item(item) => self.add(item, place),
            Record::Taken { id, attempt } => {
                self.items.entry(*id).and_modify(|slot| slot.attempts = *attempt);
            }
            Record::Dead { id, cause } if self.items.contains_key(id) => {
                self.causes.insert(*id, Box::from(*cause));
            }
            Record::Revived { id } => {
                self.items.entry(*id).and_modify(|slot| slot.attempts = 0);
                self.causes.remove(id);
            }
            Record::Done { id } => {
                if let Some(slot) = self.take_out(*id)
                    && let Some((key, accepted)) = self.keys.remove(id)
                {
                    self.use_key(*id, key, accepted, slot.place);
                }
            }
            Record::Used { id, key, accepted } => {
                self.skip_to(id.0.saturating_add(1));
                self.take_out(*id);
                self.keys.remove(id);
                self.use_key(*id, Arc::from(*key), *accepted, place);
            }
            Record::Dead { .. } | Record::Whole => {}
        }
    }

    /// Ids below this one were used.
    pub(super) fn skip_to(&mut self, next_id: u64) {
        self.next_id = self.next_id.max(next_id);
    }

    pub(super) fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Bytes of the items that are not done.
    pub(super) fn item_bytes(&self) -> u64 {
        self.item_bytes
    }

    /// Bytes without which the items and the used keys would not be known.
    pub(super) fn needed_bytes(&self) -> u64 {
        self.item_bytes + self.key_bytes
    }

    /// Whether anything in the segment is still needed.
    pub(super) fn needs(&self, segment: u64) -> bool {
        self.needed.contains_key(&segment)
    }

    /// The items that lie in the segment. Walks all items.
    pub(super) fn items_in(&self, segment: u64) -> Vec<TicketId> {
        let items = self.items.iter().filter(|(_, slot)| slot.place.segment == segment);
        let mut ids: Vec<_> = items.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    /// The used keys that only this segment speaks of. Walks all keys.
    pub(super) fn keys_in(&self, segment: u64) -> Vec<(SystemTime, TicketId)> {
        let keys = self.used.iter().filter(|(_, used)| used.place.segment == segment);
        keys.map(|(name, _)| *name).collect()
    }

    /// Where the item lies; `None` once it is done.
    pub(super) fn place(&self, id: TicketId) -> Option<Place> {
        self.items.get(&id).map(|slot| slot.place)
    }

    /// The key, if it still counts as used.
    pub(super) fn used_key(&self, name: &(SystemTime, TicketId)) -> Option<&Arc<str>> {
        self.used.get(name).map(|used| &used.key)
    }

    /// All keys that count as used, from the one accepted first on.
    pub(super) fn used_keys(&self) -> impl Iterator<Item = ((SystemTime, TicketId), &Arc<str>)> {
        self.used.iter().map(|(name, used)| (*name, &used.key))
    }

    /// The record of an item as it would be written now.
    pub(super) fn renewed<'a>(&'a self, record: ItemRecord<'a>) -> ItemRecord<'a> {
        let attempts = self.items.get(&record.id).map_or(record.attempts, |slot| slot.attempts);
        ItemRecord { attempts, dead: self.causes.get(&record.id).map(Box::as_ref), ..record }
    }

    /// All items with their places, in order of id.
    pub(super) fn items(&self) -> impl Iterator<Item = (TicketId, Place)> {
        let mut items: Vec<_> = self.items.iter().map(|(id, slot)| (*id, slot.place)).collect();
        items.sort_unstable();
        items.into_iter()
    }

    /// What a queue is told that holds these items.
    pub(super) fn recovered(&self, items: Vec<RecoveredItem>, damage: Vec<String>) -> Recovered {
        let used_keys =
            self.used_keys().map(|((accepted, id), key)| (Arc::clone(key), id, accepted)).collect();
        Recovered { items, used_keys, next_id: self.next_id, damage }
    }

    /// Forgets an item that cannot be read any more.
    pub(super) fn forget(&mut self, id: TicketId) {
        self.take_out(id);
        self.keys.remove(&id);
    }

    fn add(&mut self, item: &ItemRecord<'_>, place: Place) {
        self.skip_to(item.id.0.saturating_add(1));
        self.newest = self.newest.max(item.accepted);
        self.take_out(item.id);
        self.items.insert(item.id, Slot { place, attempts: item.attempts });
        self.need(place);
        self.item_bytes += u64::from(place.length);
        if let Some(key) = item.key {
            self.keys.entry(item.id).or_insert_with(|| (Arc::from(key), item.accepted));
        }
        if let Some(cause) = item.dead {
            self.causes.insert(item.id, Box::from(cause));
        }
    }

    fn take_out(&mut self, id: TicketId) -> Option<Slot> {
        let slot = self.items.remove(&id)?;
        self.causes.remove(&id);
        self.release(slot.place);
        self.item_bytes -= u64::from(slot.place.length);
        Some(slot)
    }

    fn use_key(&mut self, id: TicketId, key: Arc<str>, accepted: SystemTime, place: Place) {
        self.newest = self.newest.max(accepted);
        self.need(place);
        self.key_bytes += key_record_bytes(&key);
        if let Some(before) = self.used.insert((accepted, id), UsedKey { key, place }) {
            self.give_up(&before);
        }
        let (age, newest) = (self.window.age, self.newest);
        let is_old = |accepted: SystemTime| accepted.checked_add(age).is_some_and(|end| end < newest);
        while let Some((&(accepted, _), _)) = self.used.first_key_value()
            && (is_old(accepted) || self.used.len() > self.window.count)
        {
            if let Some((_, dropped)) = self.used.pop_first() {
                self.give_up(&dropped);
            }
        }
    }

    fn give_up(&mut self, used: &UsedKey) {
        self.release(used.place);
        self.key_bytes -= key_record_bytes(&used.key);
    }

    fn need(&mut self, place: Place) {
        *self.needed.entry(place.segment).or_default() += 1;
    }

    fn release(&mut self, place: Place) {
        if let Entry::Occupied(mut needed) = self.needed.entry(place.segment) {
            *needed.get_mut() -= 1;
            if *needed.get() == 0 {
                needed.remove();
            }
        }
    }
}

/// Bytes of the record that keeps a used key.
fn key_record_bytes(key: &str) -> u64 {
    USED_BYTES + key.len() as u64
}
