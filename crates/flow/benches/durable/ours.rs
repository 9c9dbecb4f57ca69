//! The durable queue, on a folder that counts what is written between two syncs.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use flow::queue::store::disk::{Disk, Folder};
use flow::queue::store::{DiskOptions, DiskStore};
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

/// Items per second, and the bytes of each group.
pub(crate) fn round(path: &Path, producers: usize, items: usize) -> (f64, Vec<usize>) {
    let groups = Groups::default();
    let folder = Folder::open(path).expect("a folder for the queue");
    let disk = Counted(folder, Arc::clone(&groups));
    let (store, recovered) = DiskStore::open_on(disk, DiskOptions::default()).expect("a store");
    let queue = Queue::<Vec<u8>>::builder(Capacity::items(10_000)).open(Arc::new(store), recovered);
    let queue = queue.expect("a queue on an empty store");
    *groups.lock().unwrap_or_else(PoisonError::into_inner) = (Vec::new(), 0);
    let runtime = runtime();
    let start = Instant::now();
    runtime.block_on(pass(&queue, producers, items));
    let took = start.elapsed();
    drop((runtime, queue));
    fs::remove_dir_all(path).expect("the folder of the queue");
    let groups = std::mem::take(&mut *groups.lock().unwrap_or_else(PoisonError::into_inner)).0;
    (items as f64 / took.as_secs_f64(), groups)
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
