//! The durable queue, on a folder that counts what is written between two syncs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
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

/// A store that stays open from round to round, as the servers do.
pub(crate) struct Lasting {
    path: PathBuf,
    store: Arc<DiskStore>,
    groups: Groups,
    facts: Facts,
    next: u64,
}

impl Lasting {
    /// A new store on a folder, through which so much has passed already that its files are written a second time.
    pub(crate) fn open(path: &Path) -> Self {
        let groups = Groups::default();
        let folder = Folder::open(path).expect("a folder for the queue");
        let disk = Counted(folder, Arc::clone(&groups));
        let options = DiskOptions::default();
        let (store, _) = DiskStore::open_on(disk, options).expect("a store");
        let facts = Facts {
            owner: Arc::from("producer"),
            level: 0,
            cost: 1,
            accepted: SystemTime::now(),
            deadline: None,
            key: None,
        };
        let mut lasting = Self { path: path.to_owned(), store: Arc::new(store), groups, facts, next: 0 };
        lasting.alone(256, 3 * options.segment_bytes as usize / ITEM);
        lasting
    }

    /// The bytes of what was synced together since the last time.
    fn groups(&self) -> Vec<usize> {
        std::mem::take(&mut *self.groups.lock().unwrap_or_else(PoisonError::into_inner)).0
    }

    fn accept(&self, id: u64) -> Position {
        let entry = Entry::Accepted { id: id.into(), facts: &self.facts, item: &[7; ITEM] };
        self.store.note(entry).expect("a store that works")
    }

    fn finish(&self, id: u64) -> Position {
        self.store.note(Entry::Done { id: id.into() }).expect("a store that works")
    }

    /// Items per second of the store alone: one thread notes a group, with the acknowledgements of the one before,
    /// while that one is on its way to the disk. Also the bytes of what was synced together.
    pub(crate) fn alone(&mut self, group: usize, items: usize) -> (f64, Vec<usize>) {
        let runtime = runtime();
        let (first, end) = (self.next, self.next + items as u64);
        self.groups();
        let start = Instant::now();
        let (mut last, mut before) = (Position::default(), Position::default());
        for (number, id) in (first..end).enumerate() {
            if number.is_multiple_of(group) {
                runtime.block_on(self.store.settled(before)).expect("a store that works");
                before = last;
            }
            last = self.accept(id);
            if number >= group {
                last = self.finish(id - group as u64);
            }
        }
        runtime.block_on(self.store.settled(last)).expect("a store that works");
        let took = start.elapsed();
        (end.saturating_sub(group as u64).max(first)..end).for_each(|id| last = self.finish(id));
        runtime.block_on(self.store.settled(last)).expect("a store that works");
        self.next = end;
        (items as f64 / took.as_secs_f64(), self.groups())
    }

    /// Items per second of the store with so many producers, each of which waits for its item before it notes the next
    /// together with the acknowledgement of the last one. Also the bytes of what was synced together.
    pub(crate) fn with_producers(&mut self, producers: usize, items: usize) -> (f64, Vec<usize>) {
        let (runtime, first, each) = (runtime(), self.next, (items / producers) as u64);
        self.next += each * producers as u64;
        self.groups();
        let start = Instant::now();
        runtime.block_on(async {
            let produce = |producer: u64| {
                let (store, facts) = (Arc::clone(&self.store), self.facts.clone());
                tokio::spawn(async move {
                    for id in (0..each).map(|number| first + producer * each + number) {
                        let entry = Entry::Accepted { id: id.into(), facts: &facts, item: &[7; ITEM] };
                        let position = store.note(entry).expect("a store that works");
                        store.settled(position).await.expect("a store that works");
                        store.note(Entry::Done { id: id.into() }).expect("a store that works");
                    }
                })
            };
            let tasks: Vec<_> = (0..producers as u64).map(produce).collect();
            join_all(tasks).await.into_iter().for_each(|task| task.expect("no task panics"));
        });
        (items as f64 / start.elapsed().as_secs_f64(), self.groups())
    }

    /// Items per second of a queue on the store, and how many groups there were.
    pub(crate) fn queue(&mut self, producers: usize, items: usize) -> (f64, usize) {
        let recovered = Recovered { next_id: self.next, ..Recovered::default() };
        let store = Arc::clone(&self.store);
        let queue = Queue::<Vec<u8>>::builder(Capacity::items(10_000)).open(store, recovered);
        let queue = queue.expect("a queue on a store in which nothing waits");
        self.next += items as u64;
        self.groups();
        let runtime = runtime();
        let start = Instant::now();
        runtime.block_on(pass(&queue, producers, items));
        let took = start.elapsed();
        drop((runtime, queue));
        (items as f64 / took.as_secs_f64(), self.groups().len())
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        let _it_is_temporary = fs::remove_dir_all(&self.path);
    }
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
                let acks = Lease::ack_many(leases).await;
                acks.into_iter().for_each(|ack| ack.expect("leases without an end"));
            }
        })
    });
    let consuming: Vec<_> = consuming.collect();
    producing.await;
    queue.close();
    join_all(consuming).await;
}
