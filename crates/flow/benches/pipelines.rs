//! Pipelines against the plain thing: three tasks with bounded channels between them.

mod measure;

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::Duration;

use flow::{Classed, Pipeline, Retry, RetryBudget};
use futures::{StreamExt, stream};
use measure::{Better, Contender, bar, compare, time};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

const ITEMS: u64 = 300_000;
const BUFFER: usize = 1024;

fn main() {
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    throughput(threads);
    scaling(threads);
}

fn runtime(threads: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(threads).enable_time().build().expect("a runtime starts")
}

/// What each stage does with an item: next to nothing, so that what is measured is the way between stages.
async fn step(x: u64) -> Result<u64, Classed> {
    Ok(black_box(x ^ 0x9e37).wrapping_add(1))
}

fn throughput(threads: usize) {
    let runtime = runtime(threads);
    let per_second = |took: Duration| ITEMS as f64 / took.as_secs_f64();
    let full = Pipeline::builder()
        .credits(BUFFER as u32)
        .stage("first", step)
        .retry(retry())
        .stage("second", step)
        .retry(retry())
        .stage("third", step)
        .retry(retry())
        .build();
    let run = |runtime: &Runtime| {
        time(|| {
            let items = full.run(stream::iter(0..ITEMS)).within(Duration::from_secs(60));
            assert_eq!(
                runtime.block_on(items.filter(|out| std::future::ready(out.is_ok())).count()),
                ITEMS as usize
            );
        })
    };
    let ordered = |runtime: &Runtime| {
        time(|| {
            let items = full.run(stream::iter(0..ITEMS)).within(Duration::from_secs(60)).ordered();
            assert_eq!(runtime.block_on(items.count()), ITEMS as usize);
        })
    };
    let outcomes = compare(
        "three stages, an item at a time",
        "items/s",
        vec![
            Contender::new("plain mpsc", || per_second(time(|| runtime.block_on(plain())))),
            Contender::new("pipeline", || per_second(run(&runtime))),
            Contender::new("pipeline, in order", || per_second(ordered(&runtime))),
            Contender::new("plain mpsc, recv_many", || per_second(time(|| runtime.block_on(in_chunks())))),
        ],
    );
    bar(&outcomes, "pipeline", "plain mpsc", 1.0, Better::Higher);
    let figure =
        outcomes.iter().find(|outcome| outcome.name == "pipeline").map_or(0.0, |found| found.median());
    let verdict = if figure >= 1_000_000.0 { "met" } else { "MISSED" };
    println!("  pipeline with retries, deadlines and metrics; the bar is 1,000,000 items/s: {verdict}");
    let stats = full.stats();
    assert_eq!((stats.in_flight(), stats.stages[2].latency.count()), (0, stats.completed));
}

fn retry() -> Retry {
    let budget = RetryBudget::ratio(0.2).min_per_sec(10);
    Retry::exponential(Duration::from_millis(50), Duration::from_secs(5)).attempts(4).budget(budget)
}

/// Five tasks, four channels.
async fn plain() {
    let (first, mut input) = mpsc::channel(BUFFER);
    tokio::spawn(async move {
        for x in 0..ITEMS {
            if first.send(x).await.is_err() {
                return;
            }
        }
    });
    for _ in 0..3 {
        let (next, output) = mpsc::channel(BUFFER);
        tokio::spawn(async move {
            while let Some(x) = input.recv().await {
                let Ok(x) = step(x).await else { return };
                if next.send(x).await.is_err() {
                    return;
                }
            }
        });
        input = output;
    }
    let mut count = 0;
    while input.recv().await.is_some() {
        count += 1;
    }
    assert_eq!(count, ITEMS);
}

/// The same, but every stage takes what is there at once.
async fn in_chunks() {
    let (first, mut input) = mpsc::channel(BUFFER);
    tokio::spawn(async move {
        for x in 0..ITEMS {
            if first.send(x).await.is_err() {
                return;
            }
        }
    });
    for _ in 0..3 {
        let (next, output) = mpsc::channel(BUFFER);
        tokio::spawn(async move {
            let mut chunk = Vec::with_capacity(64);
            while input.recv_many(&mut chunk, 64).await > 0 {
                for x in chunk.drain(..) {
                    let Ok(x) = step(x).await else { return };
                    if next.send(x).await.is_err() {
                        return;
                    }
                }
            }
        });
        input = output;
    }
    let (mut count, mut chunk) = (0, Vec::with_capacity(64));
    while input.recv_many(&mut chunk, 64).await > 0 {
        count += chunk.drain(..).count() as u64;
    }
    assert_eq!(count, ITEMS);
}

/// A stage that computes, with one worker and with one for each thread.
fn scaling(threads: usize) {
    const CALLS: u64 = 400;
    let runtime = runtime(threads);
    let with = |workers: usize| {
        Pipeline::builder()
            .stage("compute", |x: u64| async move { Ok::<_, Classed>(compute(x)) })
            .workers(workers)
            .build()
    };
    let (one, all) = (with(1), with(threads));
    let rate = |pipeline: &Pipeline<u64, u64>| {
        let took = time(|| {
            assert_eq!(runtime.block_on(pipeline.run(stream::iter(0..CALLS)).count()), CALLS as usize);
        });
        CALLS as f64 / took.as_secs_f64()
    };
    let name = format!("{threads} workers");
    let outcomes = compare(
        "a stage that computes for about half a millisecond",
        "items/s",
        vec![Contender::new("1 worker", || rate(&one)), Contender::new(name.as_str(), || rate(&all))],
    );
    bar(&outcomes, &name, "1 worker", 0.9 * threads as f64, Better::Higher);
}

fn compute(x: u64) -> u64 {
    (0..500_000).fold(x, |sum, step| black_box(sum.wrapping_mul(31).wrapping_add(step)))
}
