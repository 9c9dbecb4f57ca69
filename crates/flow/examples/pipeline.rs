//! A pipeline that reads addresses, asks a service that sometimes fails, and formats what it hears.
//!
//! ```text
//! cargo run --package tidegate-flow --example pipeline
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use flow::{Breaker, BreakerRules, Classed, Failure, Pipeline, Retry, RetryBudget};
use futures::{StreamExt, stream};

/// A service that answers two times of three.
async fn temperature(city: &'static str, calls: &AtomicU32) -> Result<(&'static str, f64), Classed> {
    tokio::time::sleep(Duration::from_millis(2)).await;
    if city.is_empty() {
        // Asking again would not help, so nobody does.
        return Err(Classed::permanent("a city has a name"));
    }
    if calls.fetch_add(1, Ordering::Relaxed) % 3 == 2 {
        return Err(Classed::transient("the service is busy"));
    }
    Ok((city, city.len() as f64 * 1.5))
}

#[tokio::main]
async fn main() {
    let calls = Arc::new(AtomicU32::new(0));
    // Stages follow one another; what comes after a stage is about that stage.
    let pipeline = Pipeline::builder()
        // At most so many items are inside; the source is not read any faster.
        .credits(64)
        .stage("ask", move |city| {
            let calls = calls.clone();
            async move { temperature(city, &calls).await }
        })
        .workers(4)
        .timeout(Duration::from_secs(1))
        // Up to five attempts, with a random wait between them; retries are at most a fifth of the successes and ten
        // per second.
        .retry(
            Retry::exponential(Duration::from_millis(5), Duration::from_millis(50))
                .attempts(5)
                .budget(RetryBudget::ratio(0.2).min_per_sec(10)),
        )
        // Should most calls fail, nobody is called for a while.
        .breaker(Breaker::new(BreakerRules::default().failure_rate(0.9)))
        .stage("format", |(city, degrees)| async move {
            assert_ne!(city, "Atlantis", "no such place");
            Ok::<_, Classed>(format!("{city}: {degrees:.1} °C"))
        })
        .build();

    // One item: the future is the item. Dropping it would cancel it.
    match pipeline.submit("Oslo").await {
        Ok(line) => println!("{line}"),
        Err(failure) => println!("{failure}"),
    }

    // A whole stream, each item with a second of time, in order. An error and a panic are of their item alone.
    let cities = stream::iter(["Lima", "", "Kyoto", "Atlantis", "Nairobi"]);
    let mut outcomes = pipeline.run(cities).within(Duration::from_secs(1)).ordered();
    let mut failures = 0;
    while let Some(outcome) = outcomes.next().await {
        match outcome {
            Ok(line) => println!("{line}"),
            Err(failure @ (Failure::Failed { .. } | Failure::Panicked { .. })) => {
                failures += 1;
                println!("({failure})");
            }
            Err(other) => println!("({other})"),
        }
    }

    // Shut down: what is inside may end, and nothing is lost silently.
    let drained = pipeline.drain(Duration::from_secs(1)).await;
    let stats = pipeline.stats();
    let retries: u64 = stats.stages.iter().map(|stage| stage.retries).sum();
    println!(
        "{} items came in: {} came out, {failures} failed, {} were cut; {retries} calls were made again",
        stats.accepted, stats.completed, drained.cut
    );
}
