//! The floor: bytes written and synced by one thread that does nothing else. It knows no records, no checksums and no
//! ledger, keeps nothing apart and forgets nothing.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use futures::future::join_all;
use tokio::sync::oneshot;

/// Writes groups of these sizes to a new file, each with its sync; answers how many items per second that would be.
pub(crate) fn round(path: &Path, groups: &[usize], items: usize) -> f64 {
    let mut file = File::create(path).expect("a file for the bare writes");
    let rate = write(&mut file, groups, items);
    fs::remove_file(path).expect("the file of the bare writes");
    rate
}

/// The same over a file that has these bytes already, so that a sync has nothing to note but the bytes.
pub(crate) fn second_round(path: &Path, groups: &[usize], items: usize) -> f64 {
    let mut file = File::create(path).expect("a file for the bare writes");
    file.write_all(&vec![1; groups.iter().sum()]).and_then(|()| file.sync_all()).expect("bare writes work");
    file.seek(SeekFrom::Start(0)).expect("a file can be written again");
    let rate = write(&mut file, groups, items);
    fs::remove_file(path).expect("the file of the bare writes");
    rate
}

fn write(file: &mut File, groups: &[usize], items: usize) -> f64 {
    let bytes = vec![7; groups.iter().copied().max().unwrap_or(0)];
    let start = Instant::now();
    for size in groups {
        file.write_all(&bytes[..*size]).and_then(|()| file.sync_data()).expect("bare writes work");
    }
    items as f64 / start.elapsed().as_secs_f64()
}

/// What producers hand to the thread that writes: their bytes, and where each waits for its sync.
#[derive(Default)]
struct Desk {
    waiting: Mutex<(Vec<u8>, Vec<oneshot::Sender<()>>)>,
    is_full: Condvar,
}

impl Desk {
    /// Writes and syncs whenever all producers have come, and tells each.
    fn serve(&self, mut file: File, producers: usize, rounds: usize) {
        let mut bytes = Vec::new();
        for _ in 0..rounds {
            let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let all = self.is_full.wait_while(waiting, |(_, told)| told.len() < producers);
            let mut waiting = all.unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut bytes, &mut waiting.0);
            let told = std::mem::take(&mut waiting.1);
            drop(waiting);
            file.write_all(&bytes).and_then(|()| file.sync_data()).expect("bare writes work");
            bytes.clear();
            for told in told {
                let _its_producer_waits = told.send(());
            }
        }
    }

    fn hand_in(&self, bytes: &[u8], producers: usize) -> oneshot::Receiver<()> {
        let (told, synced) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.0.extend_from_slice(bytes);
        waiting.1.push(told);
        if waiting.1.len() == producers {
            self.is_full.notify_one();
        }
        synced
    }
}

/// Items per second if each of so many producers hands in `size` bytes for an item and waits until they are synced. The
/// thread that writes knows how many producers there are, so that each sync serves them all.
pub(crate) fn with_producers(path: &Path, size: usize, producers: usize, items: usize) -> f64 {
    let file = File::create(path).expect("a file for the bare writes");
    let (desk, runtime, each) = (Arc::new(Desk::default()), super::ours::runtime(), items / producers);
    let serving = Arc::clone(&desk);
    let start = Instant::now();
    let writer = std::thread::spawn(move || serving.serve(file, producers, each));
    runtime.block_on(async {
        let tasks = (0..producers).map(|_| {
            let desk = Arc::clone(&desk);
            tokio::spawn(async move {
                for _ in 0..each {
                    desk.hand_in(&vec![7; size], producers).await.expect("the writer tells everybody");
                }
            })
        });
        let tasks: Vec<_> = tasks.collect();
        join_all(tasks).await.into_iter().for_each(|task| task.expect("no task panics"));
    });
    let took = start.elapsed();
    writer.join().expect("the writer ends after its last round");
    fs::remove_file(path).expect("the file of the bare writes");
    items as f64 / took.as_secs_f64()
}
