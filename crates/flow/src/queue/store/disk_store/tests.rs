//! The store as its users see it: on real files, with several threads, and on a disk that fails.

use std::fs;
use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use super::*;
use crate::queue::TicketId;
use crate::queue::store::disk::{Fault, SimulatedDisk};
use crate::queue::store::{Facts, Settled};

/// A folder that goes when the test ends.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("flow-store-{}-{number}", std::process::id()));
        let _none_was_left = fs::remove_dir_all(&path);
        Self(path)
    }

    fn open(&self, options: DiskOptions) -> (DiskStore, Recovered) {
        DiskStore::open(&self.0, options).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _none_was_made = fs::remove_dir_all(&self.0);
    }
}

const SMALL: DiskOptions = DiskOptions {
    segment_bytes: 16 << 10,
    waiting_bytes: 64 << 10,
    reserve_bytes: 4 << 10,
    keys: KeyWindow { age: Duration::from_secs(3600), count: 1000 },
};

fn facts(key: Option<&str>) -> Facts {
    let accepted = SystemTime::UNIX_EPOCH;
    Facts { owner: Arc::from("me"), level: 1, cost: 2, accepted, deadline: None, key: key.map(Arc::from) }
}

fn put(store: &DiskStore, id: u64, item: &[u8]) -> Result<Position, StoreError> {
    store.note(Entry::Accepted { id: TicketId(id), facts: &facts(None), item })
}

fn wait(settled: Settled<'_>) -> Result<(), StoreError> {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(settled)
}

fn ids(recovered: &Recovered) -> Vec<u64> {
    recovered.items.iter().map(|item| item.id.0).collect()
}

#[test]
fn what_was_settled_is_there_when_the_folder_is_opened_again() {
    let place = Place::new();
    let (store, recovered) = place.open(SMALL);
    assert_eq!((recovered.items.len(), recovered.next_id), (0, 0));
    let key = facts(Some("once"));
    store.note(Entry::Accepted { id: TicketId(1), facts: &key, item: b"first" }).unwrap();
    put(&store, 2, b"second").unwrap();
    store.note(Entry::Taken { id: TicketId(2), attempt: 1 }).unwrap();
    let last = store.note(Entry::Done { id: TicketId(1) }).unwrap();
    wait(store.settled(last)).unwrap();
    assert!(store.usage().live_bytes > 0 && store.usage().live_bytes < 100);
    drop(store);

    let (_store, recovered) = place.open(SMALL);
    assert_eq!(ids(&recovered), [2]);
    assert_eq!((recovered.items[0].item.as_slice(), recovered.items[0].attempts), (&b"second"[..], 1));
    assert_eq!(recovered.used_keys, [(Arc::from("once"), TicketId(1), SystemTime::UNIX_EPOCH)]);
    assert_eq!((recovered.next_id, recovered.damage), (3, Vec::new()));
}

#[test]
fn a_folder_is_open_once() {
    let place = Place::new();
    let (store, _) = place.open(SMALL);
    let refused = DiskStore::open(&place.0, SMALL).unwrap_err();
    assert_eq!(refused, StoreError::Locked { place: place.0.display().to_string() });
    drop(store);
    place.open(SMALL);
}

#[test]
fn a_store_of_a_later_version_is_refused_and_left_alone() {
    let place = Place::new();
    place.open(SMALL);
    let file = place.0.join("segment-0000000000000001");
    let mut bytes = fs::read(&file).unwrap();
    for copy in [0, 512] {
        bytes[copy + 8] = 9;
        let sum = crc32c::crc32c(&bytes[copy..copy + 40]);
        bytes[copy + 40..copy + 44].copy_from_slice(&sum.to_le_bytes());
    }
    fs::write(&file, &bytes).unwrap();
    let refused = DiskStore::open(&place.0, SMALL).unwrap_err();
    let found = "version 9 in segment-0000000000000001".to_owned();
    assert_eq!(refused, StoreError::Foreign { place: place.0.display().to_string(), found });
    assert_eq!(fs::read(&file).unwrap(), bytes);
}

