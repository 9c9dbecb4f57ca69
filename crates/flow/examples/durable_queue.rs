//! A queue that outlives its process: fair between tenants, limited in rate, with a list of what nobody could serve.
//!
//! Run with `cargo run -p tidegate-flow --example durable_queue`.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use flow::queue::policy::Discipline;
use flow::queue::store::{DiskOptions, DiskStore};
use flow::queue::{Json, Queue, Rate};
use flow::{Capacity, Ticket};
use serde::{Deserialize, Serialize};

/// An item of one's own type needs no more than this to be kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Letter {
    text: String,
}

fn letter(text: impl Into<String>) -> Json<Letter> {
    Json(Letter { text: text.into() })
}

/// The queue in ten lines. Every accepted item is on the disk before `put` returns.
fn open(folder: &Path) -> Result<Queue<Json<Letter>>, Box<dyn Error>> {
    let (store, recovered) = DiskStore::open(folder, DiskOptions::default())?;
    recovered.damage.iter().for_each(|line| eprintln!("damaged: {line}"));
    Ok(Queue::builder(Capacity::items(10_000).bytes(64 << 20))
        .policy("fair_share".parse::<Discipline>()?)
        .rate(Rate::per_second(500_u32.try_into()?).burst(100_u32.try_into()?))
        .lease(Duration::from_secs(30))
        .max_attempts(3_u32.try_into()?)
        .dedupe(100_000_usize.try_into()?, Duration::from_secs(3600))
        .open(Arc::new(store), recovered)?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("tidegate-durable-queue-{}", std::process::id()));

    let queue = open(&folder)?;
    let first = queue.put(letter("alice's letter 1"), Ticket::of("alice").key("a1")).await?;
    for number in 2..=3 {
        queue.put(letter(format!("alice's letter {number}")), Ticket::of("alice")).await?;
    }
    queue.put(letter("bob's only letter"), Ticket::of("bob")).await?;
    queue.put(letter("an unreadable letter"), Ticket::of("mallory")).await?;

    // Taken in turns, so that bob does not wait for all of alice's letters.
    for _ in 0..3 {
        let lease = queue.take().await.ok_or("the queue is open")?;
        println!("serving {}", lease.text);
        if lease.text.starts_with("an unreadable") {
            lease.dead_letter("nobody can read it").await?;
        } else {
            lease.ack().await?;
        }
    }
    // This one is taken, and then the process ends before anybody says that it is done.
    let interrupted = queue.take().await.ok_or("the queue is open")?;
    println!("interrupted at {}", interrupted.text);
    drop((interrupted, queue));

    let queue = open(&folder)?;
    println!("opened again: {} wait, {} dead", queue.len(), queue.dead_letters().len());
    queue.dead_letters().list(|letter| println!("dead: {} ({})", letter.item.text, letter.cause()));
    let again = queue.put(letter("alice's letter 1"), Ticket::of("alice").key("a1")).await?;
    println!("put again under its key, it is {}", if again == first { "known" } else { "new" });
    while let Some(lease) = queue.try_take() {
        println!("serving {} (attempt {})", lease.text, lease.attempt());
        lease.ack().await?;
    }
    drop(queue);
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
