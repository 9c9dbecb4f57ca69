//! The process that is killed: producers and consumers on one durable queue, who say what they were told.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use flow::queue::Queue;
use flow::queue::store::{DiskOptions, DiskStore, Entry, Facts, KeyWindow, Store, StoreError};
use flow::{Capacity, Random, Ticket};

/// Says which part this program plays; not set where it is the test.
pub(crate) const CHILD: &str = "FLOW_STORE_CHILD";

/// Small files, so that the log rolls, is compacted and loses segments all the time.
pub(crate) const OPTIONS: DiskOptions = DiskOptions {
    segment_bytes: 16 << 10,
    waiting_bytes: 1 << 20,
    reserve_bytes: 8 << 10,
    keys: KeyWindow { age: Duration::from_secs(3600), count: 100 },
};

const PRODUCERS: u64 = 4;
const CONSUMERS: u64 = 3;

/// Plays the part until somebody ends the process.
pub(crate) fn play(part: &str) {
    // The test harness has begun a line.
    println!();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    match part.split(' ').collect::<Vec<_>>()[..] {
        ["work", life, folder] => runtime.block_on(work(life.parse().unwrap(), Path::new(folder))),
        ["fill", folder] => runtime.block_on(fill(Path::new(folder))),
        _ => panic!("{part}"),
    }
}

/// One line in one write, so that a kill leaves whole lines only.
fn say(words: std::fmt::Arguments<'_>) {
    let line = format!("> {words}\n");
    let mut output = std::io::stdout().lock();
    output.write_all(line.as_bytes()).and_then(|()| output.flush()).unwrap();
}

/// An item that says its number, and from which it can be seen whether it is whole.
fn item(number: u64) -> Vec<u8> {
    let mut random = Random::seeded(number);
    let length = random.below(700);
    number.to_le_bytes().into_iter().chain((0..length).map(|_| random.bits() as u8)).collect()
}

fn number(bytes: &[u8]) -> u64 {
    let number = u64::from_le_bytes(*bytes.first_chunk().unwrap());
    assert_eq!(bytes, item(number), "a corrupt item");
    number
}

async fn work(life: u64, folder: &Path) {
    let (store, recovered) = DiskStore::open(folder, OPTIONS).unwrap();
    assert_eq!(recovered.damage, [""; 0]);
    recovered.items.iter().for_each(|item| say(format_args!("found {}", number(&item.item))));
    let queue = Queue::<Vec<u8>>::builder(Capacity::items(60)).open(Arc::new(store), recovered).unwrap();
    say(format_args!("ready"));
    let mut tasks = Vec::new();
    for producer in 0..PRODUCERS {
        let queue = queue.clone();
        tasks.push(tokio::spawn(async move {
            for serial in 0.. {
                let number = (life * 1_000_000 + serial) * PRODUCERS + producer;
                say(format_args!("putting {number}"));
                let ticket = Ticket::of("producer").key(number.to_string());
                queue.put(item(number), ticket).await.unwrap();
                say(format_args!("put {number}"));
            }
        }));
    }
    for consumer in 0..CONSUMERS {
        let queue = queue.clone();
        tasks.push(tokio::spawn(async move {
            let mut random = Random::seeded(life * CONSUMERS + consumer);
            while let Some(lease) = queue.take().await {
                let number = number(&lease);
                say(format_args!("taken {number}"));
                if random.below(4) > 0 {
                    say(format_args!("acking {number}"));
                    lease.ack().await.unwrap();
                    say(format_args!("acked {number}"));
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

/// Puts items until there is no room, and goes on when somebody says that there is.
async fn fill(folder: &Path) {
    let (store, _) = DiskStore::open(folder, DiskOptions { segment_bytes: 1 << 20, ..OPTIONS }).unwrap();
    let facts = Facts {
        owner: Arc::from("producer"),
        level: 0,
        cost: 1,
        accepted: SystemTime::now(),
        deadline: None,
        key: None,
    };
    for id in 0..u64::MAX {
        let entry = Entry::Accepted { id: id.into(), facts: &facts, item: &[7; 1024] };
        let position = store.note(entry).unwrap();
        match store.settled(position).await {
            Ok(()) => say(format_args!("P {id}")),
            Err(error @ StoreError::Full { .. }) => {
                say(format_args!("full: {error}"));
                std::io::stdin().read_line(&mut String::new()).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
}
