//! What every store must do, asked of each.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::disk::SimulatedDisk;
use super::*;

/// A store that can be ended as by a power loss and opened again.
trait Reopened: Store + Sized {
    fn reopen(self) -> (Self, Recovered);
}

impl Reopened for MemoryStore {
    fn reopen(self) -> (Self, Recovered) {
        self.crash()
    }
}

/// A store on a disk, and the disk.
struct OnDisk(DiskStore, SimulatedDisk);

impl OnDisk {
    fn new(disk: SimulatedDisk) -> (Self, Recovered) {
        let (store, recovered) = DiskStore::open_on(disk.clone(), DiskOptions::default()).unwrap();
        (Self(store, disk), recovered)
    }
}

impl Store for OnDisk {
    fn note(&self, entry: Entry<'_>) -> Result<Position, StoreError> {
        self.0.note(entry)
    }
    fn settled(&self, position: Position) -> Settled<'_> {
        self.0.settled(position)
    }
    fn usage(&self) -> Usage {
        self.0.usage()
    }
}

impl Reopened for OnDisk {
    fn reopen(self) -> (Self, Recovered) {
        let Self(store, disk) = self;
        drop(store);
        disk.restore_power();
        Self::new(disk)
    }
}

fn facts(number: u64) -> Facts {
    let accepted = SystemTime::UNIX_EPOCH + Duration::new(number, 17);
    Facts {
        owner: Arc::from(format!("owner {number}")),
        level: number as u8,
        cost: 10 * number,
        accepted,
        deadline: number.is_multiple_of(2).then(|| accepted + Duration::from_millis(1500)),
        key: (number % 2 == 1).then(|| Arc::from(format!("key {number}"))),
    }
}

async fn check(store: impl Reopened) {
    let note = |store: &dyn Store, entry: Entry<'_>| store.note(entry).unwrap();
    let mut last = Position::default();
    store.settled(last).await.expect("what is before all notes is settled");
    for number in 1..=5 {
        let (id, facts, item) = (number.into(), &facts(number), &[number as u8; 3]);
        let position = note(&store, Entry::Accepted { id, facts, item });
        assert!(number == 1 || position > last, "later notes have larger positions");
        last = position;
    }
    note(&store, Entry::Taken { id: 2.into(), attempt: 1 });
    note(&store, Entry::Taken { id: 2.into(), attempt: 2 });
    note(&store, Entry::Dead { id: 3.into(), cause: "poison" });
    note(&store, Entry::Taken { id: 4.into(), attempt: 1 });
    note(&store, Entry::Dead { id: 4.into(), cause: "too often" });
    note(&store, Entry::Revived { id: 4.into() });
    last = note(&store, Entry::Done { id: 5.into() });
    store.settled(last).await.unwrap();
    assert!(store.usage().live_bytes >= 12);

    let (store, recovered) = store.reopen();
    let item = |number: u64, attempts: u32, dead: Option<&str>| {
        let (id, facts, item) = (number.into(), facts(number), vec![number as u8; 3]);
        RecoveredItem { id, facts, item, attempts, dead: dead.map(str::to_owned) }
    };
    let expected = [item(1, 0, None), item(2, 2, None), item(3, 0, Some("poison")), item(4, 0, None)];
    assert_eq!(recovered.items, expected);
    assert_eq!(recovered.used_keys, [(Arc::from("key 5"), 5.into(), facts(5).accepted)]);
    assert_eq!((recovered.next_id, &recovered.damage[..]), (6, &[][..]));

    for number in 1..=4 {
        last = note(&store, Entry::Done { id: number.into() });
    }
    store.settled(last).await.unwrap();
    let (_, recovered) = store.reopen();
    let keys: Vec<_> = recovered.used_keys.iter().map(|(key, _, _)| &**key).collect();
    assert_eq!((recovered.items, keys, recovered.next_id), (Vec::new(), vec!["key 1", "key 3", "key 5"], 6));
}

#[tokio::test]
async fn a_store_in_memory() {
    check(MemoryStore::new()).await;
}

#[tokio::test]
async fn a_store_on_a_disk() {
    check(OnDisk::new(SimulatedDisk::new(1)).0).await;
}