#[test]
fn many_threads_share_syncs_and_find_everything_again() {
    const THREADS: u64 = 8;
    const EACH: u64 = 200;
    let place = Place::new();
    let (store, _) = place.open(SMALL);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || {
                for number in 0..EACH {
                    let id = number * THREADS + thread;
                    wait(store.settled(put(store, id, &[thread as u8; 300]).unwrap())).unwrap();
                    if !id.is_multiple_of(10) {
                        wait(store.settled(store.note(Entry::Done { id: TicketId(id) }).unwrap())).unwrap();
                    }
                }
            });
        }
    });
    drop(store);
    let (_store, recovered) = place.open(SMALL);
    let expected: Vec<_> = (0..THREADS * EACH).filter(|id: &u64| id.is_multiple_of(10)).collect();
    assert_eq!((ids(&recovered), recovered.damage), (expected, Vec::new()));
    assert!(recovered.items.iter().all(|item| item.item == [(item.id.0 % THREADS) as u8; 300]));
}

#[test]
fn the_future_may_be_dropped_and_asked_again() {
    let (store, _) = DiskStore::open_on(SimulatedDisk::new(1), SMALL).unwrap();
    let position = put(&store, 1, b"x").unwrap();
    let _may_be_pending = pin!(store.settled(position)).poll(&mut Context::from_waker(Waker::noop()));
    wait(store.settled(position)).unwrap();
    wait(store.settled(position)).unwrap();
    let unknown = pin!(store.settled(Position(7))).poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(unknown, Poll::Pending);
    assert!(store.shared.state().waiters_are_gone());
}

#[test]
fn an_entry_that_never_fits_is_refused_at_once() {
    let (store, _) = DiskStore::open_on(SimulatedDisk::new(1), SMALL).unwrap();
    let refused = put(&store, 1, &vec![0; 65 << 10]).unwrap_err();
    assert!(matches!(refused, StoreError::TooLarge { limit: 65_536, .. }), "{refused}");
    wait(store.settled(put(&store, 1, &vec![0; 63 << 10]).unwrap())).unwrap();
}

#[test]
fn a_full_disk_refuses_items_keeps_what_was_settled_and_takes_more_once_there_is_room() {
    let disk = SimulatedDisk::new(1);
    let (store, _) = DiskStore::open_on(disk.clone(), SMALL).unwrap();
    disk.limit(8 << 10);
    let mut settled = Vec::new();
    let full = (0..).find_map(|id| {
        let outcome = wait(store.settled(put(&store, id, &[7; 700]).unwrap()));
        settled.extend(outcome.is_ok().then_some(id));
        outcome.err()
    });
    assert_eq!(full, Some(StoreError::Full { place: "a simulated disk".to_owned() }));
    let done = settled.remove(0);
    let position = store.note(Entry::Done { id: TicketId(done) }).unwrap();
    wait(store.settled(position)).expect("there is room for acknowledgements");
    assert!(wait(store.settled(put(&store, 100, &[7; 700]).unwrap())).is_err());
    disk.limit(u64::MAX);
    wait(store.settled(put(&store, 101, &[7; 700]).unwrap())).expect("there is room again");
    settled.push(101);
    drop(store);
    disk.restore_power();
    let (_store, recovered) = DiskStore::open_on(disk, SMALL).unwrap();
    assert_eq!((ids(&recovered), recovered.damage), (settled, Vec::new()));
}

#[test]
fn after_a_failed_sync_everything_fails_and_everybody_is_told() {
    let disk = SimulatedDisk::new(1);
    let (store, _) = DiskStore::open_on(disk.clone(), SMALL).unwrap();
    wait(store.settled(put(&store, 1, b"safe").unwrap())).unwrap();
    // The next calls are the write of a group and its sync.
    disk.fail_at(disk.calls() + 1, Fault::Broken);
    let position = put(&store, 2, b"lost").unwrap();
    let failure = wait(store.settled(position)).unwrap_err();
    assert!(matches!(failure, StoreError::Failed { .. }), "{failure}");
    assert_eq!(put(&store, 3, b"late").unwrap_err(), failure);
    wait(store.settled(Position(1))).expect("what was settled stays settled");
    drop(store);
    disk.restore_power();
    let (_store, recovered) = DiskStore::open_on(disk, SMALL).unwrap();
    assert_eq!(ids(&recovered).first(), Some(&1));
}
