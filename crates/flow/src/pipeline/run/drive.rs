//! One driver of a run: reads chunks, starts their items, and brings home what is done.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{Fuse, FusedFuture};
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{FutureExt, StreamExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::{Arrival, Exchange};
use crate::pipeline::chain::{Journey, Step};
use crate::pipeline::failure::Failure;
use crate::pipeline::road::{Entry, Gate, Road};

/// A chunk that took less than this may be twice as large the next time.
const SHORT: Duration = Duration::from_micros(50);
/// A chunk that took more than this should be half as large: its outcomes wait for one another, and no other driver
/// can help with them.
const LONG: Duration = Duration::from_micros(200);
const LARGEST_CHUNK: usize = 256;

/// Items just read, and a credit for each.
struct Chunk<In> {
    items: Vec<In>,
    first: u64,
    credits: OwnedSemaphorePermit,
}

/// What a driver goes on with.
enum Next<In> {
    Start(Chunk<In>),
    /// Outcomes wait to be brought home.
    Bring,
    /// Nothing more is to be read, and nothing is under way.
    Stop,
}

/// Drives until the source has ended and all that this driver has read from it is done.
pub(in crate::pipeline) async fn drive<In, S>(road: Arc<Road<S>>, exchange: Arc<Exchange<In, S::Out>>)
where
    In: Send + 'static,
    S: Step<In>,
{
    let (road, exchange) = (&*road, &*exchange);
    let mut under_way = FuturesUnordered::new();
    let mut vacant = Box::pin(Fuse::terminated());

    let (mut done, mut chunk_size) = (Vec::new(), 1);
    let mut reading = Box::pin(read(&road.gate, exchange, chunk_size).fuse());
    loop {
        match poll_fn(|cx| next(&mut under_way, &mut done, reading.as_mut(), cx)).await {
            Next::Stop => return,
            Next::Bring => exchange.home.bring(&mut done),
            Next::Start(mut chunk) => {
                let began = Instant::now();
                let (mut at, mut completed) = (began, 0);
                let deadline = exchange.within.and_then(|time| began.checked_add(time));
                for (index, item) in (chunk.first..).zip(std::mem::take(&mut chunk.items)) {
                    vacant.set(road.carry(item, Journey::new(deadline), at).fuse());
                    match poll_fn(|cx| Poll::Ready(vacant.as_mut().poll(cx))).await {
                        Poll::Ready((outcome, left)) => {
                            match &outcome {
                                Ok(_) => completed += 1,
                                Err(_) => road.gate.tally.settle(&outcome),
                            }
                            done.push(Arrival { index, outcome });
                            at = left.unwrap_or_else(Instant::now);
                        }
                        Poll::Pending => {
                            at = Instant::now();
                            let future = std::mem::replace(&mut vacant, Box::pin(Fuse::terminated()));
                            let entry = Entry::open(&road.gate.tally);
                            under_way.push(Flight { index, entry, _credit: chunk.credits.split(1), future });
                        }
                    }
                }
                road.gate.tally.completed.fetch_add(completed, Relaxed);
                drop(chunk);
                exchange.home.bring(&mut done);
                chunk_size = resized(chunk_size, at - began).min(exchange.largest_chunk);
                reading = Box::pin(read(&road.gate, exchange, chunk_size).fuse());
                tokio::task::consume_budget().await;
            }
        }
    }
}

/// Whatever can go on: first all that is done, then more to start.
fn next<In, Out, F, R>(
    under_way: &mut FuturesUnordered<Flight<'_, F>>,
    done: &mut Vec<Arrival<Out>>,
    mut reading: Pin<&mut Fuse<R>>,
    cx: &mut Context<'_>,
) -> Poll<Next<In>>
where
    F: Future<Output = (Result<Out, Box<Failure>>, Option<Instant>)>,
    R: Future<Output = Option<Chunk<In>>>,
{
    while done.len() < LARGEST_CHUNK
        && let Poll::Ready(Some(arrival)) = under_way.poll_next_unpin(cx)
    {
        done.push(arrival);
    }
    if let Poll::Ready(Some(chunk)) = reading.as_mut().poll(cx) {
        Poll::Ready(Next::Start(chunk))
    } else if !done.is_empty() {
        Poll::Ready(Next::Bring)
    } else if reading.is_terminated() && under_way.is_empty() {
        Poll::Ready(Next::Stop)
    } else {
        Poll::Pending
    }
}

fn resized(chunk: usize, took: Duration) -> usize {
    if took < SHORT {
        (chunk * 2).min(LARGEST_CHUNK)
    } else if took > LONG {
        (chunk / 2).max(1)
    } else {
        chunk
    }
}

/// An item that has to wait somewhere on its way.
struct Flight<'a, F> {
    index: u64,
    entry: Entry<'a>,
    _credit: Option<OwnedSemaphorePermit>,
    future: Pin<Box<F>>,
}

impl<Out, F> Future for Flight<'_, F>
where
    F: Future<Output = (Result<Out, Box<Failure>>, Option<Instant>)>,
{
    type Output = Arrival<Out>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Arrival<Out>> {
        self.future.as_mut().poll(cx).map(|(outcome, _)| {
            self.entry.settle(&outcome);
            Arrival { index: self.index, outcome }
        })
    }
}

/// The next items, at most so many; `None` once there are no more.
///
/// The first of them is waited for, then its credit; more come only if items and credits are there at once. So a
/// source that pauses holds back no credit from others, and at most one item is ever read without one.
async fn read<In, Out>(gate: &Gate, exchange: &Exchange<In, Out>, most: usize) -> Option<Chunk<In>> {
    let mut source = exchange.source.lock().await;
    let mut stream = source.stream.take()?;
    exchange.window.acquire().await.ok()?.forget();
    let item = stream.next().await?;
    let (mut items, first) = (Vec::with_capacity(most), source.next);
    items.push(item);
    let mut credits = match gate.credit().await {
        Ok(credit) => credit,
        Err(refused) => {
            exchange.home.bring(&mut vec![Arrival { index: first, outcome: Err(Box::new(refused)) }]);
            return None;
        }
    };
    let more = (most - 1).min(exchange.window.available_permits()).min(gate.credits.available_permits());
    if let Ok(further) = gate.credits.clone().try_acquire_many_owned(more as u32)
        && let Ok(window) = exchange.window.try_acquire_many(more as u32)
    {
        window.forget();
        credits.merge(further);
        fill(&mut stream, &mut items, more + 1).await;
        let unused = more + 1 - items.len();
        exchange.window.add_permits(unused);
        drop(credits.split(unused));
    }
    source.stream = Some(stream);
    source.next += items.len() as u64;
    gate.tally.accepted.fetch_add(items.len() as u64, Relaxed);
    Some(Chunk { items, first, credits })
}

/// Adds what the stream has ready, up to so many in all.
async fn fill<In>(stream: &mut BoxStream<'static, In>, items: &mut Vec<In>, most: usize) {
    poll_fn(|cx| {
        while items.len() < most
            && let Poll::Ready(Some(item)) = stream.as_mut().poll_next(cx)
        {
            items.push(item);
        }
        Poll::Ready(())
    })
    .await;
}
