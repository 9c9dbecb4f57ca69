//! The batcher beside what people write by hand, and what waiting for a fuller batch costs and brings.

mod measure;

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::Duration;

use flow::batcher::{BatcherStats, WhenIdle};
use flow::{Batch, Batcher, Classed};
use futures::{StreamExt, stream};
use measure::{Better, Contender, bar, compare, time};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};

const ITEMS: u64 = 200_000;
const SIZE: usize = 32;
const AHEAD: usize = 1024;

fn main() {
    throughput();
    waiting();
}

/// What a batch does with an item: next to nothing, so that what is measured is the way there and back.
fn served(item: u64) -> u64 {
    black_box(item ^ 0x9e37).wrapping_add(1)
}

fn batcher(rules: Batch<u64>) -> Batcher<u64, u64, Classed> {
    Batcher::new(rules, |items: Vec<u64>| async move {
        Ok(items.into_iter().map(|item| Ok(served(item))).collect())
    })
}

/// A task that takes what is there from a channel, up to a batch, and answers each item: no delay, no deadlines, no
/// isolation of failures.
async fn by_hand() -> usize {
    let (sender, mut receiver) = mpsc::channel::<(u64, oneshot::Sender<u64>)>(AHEAD);
    tokio::spawn(async move {
        let mut batch = Vec::with_capacity(SIZE);
        while receiver.recv_many(&mut batch, SIZE).await > 0 {
            for (item, reply) in batch.drain(..) {
                // Whoever asked may have gone away.
                let _ = reply.send(served(item));
            }
        }
    });
    let ask = |item| {
        let sender = sender.clone();
        async move {
            let (reply, answer) = oneshot::channel();
            sender.send((item, reply)).await.ok()?;
            answer.await.ok()
        }
    };
    stream::iter(0..ITEMS)
        .map(ask)
        .buffered(AHEAD)
        .filter(|out| std::future::ready(out.is_some()))
        .count()
        .await
}

fn throughput() {
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let runtime: Runtime =
        Builder::new_multi_thread().worker_threads(threads).enable_time().build().expect("a runtime starts");
    let ours = batcher(Batch::up_to(SIZE).capacity(AHEAD));
    let per_second = |took: Duration| ITEMS as f64 / took.as_secs_f64();
    let outcomes = compare(
        "items in batches of up to 32, each with its own answer, 1,024 under way",
        "items/s",
        vec![
            Contender::new("Batcher::process", || {
                let count = ours.process(stream::iter(0..ITEMS)).count();
                per_second(time(|| assert_eq!(runtime.block_on(count), ITEMS as usize)))
            }),
            Contender::new("mpsc recv_many and oneshots, by hand", || {
                per_second(time(|| assert_eq!(runtime.block_on(by_hand()), ITEMS as usize)))
            }),
        ],
    );
    bar(&outcomes, "Batcher::process", "mpsc recv_many and oneshots, by hand", 0.5, Better::Higher);
}

/// Items come at an even pace to an executor that is idle nearly always; time is virtual, so the figures are exact.
fn paced(when_idle: WhenIdle, gap: Duration) -> BatcherStats {
    let runtime =
        Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime starts");
    runtime.block_on(async {
        let batcher = batcher(Batch::up_to(SIZE).within(Duration::from_millis(100)).when_idle(when_idle));
        let mut items = Vec::new();
        for item in 0..4_000 {
            items.push(tokio::spawn(batcher.submit(item)));
            tokio::time::sleep(gap).await;
        }
        for item in items {
            item.await.expect("a task ends").expect("an item is served");
        }
        batcher.stats()
    })
}

fn waiting() {
    println!(
        "\nbatches of up to 32 within 100 ms while an executor is idle, in virtual time: items a batch, wait p50 and p99"
    );
    for millis in [1, 2, 3, 5, 20, 100] {
        for when_idle in [WhenIdle::Leave, WhenIdle::Adapt, WhenIdle::Wait] {
            let stats = paced(when_idle, Duration::from_millis(millis));
            let size = stats.items as f64 / stats.batches as f64;
            let (median, late) = (stats.waits.quantile(0.5), stats.waits.quantile(0.99));
            println!(
                "  an item every {millis:>3} ms, {when_idle:?}: {size:.1} items, {median:.1?} and {late:.1?}"
            );
        }
    }
}
