//! The queue beside the channels that people use for the same work: 64-byte messages, 1024 slots, two workers.
//!
//! The channels know no policy, tickets, bounds by cost or dead letters; they are here as what speed costs nothing. An
//! item's ticket says what the policy asks about and no more: nothing for fifo, as in a channel; the level for priority;
//! one of 64 owners for round_robin and fair_share, which are held against fifo with the same tickets.
//!
//! `cargo xtask bench flow queues -- "takers of 32" "tokio|queue, fifo"` measures those contenders alone in whose table or
//! name all of that occurs, where bars stand between alternatives.

mod measure;
#[path = "queues/peers.rs"]
mod peers;

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use flow::queue::policy::Discipline;
use flow::{Capacity, Histogram, Queue, Ticket};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use measure::{Better, Contender, bar, compare_chosen, is_whole, time};
use peers::{
    AsyncChannel, Channel, Crossfire, Flume, Kanal, LEVELS, Message, Priority, SLOTS, Tokio, TokioMany,
    look_at,
};

/// So many items pass in one round.
const ITEMS: u64 = 200_000;
/// So many are put and taken in one go, where they are not alone.
const PUT: u64 = 16;
const TAKE: usize = 32;
/// So often the wait at half load is measured.
const ROUNDS: usize = 7;

/// The queue under a policy, one item at a time.
#[derive(Clone)]
struct Ours<K> {
    queue: Queue<Message>,
    owners: Arc<[Arc<str>]>,
    kind: PhantomData<K>,
}

/// What items say of themselves. A type and no pointer, so that a ticket is made where it is used, as in a program.
trait Kind: Clone + Send + Sync + 'static {
    fn ticket(owners: &[Arc<str>], number: u64) -> Ticket;
}

/// Nothing.
#[derive(Clone)]
struct Plain;

impl Kind for Plain {
    fn ticket(_owners: &[Arc<str>], _number: u64) -> Ticket {
        Ticket::default()
    }
}

/// How urgent they are.
#[derive(Clone)]
struct Urgent;

impl Kind for Urgent {
    fn ticket(_owners: &[Arc<str>], number: u64) -> Ticket {
        Ticket::default().level((number % LEVELS) as u8)
    }
}

/// Whose they are.
#[derive(Clone)]
struct Owned;

impl Kind for Owned {
    fn ticket(owners: &[Arc<str>], number: u64) -> Ticket {
        Ticket::of(owners[number as usize % owners.len()].clone())
    }
}

impl<K: Kind> Ours<K> {
    fn new(policy: &str) -> Self {
        let policy: Discipline = policy.parse().expect("a policy that exists");
        let owners = (0..64).map(|number| format!("tenant {number}").into()).collect();
        Self {
            queue: Queue::builder(Capacity::items(SLOTS)).policy(policy).build(),
            owners,
            kind: PhantomData,
        }
    }

    fn ticket(&self, number: u64) -> Ticket {
        K::ticket(&self.owners, number)
    }
}

impl<K: Kind> Channel for Ours<K> {
    async fn send(&self, number: u64) -> u64 {
        let put = self.queue.put([number; 8], self.ticket(number)).await;
        assert!(put.is_ok(), "an open queue takes what there is room for");
        1
    }

    async fn receive(&self) -> u64 {
        u64::from(self.queue.pop().await.is_some())
    }
}

/// The same on leases.
#[derive(Clone)]
struct Leased<K>(Ours<K>);

impl<K: Kind> Channel for Leased<K> {
    async fn send(&self, number: u64) -> u64 {
        self.0.send(number).await
    }

    async fn receive(&self) -> u64 {
        match self.0.queue.take().await {
            Some(lease) => u64::from(lease.ack().await.is_ok()),
            None => 0,
        }
    }
}

/// The same, many at a time.
#[derive(Clone)]
struct Many<K>(Ours<K>);

impl<K: Kind> Channel for Many<K> {
    async fn send(&self, number: u64) -> u64 {
        let items = (number..number + PUT).map(|number| ([number; 8], self.0.ticket(number)));
        let put = self.0.queue.put_many(items).await;
        assert!(put.is_ok(), "an open queue takes what there is room for");
        PUT
    }

    async fn receive(&self) -> u64 {
        let popped = self.0.queue.pop_many(TAKE).await;
        let count = popped.len();
        popped.for_each(|taken| look_at(&taken.item));
        count as u64
    }
}

