//! The durable queue, on a folder that counts what is written between two syncs.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use flow::queue::store::disk::{Disk, Folder};
use flow::queue::store::{DiskOptions, DiskStore, Entry, Facts, Position, Recovered, Store};
use flow::queue::{Lease, Queue};
use flow::{Capacity, Ticket};

use futures::future::join_all;
use tokio::runtime::{Builder, Runtime};

use super::super::{BATCH, ITEM, consumers};

/// The bytes of each group, and of the one that is being written.
type Groups = Arc<Mutex<(Vec<usize>, usize)>>;

/// A folder that counts.
#[derive(Debug)]
struct Counted(Folder, Groups);

#[rustfmt::skip]
impl Disk for Counted {
    fn write(&mut self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.1.lock().unwrap_or_else(PoisonError::into_inner).1 += bytes.len();
        self.0.write(name, at, bytes)
    }
    fn sync(&mut self, name: &str) -> io::Result<()> {
        let mut groups = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        let size = std::mem::take(&mut groups.1);
        groups.0.push(size);
        drop(groups);
        self.0.sync(name)
    }
    fn place(&self) -> String { self.0.place() }
    fn lock(&mut self) -> io::Result<()> { self.0.lock() }
    fn list(&self) -> io::Result<Vec<(String, u64)>> { self.0.list() }
    fn create(&mut self, name: &str) -> io::Result<()> { self.0.create(name) }
    fn read(&mut self, name: &str, at: u64, length: usize) -> io::Result<Vec<u8>> { self.0.read(name, at, length) }
    fn cut(&mut self, name: &str, length: u64) -> io::Result<()> { self.0.cut(name, length) }
    fn sync_dir(&mut self) -> io::Result<()> { self.0.sync_dir() }
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> { self.0.rename(from, to) }
    fn remove(&mut self, name: &str) -> io::Result<()> { self.0.remove(name) }
}

/// What all contenders run on.
pub(crate) fn runtime() -> Runtime {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime")
}

/// Items per second of the store alone: one thread notes a group, with the acknowledgements of the one before, while
/// that one is on its way to the disk. Also the bytes of what was synced together.
pub(crate) fn store_round(path: &Path, group: usize, items: usize) -> (f64, Vec<usize>) {
    let (store, groups) = open(path);
    let facts = Facts {
        owner: Arc::from("producer"),
        level: 0,
        cost: 1,
        accepted: SystemTime::now(),
        deadline: None,
        key: None,
    };
    let runtime = runtime();
    let start = Instant::now();
    let mut last = Position::default();
    for first in (0..items).step_by(group) {
        let before = last;
        for number in first..first + group {
            let id = (number as u64).into();
            let accepted = Entry::Accepted { id, facts: &facts, item: &[7; ITEM] };
            last = store.note(accepted).expect("a store that works");
            if let Some(done) = number.checked_sub(group) {
                last = store.note(Entry::Done { id: (done as u64).into() }).expect("a store that works");
            }
        }
        runtime.block_on(store.settled(before)).expect("a store that works");
    }
    runtime.block_on(store.settled(last)).expect("a store that works");
    let took = start.elapsed();
    drop(store);
    (items as f64 / took.as_secs_f64(), close(path, &groups))
}

/// A new store on a folder, and what will be written of it from here on.
fn open(path: &Path) -> (DiskStore, Groups) {
    let groups = Groups::default();
    let folder = Folder::open(path).expect("a folder for the queue");
    let disk = Counted(folder, Arc::clone(&groups));
    let (store, _) = DiskStore::open_on(disk, DiskOptions::default()).expect("a store");
    *groups.lock().unwrap_or_else(PoisonError::into_inner) = (Vec::new(), 0);
    (store, groups)
}

/// Removes the folder and answers what was written.
fn close(path: &Path, groups: &Groups) -> Vec<usize> {
    fs::remove_dir_all(path).expect("the folder of the queue");
    std::mem::take(&mut *groups.lock().unwrap_or_else(PoisonError::into_inner)).0
}

/// Items per second of the queue, and how many groups there were.
pub(crate) fn round(path: &Path, producers: usize, items: usize) -> (f64, usize) {
    let (store, groups) = open(path);
    let queue =
        Queue::<Vec<u8>>::builder(Capacity::items(10_000)).open(Arc::new(store), Recovered::default());
    let queue = queue.expect("a queue on an empty store");
    let runtime = runtime();
    let start = Instant::now();
    runtime.block_on(pass(&queue, producers, items));
    let took = start.elapsed();
    drop((runtime, queue));
    (items as f64 / took.as_secs_f64(), close(path, &groups).len())
}

async fn pass(queue: &Queue<Vec<u8>>, producers: usize, items: usize) {
    let each = items / producers;
    let mut tasks = Vec::new();
    for _ in 0..producers {
        let queue = queue.clone();
        tasks.push(tokio::spawn(async move {
            let owner: Arc<str> = Arc::from("producer");
            for _ in 0..each {
                queue.put(vec![7; ITEM], Ticket::of(Arc::clone(&owner))).await.expect("an open queue");
            }
        }));
    }
    let producing = join_all(tasks);
    let consuming = (0..consumers(producers)).map(|_| {
        let queue = queue.clone();
        tokio::spawn(async move {
            loop {
                let leases = queue.take_many(BATCH).await;
                if leases.is_empty() {
                    return;
                }
                let acks = join_all(leases.into_iter().map(Lease::ack)).await;
                acks.into_iter().for_each(|ack| ack.expect("leases without an end"));
            }
        })
    });
    let consuming: Vec<_> = consuming.collect();
    producing.await;
    queue.close();
    join_all(consuming).await;
}
