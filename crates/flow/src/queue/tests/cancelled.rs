//! Futures dropped after every poll, before and after what they wait for has happened: nothing is lost or held, and
//! whoever waits behind is woken.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};

use super::durable::{keyed, open};
use super::*;
use crate::queue::store::{MemoryStore, Recovered};

type Boxed<'a, R> = Pin<Box<dyn Future<Output = R> + 'a>>;

/// Counts how often it was woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// A future that is polled when the test says so, and whether it was woken since.
struct Watched<'a, R> {
    future: Boxed<'a, R>,
    woken: Arc<Count>,
}

impl<'a, R> Watched<'a, R> {
    fn new(future: impl Future<Output = R> + 'a) -> Self {
        Self { future: Box::pin(future), woken: Arc::default() }
    }

    fn poll(&mut self) -> Option<R> {
        self.woken.0.store(0, Relaxed);
        let waker = Waker::from(Arc::clone(&self.woken));
        match self.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    fn is_woken(&self) -> bool {
        self.woken.0.load(Relaxed) > 0
    }
}

/// Every way of dropping a future after up to so many polls, each followed by an event, the last one perhaps not.
fn ways(polls: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..=polls).flat_map(|polls| (polls.saturating_sub(1)..=polls).map(move |events| (polls, events)))
}

/// Polls a future so many times, lets an event happen after each poll, and drops it.
fn drop_after<R>(
    mut watched: Watched<'_, R>,
    (polls, events): (usize, usize),
    mut event: impl FnMut(),
) -> Option<R> {
    for poll in 0..polls {
        let output = watched.poll();
        if poll < events {
            event();
        }
        if output.is_some() {
            return output;
        }
    }
    None
}

/// A putter before a full queue is dropped; another one waits behind it.
async fn check_putting<'a>(capacity: usize, put: impl for<'q> Fn(&'q Queue<u32>) -> Boxed<'q, ()>) {
    for way in ways(4) {
        let queue = Queue::builder(Capacity::items(capacity)).policy(fifo()).build();
        for item in 0..capacity as u32 {
            queue.try_put(item, Ticket::default()).unwrap();
        }
        let mut fickle = Watched::new(put(&queue));
        if way.0 > 0 {
            fickle.poll();
        }
        let mut patient = Watched::new(queue.put(77, Ticket::default()));
        assert!(patient.poll().is_none());
        let mut popped = Vec::new();
        drop_after(fickle, way, || popped.extend(queue.try_pop().map(|taken| taken.item)));
        while let Some(taken) = queue.try_pop() {
            popped.push(taken.item);
        }
        assert!(patient.is_woken() && patient.poll().is_some(), "{way:?}: the next putter was left waiting");
        popped.extend(queue.try_pop().map(|taken| taken.item));
        let accepted = queue.stats().totals.accepted;
        assert_eq!(popped.len() as u64, accepted, "{way:?}");
        assert_eq!(popped.iter().filter(|item| **item == 77).count(), 1, "{way:?}");
        assert!(popped.is_sorted() || popped.last() == Some(&77), "{way:?}: {popped:?}");
        drop(patient);
        assert_at_rest(&queue);
    }
}

#[tokio::test(start_paused = true)]
async fn putters() {
    for capacity in [1, 2] {
        check_putting(capacity, |queue| Box::pin(async { drop(queue.put(10, Ticket::default()).await) }))
            .await;
        check_putting(capacity, |queue| {
            Box::pin(async { drop(queue.put_timeout(10, Ticket::default(), ms(1000)).await) })
        })
        .await;
        check_putting(capacity, |queue| {
            let items = (10..13).map(|item| (item, Ticket::default()));
            Box::pin(async { drop(queue.put_many(items).await) })
        })
        .await;
    }
}

/// A taker before an empty queue is dropped; another one waits behind it.
async fn check_taking<R>(take: impl for<'q> Fn(&'q Queue<u32>) -> Boxed<'q, R>) {
    for way in ways(3) {
        let queue = Queue::builder(Capacity::items(9)).policy(fifo()).build();
        let mut fickle = Watched::new(take(&queue));
        if way.0 > 0 {
            fickle.poll();
        }
        let mut patient = Watched::new(queue.pop());
        assert!(patient.poll().is_none());
        let mut item = 0;
        let took = drop_after(fickle, way, || {
            item += 1;
            queue.try_put(item, Ticket::default()).unwrap();
        });
        drop(took);
        if queue.is_empty() {
            queue.try_put(99, Ticket::default()).unwrap();
        }
        assert!(patient.is_woken(), "{way:?}: an item is there and nobody was called");
        assert!(patient.poll().is_some(), "{way:?}");
        while queue.try_pop().is_some() {}
        let totals = queue.stats().totals;
        assert_eq!(totals.done, totals.accepted, "{way:?}");
        drop(patient);
        assert_at_rest(&queue);
    }
}

