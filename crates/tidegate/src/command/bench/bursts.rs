//! Streams that run while bursts of long prompts come: what the one costs the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{join, join_all, try_join_all};
use indicatif::ProgressBar;
use protocol::Inference;
use tokio::time::sleep_until;

use super::measure::{Bursts, Stream};
use super::{Load, SplitMix, arrivals, request};

/// Tokens of a stream's own prompt.
const STREAM_PROMPT: usize = 32;
/// Tokens that a request of a burst writes.
const BURST_OUT: u32 = 8;

/// The bursts of one run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) bursts: usize,
    pub(super) size: usize,
    pub(super) every: Duration,
}

/// Lets the streams begin, sends the bursts, and follows everything to its end.
pub(super) async fn measure(
    inference: &Arc<dyn Inference>,
    (load, plan): (Load, Plan),
    (vocabulary, seed): (u32, u64),
    progress: &ProgressBar,
) -> anyhow::Result<Bursts> {
    let first = 300.min(vocabulary / 2);
    let mut random = SplitMix(seed);
    let mut prompt =
        |count: usize| -> Vec<u32> { (0..count).map(|_| first + random.below(vocabulary - first)).collect() };
    let streams: Vec<Vec<u32>> = (0..load.concurrency).map(|_| prompt(STREAM_PROMPT)).collect();
    let readers: Vec<Vec<u32>> = (0..plan.bursts * plan.size).map(|_| prompt(load.prompt)).collect();
    let start = Instant::now();
    let streams = streams.into_iter().enumerate().map(|(index, tokens)| async move {
        let generation = inference.generate(request(index, tokens, load.out)).await?;
        arrivals(generation, start, progress).await
    });
    let readers = readers.into_iter().enumerate().map(|(index, tokens)| async move {
        // The first burst comes when the streams have begun.
        let comes = plan.every * (1 + index / plan.size) as u32;
        sleep_until((start + comes).into()).await;
        let generation = inference.generate(request(1_000_000 + index, tokens, BURST_OUT)).await?;
        let stream = arrivals(generation, start, progress).await?;
        Ok::<_, anyhow::Error>((comes, stream))
    });
    let (streams, readers) = join(try_join_all(streams), join_all(readers)).await;
    let (streams, wall) = (streams?, start.elapsed());
    let readers = readers.into_iter().collect::<anyhow::Result<Vec<(Duration, Stream)>>>()?;
    let read = load.concurrency * STREAM_PROMPT + readers.len() * load.prompt;
    Ok(Bursts { wall, read: read as u64, streams, readers })
}
