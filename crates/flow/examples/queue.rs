//! A print shop with one queue: tenants share it fairly and none may flood it, a printer
//! that jams gives its job back, and a job that nobody can print ends among the dead letters.

use std::num::NonZeroU32;
use std::time::Duration;

use flow::queue::policy::Discipline;
use flow::queue::{LeaseError, Rate};
use flow::{Capacity, Lease, Queue, Ticket};

/// How many times a job is tried, and the burst that every tenant may send at once.
const TRIES: NonZeroU32 = NonZeroU32::new(3).expect("three is not zero");
const BURST: NonZeroU32 = NonZeroU32::new(50).expect("fifty is not zero");

/// Prints what can be printed. The first attempt at a photo always jams.
async fn print(job: Lease<String>, printed: &mut Vec<String>) -> Result<(), LeaseError> {
    if job.contains("corrupt") {
        return job.dead_letter("this file is not a document").await;
    }
    if job.contains("photo") && job.attempt() == 1 {
        return job.nack(Duration::from_millis(5)).await;
    }
    printed.push(job.clone());
    job.ack().await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // At most a hundred jobs wait; each tenant gets its share of the printer by pages, and may send fifty jobs at once
    // and a thousand per second. A printer that dies loses its job after half a minute, to another one.
    let queue: Queue<String> = Queue::builder(Capacity::items(100).cost(10_000))
        .policy("fair_share".parse::<Discipline>()?)
        .owner_rate(Rate::per_second(NonZeroU32::MIN.saturating_add(999)).burst(BURST))
        .lease(Duration::from_secs(30))
        .max_attempts(TRIES)
        .build();

    // One tenant sends twenty jobs before the other sends its two.
    for number in 1..=20 {
        queue.put(format!("bulk {number}"), Ticket::of("bulk").cost(10)).await?;
    }
    queue.put("a photo".to_owned(), Ticket::of("alice").cost(10)).await?;
    queue.put("a letter".to_owned(), Ticket::of("alice").cost(10)).await?;
    queue.put("a corrupt file".to_owned(), Ticket::of("bob").cost(10)).await?;

    // The printer runs until the queue is closed and nothing can come back any more.
    let printer = tokio::spawn({
        let queue = queue.clone();
        async move {
            let mut printed = Vec::new();
            while let Some(job) = queue.take().await {
                print(job, &mut printed).await?;
            }
            Ok::<_, LeaseError>(printed)
        }
    });
    let drained = queue.drain(Duration::from_secs(10)).await;
    let printed = printer.await??;

    let place = |job: &str| printed.iter().position(|other| other == job).map_or(0, |place| place + 1);
    println!(
        "alice's letter was printed as number {} of {}, not after 20 others",
        place("a letter"),
        printed.len()
    );
    println!("her photo jammed once and was number {}", place("a photo"));
    for (job, cause) in queue.dead_letters().list(|letter| (letter.item.clone(), letter.cause().to_string()))
    {
        println!("given up: {job}, because {cause}");
    }
    let totals = queue.stats().totals;
    println!(
        "{} accepted, {} handed out, {} done, {} left",
        totals.accepted,
        totals.taken,
        totals.done,
        drained.left.len()
    );
    Ok(())
}
