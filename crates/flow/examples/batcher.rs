//! Texts come in one by one and are embedded together: up to 32 at once, and none waits for more than 100 ms.
//!
//! ```text
//! cargo run --package tidegate-flow --example batcher
//! ```

use std::time::Duration;

use flow::{Batch, Batcher, Classed};
use futures::{StreamExt, stream};

/// Something that is much cheaper for many texts at once. It chokes on a whole batch if one text in it is bad.
async fn embed(texts: Vec<String>) -> Result<Vec<Result<usize, Classed>>, Classed> {
    if texts.iter().any(|text| text.contains('\0')) {
        return Err(Classed::permanent("there is a zero in a text"));
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    Ok(texts.iter().map(|text| Ok(text.len())).collect())
}

#[tokio::main]
async fn main() {
    let rules = Batch::up_to(32)
        .within(Duration::from_millis(100))
        // No batch has more than 2,000 bytes, and only texts of similar length go together.
        .cost(2_000, |text: &String| text.len() as u64)
        .buckets([20, 200], |text: &String| text.len() as u64)
        // A batch that fails is halved until the text is found that made it fail.
        .bisect();
    let batcher = Batcher::new(rules, embed);

    // One text: nobody else is there, so it does not wait.
    if let Ok(length) = batcher.submit("a first text".to_owned()).await {
        println!("the first text has {length} bytes");
    }

    // Many: while one batch is served, the next one gathers.
    let texts =
        stream::iter(0..500).map(|n| if n == 321 { "bad \0".to_owned() } else { format!("text number {n}") });
    let mut failures = Vec::new();
    let mut outcomes = std::pin::pin!(batcher.process(texts).enumerate());
    while let Some((n, outcome)) = outcomes.next().await {
        if let Err(failure) = outcome {
            failures.push(format!("text {n}: {failure}"));
        }
    }
    let stats = batcher.stats();
    println!("{} texts, of which failed: {}", stats.items, failures.join(", "));
    println!("batches were fewer than a quarter of that: {}", stats.batches < stats.items / 4);

    // The end: nothing more is taken, and what is inside is served, but for no longer than a second.
    let drained = batcher.drain(Duration::from_secs(1)).await;
    println!("cut short: {}", drained.cut);
}
