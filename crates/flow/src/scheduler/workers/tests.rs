//! Pools whose number of workers changes, in virtual time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::{Source, Staffing, WorkerPool};
use crate::queue::{Capacity, Queue, Ticket};
use crate::random::Random;
use crate::retry::Backoff;
use crate::scheduler::Scaling;

const MS: Duration = Duration::from_millis(1);

/// A source for tests, which counts what it gave out.
#[derive(Clone, Default)]
struct Inbox(Arc<Mutex<Letters>>, Arc<Notify>);

#[derive(Default)]
struct Letters {
    waiting: VecDeque<(Instant, u64)>,
    is_closed: bool,
}

impl Inbox {
    fn put(&self, item: u64) {
        self.0.lock().unwrap().waiting.push_back((Instant::now(), item));
        self.1.notify_one();
    }

    /// The next item, or that there is none and will be none.
    fn next(&self) -> Option<Option<u64>> {
        let mut letters = self.0.lock().unwrap();
        let next = letters.waiting.pop_front().map(|(_, item)| item);
        if !letters.waiting.is_empty() {
            self.1.notify_one();
        }
        (next.is_some() || letters.is_closed).then_some(next)
    }

    fn close(&self) {
        self.0.lock().unwrap().is_closed = true;
        self.1.notify_waiters();
    }
}

impl Source for Inbox {
    type Item = u64;

    async fn take(&self) -> Option<u64> {
        loop {
            let told = self.1.notified();
            if let Some(next) = self.next() {
                return next;
            }
            told.await;
        }
    }

    fn delay(&self) -> Duration {
        self.0.lock().unwrap().waiting.front().map_or(Duration::ZERO, |(since, _)| since.elapsed())
    }
}

/// What was done, and how many at once at most.
#[derive(Clone, Default)]
struct Done {
    items: Arc<Mutex<Vec<u64>>>,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Done {
    fn work(&self, takes: Duration) -> impl Fn(u64) -> futures::future::BoxFuture<'static, ()> + use<> {
        let done = self.clone();
        move |item| {
            let done = done.clone();
            Box::pin(async move {
                done.most.fetch_max(done.now.fetch_add(1, Relaxed) + 1, Relaxed);
                sleep(takes).await;
                done.now.fetch_sub(1, Relaxed);
                done.items.lock().unwrap().push(item);
            })
        }
    }

    fn sorted(&self) -> Vec<u64> {
        let mut items = self.items.lock().unwrap().clone();
        items.sort_unstable();
        items
    }
}

#[tokio::test(start_paused = true)]
async fn workers_share_the_items() {
    let (inbox, done) = (Inbox::default(), Done::default());
    (0..12).for_each(|item| inbox.put(item));
    inbox.close();
    let begun = Instant::now();
    let pool = WorkerPool::start(inbox, Staffing::workers(3..=3), done.work(10 * MS));
    pool.join().await;
    assert_eq!((begun.elapsed(), done.most.load(Relaxed)), (40 * MS, 3));
    assert_eq!(done.sorted(), (0..12).collect::<Vec<_>>());
    let status = pool.status();
    assert_eq!((status.workers, status.busy, status.done, status.durations.max()), (0, 0, 12, 10 * MS));
}