/// Nanoseconds of a put and its take by one task.
fn solo<C: Channel>(runtime: &Runtime, channel: &C) -> f64 {
    let took = runtime.block_on(async {
        let start = Instant::now();
        for number in 0..ITEMS {
            channel.send(number).await;
            channel.receive().await;
        }
        start.elapsed()
    });
    took.as_nanos() as f64 / ITEMS as f64
}

/// Items per microsecond from `sides` putters to as many takers.
fn passing<C: Channel>(runtime: &Runtime, channel: &C, putters: u64, takers: u64) -> f64 {
    let left = Arc::new(AtomicU64::new(ITEMS));
    let took = runtime.block_on(async {
        let start = Instant::now();
        let share = ITEMS / putters;
        let putting = (0..putters).map(|putter| {
            let channel = channel.clone();
            tokio::spawn(async move {
                let mut sent = 0;
                while sent < share {
                    sent += channel.send(putter * share + sent).await;
                }
            })
        });
        let putting: Vec<_> = putting.collect();
        let taking = (0..takers).map(|_| {
            let (channel, left) = (channel.clone(), Arc::clone(&left));
            tokio::spawn(async move {
                loop {
                    let count = channel.receive().await;
                    if left.fetch_sub(count, Relaxed) == count {
                        return;
                    }
                }
            })
        });
        let taking: Vec<_> = taking.collect();
        for task in putting {
            task.await.expect("a putter does not panic");
        }
        while left.load(Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
        let took = start.elapsed();
        taking.iter().for_each(tokio::task::JoinHandle::abort);
        for task in taking {
            drop(task.await);
        }
        took
    });
    ITEMS as f64 / took.as_nanos() as f64 * 1000.0
}

/// All contenders of a table, each measured by `round`.
macro_rules! contenders {
    ($runtime:expr, $round:expr, $($name:expr => $channel:expr),+ $(,)?) => {
        vec![$({
            let (runtime, channel) = ($runtime, $channel);
            Contender::new($name, move || $round(runtime, &channel))
        }),+]
    };
}

fn one_by_one(runtime: &Runtime) {
    macro_rules! all {
        ($round:expr) => {
            contenders!(runtime, $round,
                "tokio mpsc" => Tokio::new(), "flume" => Flume::new(), "kanal" => Kanal::new(),
                "async-channel" => AsyncChannel::new(), "crossfire" => Crossfire::new(),
                "async-priority-channel" => Priority::new(),
                "queue, fifo" => Ours::<Plain>::new("fifo"),
                "queue, fifo, 64 owners" => Ours::<Owned>::new("fifo"),
                "queue, priority" => Ours::<Urgent>::new("priority"),
                "queue, round_robin" => Ours::<Owned>::new("round_robin"),
                "queue, fair_share" => Ours::<Owned>::new("fair_share"),
                "queue, deadline" => Ours::<Plain>::new("deadline"),
                "queue, fifo, leased" => Leased(Ours::<Plain>::new("fifo")),
            )
        };
    }
    let solo = compare_chosen(
        "a put and its take by one task",
        "ns",
        all!(|runtime, channel: &_| solo(runtime, channel)),
    );
    bar(&solo, "queue, fifo", "flume", 1.0 / 1.5, Better::Lower);
    if let Some(fifo) = solo.iter().find(|outcome| outcome.name == "queue, fifo") {
        let (fifo, verdict) = (fifo.median(), if fifo.median() <= 100.0 { "met" } else { "MISSED" });
        println!("  queue, fifo: {fifo:.0} ns; the bar is 100 ns: {verdict}");
    }
    compare_chosen(
        "one putter, one taker",
        "M/s",
        all!(|runtime, channel: &_| passing(runtime, channel, 1, 1)),
    );
    let four = compare_chosen(
        "four putters, four takers",
        "M/s",
        all!(|runtime, channel: &_| passing(runtime, channel, 4, 4)),
    );
    bar(&four, "queue, priority", "async-priority-channel", 5.0, Better::Higher);
    for policy in ["queue, fair_share", "queue, round_robin"] {
        bar(&four, policy, "queue, fifo, 64 owners", 0.5, Better::Higher);
    }
}

fn in_batches(runtime: &Runtime) {
    let mut table = contenders!(runtime, |runtime, channel: &_| passing(runtime, channel, 4, 4),
        "tokio mpsc recv_many, takers in turn" => TokioMany::new(TAKE),
        "async-priority-channel" => Priority::new(),
    );
    table.extend(contenders!(runtime, |runtime, channel: &_| passing(runtime, channel, 4, 1),
        "tokio mpsc recv_many, one taker" => TokioMany::new(TAKE),
    ));
    table.extend(contenders!(runtime, |runtime, channel: &_| passing(runtime, channel, 4, 4),
        "queue, fifo" => Many(Ours::<Plain>::new("fifo")),
        "queue, fifo, 64 owners" => Many(Ours::<Owned>::new("fifo")),
        "queue, priority" => Many(Ours::<Urgent>::new("priority")),
        "queue, round_robin" => Many(Ours::<Owned>::new("round_robin")),
        "queue, fair_share" => Many(Ours::<Owned>::new("fair_share")),
        "queue, deadline" => Many(Ours::<Plain>::new("deadline")),
    ));
    let outcomes = compare_chosen("four putters of 16, four takers of 32", "M/s", table);
    bar(&outcomes, "queue, fifo", "tokio mpsc recv_many, one taker", 4.0, Better::Higher);
    bar(&outcomes, "queue, fifo", "tokio mpsc recv_many, takers in turn", 4.0, Better::Higher);
    bar(&outcomes, "queue, priority", "async-priority-channel", 10.0, Better::Higher);
    for policy in ["queue, fair_share", "queue, round_robin"] {
        bar(&outcomes, policy, "queue, fifo, 64 owners", 0.5, Better::Higher);
    }
}

/// The wait of items that come evenly, at half the rate at which one taker serves them. A second in which the machine stands
/// still says nothing of the queue, so the median of some rounds counts.
fn sojourn(runtime: &Runtime) {
    let mut rounds = [(); ROUNDS].map(|()| waits(runtime));
    rounds.sort_unstable_by_key(|(_, late)| *late);
    let (median, late) = rounds[ROUNDS / 2];
    let (least, most) = (rounds[0].1, rounds[ROUNDS - 1].1);
    let verdict = if late <= Duration::from_millis(1) { "met" } else { "MISSED" };
    println!(
        "\nwait at half load: median {median:?}, 99 % {late:?} ({least:?} to {most:?}); the bar is 1 ms: {verdict}"
    );
}

/// The median and the 99th percentile of one round.
fn waits(runtime: &Runtime) -> (Duration, Duration) {
    let queue: Queue<Message> = Queue::builder(Capacity::items(SLOTS))
        .policy("fifo".parse::<Discipline>().expect("it exists"))
        .build();
    let service = Duration::from_micros(20);
    let waits = Arc::new(Histogram::new());
    runtime.block_on(async {
        let taker = tokio::spawn({
            let (queue, waits) = (queue.clone(), Arc::clone(&waits));
            async move {
                while let Some(taken) = queue.pop().await {
                    waits.record(queue.now() - taken.arrived());
                    let begun = Instant::now();
                    while begun.elapsed() < service {
                        std::hint::spin_loop();
                    }
                }
            }
        });
        let start = Instant::now();
        for number in 0..12_500 {
            while start.elapsed() < 2 * service * number {
                tokio::task::yield_now().await;
            }
            let put = queue.put([u64::from(number); 8], Ticket::default()).await;
            assert!(put.is_ok(), "an open queue takes what there is room for");
        }
        queue.drain(Duration::from_secs(10)).await;
        taker.await.expect("a taker does not panic");
    });
    let waits = waits.snapshot();
    (waits.quantile(0.5), waits.quantile(0.99))
}

/// What waiting items take on top of themselves, in a queue that stores them in place.
fn memory() {
    const COUNT: usize = 1_000_000;
    let resident = || flow::metrics::System::here().process().resident_bytes;
    let Some(before) = resident() else { return };
    let queue: Queue<[u8; 1024]> = Queue::new(Capacity::items(COUNT));
    let owner: Arc<str> = "someone".into();
    let took = time(|| {
        for number in 0..COUNT {
            let put = queue.try_put([number as u8; 1024], Ticket::of(owner.clone()));
            assert!(put.is_ok(), "there is room for all");
        }
    });
    let held = resident().unwrap_or_default().saturating_sub(before);
    let percent = (held as f64 / (COUNT * 1024) as f64 - 1.0) * 100.0;
    let verdict = if percent < 5.0 { "met" } else { "MISSED" };
    println!(
        "\n1,000,000 waiting items of 1 KiB, put in {took:?}: {percent:.2} % on top; the bar is 5 %: {verdict}"
    );
}

fn main() {
    if is_whole() {
        memory();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
    let runtime = runtime.expect("two threads can be started");
    if is_whole() {
        sojourn(&runtime);
    }
    one_by_one(&runtime);
    in_batches(&runtime);
}