#[tokio::test(start_paused = true)]
async fn takers() {
    check_taking(|queue| Box::pin(queue.take())).await;
    check_taking(|queue| Box::pin(queue.pop())).await;
    check_taking(|queue| Box::pin(queue.take_many(2))).await;
    check_taking(|queue| Box::pin(queue.pop_many(UpTo::items(2).wait(ms(1000))))).await;
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_their_rate() {
    for way in ways(3) {
        let queue = Queue::builder(Capacity::items(9)).owner_rate(Rate::new(times(1), ms(10))).build();
        let put = || queue.put(1, Ticket::of("owner"));
        put().await.unwrap();
        let mut fickle = Watched::new(put());
        if way.0 > 0 {
            fickle.poll();
        }
        let patient = tokio::spawn({
            let queue = queue.clone();
            async move { queue.put(2, Ticket::of("owner")).await.unwrap() }
        });
        let_others_run().await;
        drop_after(fickle, way, || drop(queue.stats()));
        let start = queue.now();
        patient.await.unwrap();
        assert!(queue.now() - start <= ms(20), "{way:?}");
        queue.drain(ms(0)).await;
        assert_at_rest(&queue);
    }
}

#[tokio::test(start_paused = true)]
async fn drains() {
    for way in ways(3) {
        let queue = Queue::builder(Capacity::items(9)).build();
        for item in 0..3 {
            queue.try_put(item, Ticket::default()).unwrap();
        }
        let left = drop_after(Watched::new(queue.drain(ms(1000))), way, || drop(queue.try_take()));
        assert!(left.is_none());
        assert_eq!(queue.len(), 3, "{way:?}: a dropped lease gives back, a dropped drain takes nothing");
        assert_eq!(queue.is_closed(), way.0 > 0);
    }
}

/// A durable queue with one item in the line, two dead letters, and one out.
async fn stocked() -> (MemoryStore, Queue<String>, Lease<String>) {
    let store = MemoryStore::held();
    let queue = open(&store, Recovered::default());
    let settle = |store: MemoryStore| async move {
        let_others_run().await;
        store.settle();
    };
    for name in ["dead", "dead too", "out", "waits"] {
        let (put, ()) = tokio::join!(queue.put(name.to_owned(), keyed(name)), settle(store.clone()));
        put.unwrap();
    }
    for _ in 0..2 {
        let lease = queue.take().await.unwrap();
        let (dead, ()) = tokio::join!(lease.dead_letter("poison"), settle(store.clone()));
        dead.unwrap();
    }
    let lease = queue.take().await.unwrap();
    (store, queue, lease)
}

/// Something said through a lease or of the dead letters is dropped after every poll, before and after the disk has it.
/// Then the queue and its store agree on what is there, nothing is held, and all that is there can be served.
async fn check_saying(say: impl for<'q> Fn(&'q Queue<String>, Lease<String>) -> Boxed<'q, ()>) {
    for way in ways(3) {
        let (store, queue, lease) = stocked().await;
        drop_after(Watched::new(say(&queue, lease)), way, || store.settle());
        store.settle();
        let_others_run().await;
        let stats = queue.stats();
        let there = stats.depth + stats.dead_letters;
        assert_eq!((stats.in_flight, store.survivors().items.len()), (0, there), "{way:?}: {stats:?}");
        let (_, recovered) = store.crash();
        let dead = recovered.items.iter().filter(|item| item.dead.is_some()).count();
        assert_eq!(dead, stats.dead_letters, "{way:?}");
        let mut served = 0;
        advance(ms(100)).await;
        while let Some(taken) = queue.try_pop() {
            drop(taken);
            served += 1;
        }
        assert_eq!(served, stats.depth, "{way:?}");
        assert_at_rest(&queue);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_said_through_a_lease() {
    check_saying(|_, lease| Box::pin(async { drop(lease.ack().await) })).await;
    check_saying(|_, lease| Box::pin(async { drop(lease.nack(ms(0)).await) })).await;
    check_saying(|_, lease| Box::pin(async { drop(lease.nack(ms(50)).await) })).await;
    check_saying(|_, lease| Box::pin(async { drop(lease.dead_letter("verdict").await) })).await;
    check_saying(|_, lease| {
        Box::pin(async move {
            lease.extend(ms(1000)).unwrap();
            lease.with_heartbeat(tokio::task::yield_now()).await.unwrap();
            drop(lease.ack().await);
        })
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_said_of_the_dead() {
    check_saying(|queue, lease| {
        drop(lease);
        let first = queue.dead_letters().list(DeadLetter::id)[0];
        Box::pin(async move { drop(queue.dead_letters().retry(first).await) })
    })
    .await;
    check_saying(|queue, lease| {
        drop(lease);
        Box::pin(async { drop(queue.dead_letters().retry_where(|letter| letter.item == "dead too").await) })
    })
    .await;
    check_saying(|queue, _lease| Box::pin(async { drop(queue.dead_letters().retry_all().await) })).await;
    check_saying(|queue, lease| {
        drop(lease);
        Box::pin(async { drop(queue.dead_letters().purge_where(|letter| letter.item == "dead").await) })
    })
    .await;
    check_saying(|queue, _lease| Box::pin(async { drop(queue.dead_letters().purge_all().await) })).await;
}