#[tokio::test(start_paused = true)]
async fn whoever_is_dismissed_ends_its_item_first() {
    let (inbox, done) = (Inbox::default(), Done::default());
    (0..100).for_each(|item| inbox.put(item));
    let pool = WorkerPool::start(inbox, Staffing::workers(1..=16), done.work(10 * MS));
    sleep(5 * MS).await;
    assert_eq!((pool.status().wanted, pool.status().busy), (1, 1));
    pool.set_workers(8);
    sleep(MS).await;
    assert_eq!(pool.status().busy, 8);
    pool.set_workers(2);
    sleep(MS).await;
    let status = pool.status();
    assert_eq!((status.wanted, status.workers, status.busy), (2, 8, 8));
    sleep(10 * MS).await;
    assert_eq!((pool.status().workers, pool.status().busy, pool.status().done), (2, 2, 8));
    pool.set_workers(99);
    sleep(MS).await;
    assert_eq!(pool.status().busy, 16);
    pool.stop().await;
    let items = done.sorted();
    assert!(items.len() >= 24 && done.now.load(Relaxed) == 0, "{}", items.len());
    assert_eq!(items, (0..items.len() as u64).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_seat_that_is_wanted_again_is_kept() {
    let (inbox, done) = (Inbox::default(), Done::default());
    (0..40).for_each(|item| inbox.put(item));
    let pool = WorkerPool::start(inbox, Staffing::workers(1..=4), done.work(10 * MS));
    for workers in [4, 1, 4, 2, 3, 4] {
        pool.set_workers(workers);
        sleep(MS).await;
    }
    assert_eq!((pool.status().workers, pool.status().busy), (4, 4));
    sleep(100 * MS).await;
    assert_eq!((done.sorted().len(), done.most.load(Relaxed)), (40, 4));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_however_often_the_number_changes() {
    for seed in 0..50 {
        let mut random = Random::seeded(seed);
        let (inbox, done) = (Inbox::default(), Done::default());
        let pool = WorkerPool::start(inbox.clone(), Staffing::workers(1..=8), done.work(3 * MS));
        for item in 0..200 {
            inbox.put(item);
            if random.below(3) == 0 {
                pool.set_workers(1 + random.below(8) as usize);
            }
            if random.below(2) == 0 {
                sleep(MS).await;
            }
        }
        inbox.close();
        pool.join().await;
        assert_eq!(done.sorted(), (0..200).collect::<Vec<_>>(), "seed {seed}");
        assert!(done.most.load(Relaxed) <= 8 && pool.status().done == 200);
    }
}

#[tokio::test(start_paused = true)]
async fn an_item_that_panics_ends_neither_worker_nor_pool() {
    let (inbox, done) = (Inbox::default(), Done::default());
    (0..20).for_each(|item| inbox.put(item));
    inbox.close();
    let work = done.work(MS);
    let pauses = Backoff::exponential(10 * MS, 40 * MS);
    let pool = WorkerPool::start(inbox, Staffing::workers(2..=2).restart(pauses), move |item| {
        assert!(item % 4 != 1, "poison {item}");
        work(item)
    });
    pool.join().await;
    assert_eq!((pool.status().done, pool.status().panics), (20, 5));
    assert_eq!(done.sorted(), (0..20).filter(|item| item % 4 != 1).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_pool_ends_what_it_works_on_and_takes_no_more() {
    let (inbox, done) = (Inbox::default(), Done::default());
    (0..10).for_each(|item| inbox.put(item));
    let pool = WorkerPool::start(inbox.clone(), Staffing::workers(2..=2), done.work(10 * MS));
    sleep(5 * MS).await;
    drop(pool);
    sleep(100 * MS).await;
    assert_eq!((done.sorted(), inbox.0.lock().unwrap().waiting.len()), (vec![0, 1], 8));
}

/// Loads of items that arrive evenly; the number of workers follows each, settles, and nothing is lost.
#[tokio::test(start_paused = true)]
async fn the_number_of_workers_follows_the_load_and_settles() {
    let (inbox, done) = (Inbox::default(), Done::default());
    let staffing = Staffing::workers(1..=16).scaling(Scaling::to_keep_below(50 * MS));
    let pool = WorkerPool::start(inbox.clone(), staffing, done.work(20 * MS));
    let sent = AtomicU64::new(0);
    // At 20 ms an item, every 4 ms means five busy workers, and every 2 ms ten.
    for (every, busy) in [(40, 1), (4, 5), (2, 10), (10, 2), (4, 5)] {
        let mut seen = Vec::new();
        for at in (0..30_000).step_by(every) {
            inbox.put(sent.fetch_add(1, Relaxed));
            sleep(every as u32 * MS).await;
            if at >= 15_000 {
                seen.push(pool.status().wanted);
            }
        }
        let (first, changes) = (seen[0], seen.windows(2).filter(|pair| pair[0] != pair[1]).count());
        assert_eq!(changes, 0, "every {every} ms: {seen:?}");
        assert!((busy..=busy + busy / 2 + 2).contains(&first), "every {every} ms: {first} workers");
        assert!(inbox.delay() <= 50 * MS, "every {every} ms: items wait {:?}", inbox.delay());
    }
    inbox.close();
    pool.join().await;
    assert_eq!(done.sorted(), (0..sent.load(Relaxed)).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_pool_over_a_queue_serves_every_item_and_buries_the_poison() {
    let queue: Queue<u64> = Queue::builder(Capacity::items(1000)).max_attempts(3.try_into().unwrap()).build();
    for item in 0..400 {
        queue.put(item, Ticket::of("tenant")).await.unwrap();
    }
    let done = Done::default();
    let work = done.clone();
    let staffing = Staffing::workers(1..=8).scaling(Scaling::to_keep_below(50 * MS));
    let pool = WorkerPool::start(queue.clone(), staffing, move |lease| {
        let work = work.work(10 * MS);
        async move {
            assert!(*lease != 13, "poison");
            work(*lease).await;
            lease.ack().await.unwrap();
        }
    });
    queue.close();
    pool.join().await;
    assert_eq!(done.sorted(), (0..400).filter(|item| *item != 13).collect::<Vec<_>>());
    assert_eq!((pool.status().panics, queue.dead_letters().list(|letter| letter.item)), (3, vec![13]));
    assert_eq!(done.most.load(Relaxed), 8);
}
