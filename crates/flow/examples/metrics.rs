//! Measuring work: how long it takes and how often it fails, as data for the program and as a page for Prometheus.

use std::time::Duration;

use flow::metrics::System;
use flow::{Capacity, Metrics, Queue, Ticket};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::time::sleep;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A set of measurements is cheap to clone: every part of a program may have one.
    let metrics = Metrics::new();

    // A guard measures from here to where it is dropped, however the scope is left.
    for page in 0..20 {
        let timing = metrics.track("parse a page");
        sleep(Duration::from_millis(1 + page % 4)).await;
        if page == 13 {
            timing.fail();
        }
    }

    // Work of microseconds looks its name up once.
    let lookups = metrics.tracked("look up a word");
    let words = metrics.counter("words");
    for word in 0..10_000_u64 {
        let _timing = lookups.start();
        words.add(std::hint::black_box(word) % 2);
    }
    metrics.gauge("open documents").set(3);

    // What the parts of this crate count themselves is shown beside it, by name.
    let queue = Queue::new(Capacity::items(100));
    metrics.watch("letters", queue.clone());
    queue.put("Dear Bob", Ticket::of("alice")).await?;

    // As data: percentiles are off by at most 1/64 of themselves.
    let snapshot = metrics.snapshot();
    for (name, track) in &snapshot.tracks {
        let (median, p99) = (track.latency.quantile(0.5), track.latency.quantile(0.99));
        println!(
            "{name}: {} times, median {median:?}, p99 {p99:?}, {} failed",
            track.latency.count(),
            track.failed
        );
    }
    println!("words: {}, open documents: {}", snapshot.counters["words"], snapshot.gauges["open documents"]);

    println!("letters that wait: {}", snapshot.queues["letters"].depth);

    // What the system says of this process.
    let (process, memory) = (System::here().process(), System::here().memory());
    println!("this process: {:?} bytes in use, {:?} left", process.resident_bytes, memory.room());

    // For Prometheus: the set and the system join any registry, beside what the program has there already.
    let mut registry = Registry::default();
    registry.register_collector(Box::new(metrics));
    registry.register_collector(Box::new(System::here()));
    let mut page = String::new();
    encode(&mut page, &registry)?;
    for line in page.lines().filter(|line| {
        line.contains("_count") || line.contains("queue_depth") || line.contains("failed_total")
    }) {
        println!("{line}");
    }
    Ok(())
}
