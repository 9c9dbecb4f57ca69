//! Waiting, deadlines, cancellation and pressure, in virtual time.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::join_all;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, advance, sleep};

use super::{
    Device, Inventory, Needs, NeedsError, Pressure, Reading, Reservation, Rules, ScheduleError, Scheduler,
    Task, Terms, Watermarks,
};
use crate::metrics::Metrics;
use crate::random::Random;

const MS: Duration = Duration::from_millis(1);

fn scheduler(memory: u64) -> Scheduler {
    Scheduler::new(&Inventory::new().memory(memory), Rules::default()).unwrap()
}

fn memory(bytes: u64) -> Needs {
    Needs::new().memory(bytes)
}

async fn acquire(scheduler: &Scheduler, bytes: u64) -> Reservation {
    scheduler.acquire(&memory(bytes), Terms::default()).await.unwrap()
}

fn reserved(scheduler: &Scheduler) -> u64 {
    scheduler.status().resources[0].reserved
}

/// Lets everything run that can run without time passing.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test(start_paused = true)]
async fn a_reservation_holds_until_it_is_dropped() {
    let scheduler = scheduler(10);
    let first = acquire(&scheduler, 7).await;
    let mut second = pin!(acquire(&scheduler, 7));
    assert!(poll_once(second.as_mut()).is_pending());
    advance(30 * MS).await;
    let status = scheduler.status();
    assert_eq!((status.waiting, status.oldest, status.running, status.started), (1, Some(30 * MS), 1, 1));
    assert_eq!((status.resources[0].reserved, status.resources[0].free()), (7, 3));
    drop(first);
    let second = second.await;
    let status = scheduler.status();
    assert_eq!((status.waiting, status.oldest, status.running, status.started), (0, None, 1, 2));
    assert_eq!((status.waits.count(), status.waits.max()), (2, 30 * MS));
    drop(second);
    assert_eq!((reserved(&scheduler), scheduler.status().owners), (0, vec![]));
}

#[tokio::test(start_paused = true)]
async fn what_can_never_run_is_refused_at_once() {
    let scheduler = scheduler(10);
    let refused = scheduler.acquire(&memory(11), Terms::default()).await.unwrap_err();
    assert!(matches!(refused, ScheduleError::Impossible(NeedsError::TooMuch { asked: 11, largest: 10, .. })));
    let submitted = scheduler.submit(&memory(11), Terms::default(), |_| async {});
    assert_eq!(submitted.unwrap_err(), refused);
    assert!(scheduler.needs("memory: 11B").is_err() && scheduler.needs("memory: 10B").is_ok());
    assert!(matches!(scheduler.needs("gpu: true"), Err(NeedsError::Unknown { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_waiting_and_the_work() {
    let scheduler = scheduler(10);
    let deadline = || Terms::default().deadline(Instant::now() + 50 * MS);
    let held = acquire(&scheduler, 10).await;
    let begun = Instant::now();
    let refused = scheduler.acquire(&memory(1), deadline()).await.unwrap_err();
    assert_eq!((refused, begun.elapsed(), scheduler.status().waiting), (ScheduleError::Expired, 50 * MS, 0));
    let past = Terms::default().deadline(Instant::now());
    assert_eq!(scheduler.acquire(&memory(1), past).await.unwrap_err(), ScheduleError::Expired);
    drop(held);
    let endless = scheduler.submit(&memory(1), deadline(), |_| std::future::pending::<()>()).unwrap();
    assert_eq!(endless.await, Err(ScheduleError::Expired));
    assert_eq!(reserved(&scheduler), 0);
}

#[tokio::test(start_paused = true)]
async fn submitted_work_runs_on_what_it_needs() {
    let inventory = Inventory::new().device(Device::new("gpu", "gpu0")).device(Device::new("gpu", "gpu1"));
    let scheduler = Scheduler::new(&inventory, Rules::default()).unwrap();
    let gpu = Needs::new().devices("gpu", 1);
    let running = Arc::new(AtomicU64::new(0));
    let most = Arc::new(AtomicU64::new(0));
    let tasks: Vec<Task<String>> = (0..6)
        .map(|_| {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            let work = move |reservation: Arc<Reservation>| async move {
                most.fetch_max(running.fetch_add(1, Relaxed) + 1, Relaxed);
                sleep(10 * MS).await;
                running.fetch_sub(1, Relaxed);
                reservation.devices()[0].to_string()
            };
            scheduler.submit(&gpu, Terms::default(), work).unwrap()
        })
        .collect();
    let begun = Instant::now();
    let devices: Vec<String> = join_all(tasks).await.into_iter().map(Result::unwrap).collect();
    assert_eq!((most.load(Relaxed), begun.elapsed()), (2, 30 * MS));
    assert_eq!(devices.iter().filter(|device| *device == "gpu0").count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_the_error_of_its_task() {
    let scheduler = scheduler(10);
    let task =
        scheduler.submit(&memory(10), Terms::default(), |_| async { panic!("at step {}", 3) }).unwrap();
    let outcome: Result<(), _> = task.await;
    assert_eq!(outcome, Err(ScheduleError::Panicked { message: "at step 3".to_owned() }));
    let blocking = scheduler.submit_blocking(&memory(10), Terms::default(), |_| panic!("again")).unwrap();
    let outcome: Result<(), _> = blocking.await;
    assert_eq!(outcome, Err(ScheduleError::Panicked { message: "again".to_owned() }));
    let blocking = scheduler.submit_blocking(&memory(10), Terms::default(), |_| 7).unwrap();
    assert_eq!((blocking.await, reserved(&scheduler)), (Ok(7), 0));
}

#[tokio::test(start_paused = true)]
async fn dropping_a_task_cancels_it_wherever_it_is() {
    let scheduler = scheduler(10);
    let (told, mut ended) = oneshot::channel::<()>();
    let running = scheduler
        .submit(&memory(10), Terms::default(), |_| async move {
            let _told = told;
            std::future::pending::<()>().await;
        })
        .unwrap();
    let waiting = scheduler.submit(&memory(10), Terms::default(), |_| async {}).unwrap();
    settle().await;
    assert_eq!((scheduler.status().running, scheduler.status().waiting), (1, 1));
    drop(waiting);
    settle().await;
    assert_eq!((scheduler.status().running, scheduler.status().waiting), (1, 0));
    drop(running);
    settle().await;
    assert_eq!((scheduler.status().running, reserved(&scheduler)), (0, 0));
    assert!(ended.try_recv().is_err());
    let detached = Arc::new(Notify::new());
    let done = Arc::clone(&detached);
    scheduler.submit(&memory(10), Terms::default(), |_| async move { done.notify_one() }).unwrap().detach();
    detached.notified().await;
}

/// Polls futures in random order and drops each after a random number of polls, granted or not.
#[tokio::test(start_paused = true)]
async fn a_future_dropped_at_any_await_leaves_nothing_behind() {
    for seed in 0..500 {
        let mut random = Random::seeded(seed);
        let scheduler = scheduler(10);
        let mut futures: Vec<_> = (0..8)
            .map(|_| {
                let needs = memory(1 + random.below(10));
                let deadline = Instant::now() + (1 + random.below(20) as u32) * MS;
                let terms = Terms::default().deadline(deadline);
                let scheduler = scheduler.clone();
                Box::pin(async move {
                    let held = scheduler.acquire(&needs, terms).await;
                    sleep(5 * MS).await;
                    drop(held);
                    sleep(MS).await;
                })
            })
            .collect();
        while !futures.is_empty() {
            let index = random.below(futures.len() as u64) as usize;
            match random.below(4) {
                0 => drop(futures.swap_remove(index)),
                1 => advance(MS).await,
                _ => {
                    if poll_once(futures[index].as_mut()).is_ready() {
                        drop(futures.swap_remove(index));
                    }
                }
            }
            assert!(reserved(&scheduler) <= 10);
        }
        let status = scheduler.status();
        assert_eq!((status.waiting, status.running, reserved(&scheduler)), (0, 0, 0), "seed {seed}");
        assert!(scheduler.shared.lock().replies.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn who_goes_between_grant_and_answer_gives_it_to_the_next() {
    let scheduler = scheduler(10);
    let held = acquire(&scheduler, 10).await;
    let mut gone = Box::pin(acquire(&scheduler, 10));
    let mut next = pin!(acquire(&scheduler, 10));
    assert!(poll_once(gone.as_mut()).is_pending() && poll_once(next.as_mut()).is_pending());
    drop(held);
    drop(gone);
    assert!(poll_once(next.as_mut()).is_ready());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_that_acquire_and_cancel_never_take_too_much() {
    let scheduler = scheduler(10);
    let used = Arc::new(AtomicU64::new(0));
    let tasks = (0..16).map(|seed| {
        let (scheduler, used) = (scheduler.clone(), Arc::clone(&used));
        tokio::spawn(async move {
            let mut random = Random::seeded(seed);
            for _ in 0..300 {
                let bytes = 1 + random.below(10);
                let needs = memory(bytes);
                let mut acquiring =
                    Box::pin(scheduler.acquire(&needs, Terms::of(["a", "b"][seed as usize % 2])));
                if random.below(3) == 0 {
                    // Whether it is granted or waits, it is dropped.
                    let _ = poll_once(acquiring.as_mut());
                    continue;
                }
                let held = acquiring.await.unwrap();
                assert!(used.fetch_add(bytes, Relaxed) + bytes <= 10);
                tokio::task::yield_now().await;
                used.fetch_sub(bytes, Relaxed);
                drop(held);
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let status = scheduler.status();
    assert_eq!((status.waiting, status.running, reserved(&scheduler)), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_inventory_that_changes_moves_those_who_wait() {
    let inventory = Inventory::new().memory(10).device(Device::new("gpu", "gpu0"));
    let scheduler = Scheduler::new(&inventory, Rules::default()).unwrap();
    let gpu = Needs::new().devices("gpu", 1);
    let first = scheduler.acquire(&gpu, Terms::default()).await.unwrap();
    let mut second = pin!(scheduler.acquire(&gpu, Terms::default()));
    assert!(poll_once(second.as_mut()).is_pending());
    scheduler.add_device(&Device::new("gpu", "gpu1")).unwrap();
    assert_eq!(&*second.await.unwrap().devices()[0], "gpu1");
    scheduler.remove_device("gpu1").unwrap();
    let mut third = pin!(scheduler.acquire(&gpu, Terms::default()));
    assert!(poll_once(third.as_mut()).is_pending());
    scheduler.remove_device("gpu0").unwrap();
    assert!(matches!(third.await, Err(ScheduleError::Impossible(_))));
    drop(first);
    assert!(scheduler.remove_device("gpu2").is_err());
    let held = acquire(&scheduler, 10).await;
    let mut more = pin!(acquire(&scheduler, 5));
    assert!(poll_once(more.as_mut()).is_pending());
    scheduler.set_capacity("memory", 15).unwrap();
    assert!(poll_once(more.as_mut()).is_ready());
    drop(held);
    let status = scheduler.status();
    assert_eq!(
        (status.resources[0].capacity, status.devices.iter().filter(|d| d.is_retired).count()),
        (15, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn short_memory_slows_and_stops_what_starts() {
    let scheduler = scheduler(1000);
    let used = Arc::new(Mutex::new(0.0));
    let probe = {
        let used = Arc::clone(&used);
        move || Reading { used: *used.lock().unwrap(), stalled: 0.0 }
    };
    scheduler.watch(Watermarks { every: 100 * MS, ..Watermarks::default() }, probe);
    // Between two readings, so that none is due when the phases begin and end.
    sleep(50 * MS).await;
    let phase = async |reading: f64, expected: Pressure, starts: u64| {
        *used.lock().unwrap() = reading;
        // The reading takes place, and then ten more.
        sleep(100 * MS).await;
        let before = scheduler.status().started;
        let tasks: Vec<Task<()>> = (0..50)
            .map(|_| scheduler.submit(&memory(1), Terms::default(), |_| std::future::pending()).unwrap())
            .collect();
        sleep(1000 * MS).await;
        let status = scheduler.status();
        assert_eq!((status.pressure, status.started - before), (expected, starts), "{reading}");
        drop(tasks);
        settle().await;
    };
    phase(0.5, Pressure::None, 50).await;
    phase(0.85, Pressure::Soft, 11).await;
    phase(0.95, Pressure::Hard, 0).await;
    phase(0.88, Pressure::Hard, 0).await;
    phase(0.84, Pressure::Soft, 11).await;
    phase(0.7, Pressure::None, 50).await;
    // Who waits while nothing may start gets through once there is memory again.
    *used.lock().unwrap() = 1.0;
    sleep(200 * MS).await;
    let mut waiting = pin!(acquire(&scheduler, 1));
    assert!(poll_once(waiting.as_mut()).is_pending());
    *used.lock().unwrap() = 0.1;
    drop(waiting.await);
}

#[tokio::test(start_paused = true)]
async fn the_page_tells_what_the_status_tells() {
    let inventory = Inventory::new().memory(10).cpu(1500).device(Device::new("gpu", "gpu0").memory(7));
    let scheduler = Scheduler::new(&inventory, Rules::default()).unwrap();
    let needs = Needs::new().memory(4).with("gpu", 250);
    let _held = scheduler.acquire(&needs, Terms::default()).await.unwrap();
    let mut registry = Registry::default();
    let metrics = Metrics::new();
    metrics.watch("here", scheduler.clone());
    registry.register_collector(Box::new(metrics));
    let mut page = String::new();
    encode(&mut page, &registry).unwrap();
    for line in [
        "flow_scheduler_capacity{scheduler=\"here\",place=\"machine\",resource=\"cpu\"} 1.5",
        "flow_scheduler_capacity{scheduler=\"here\",place=\"gpu0\",resource=\"gpu_memory\"} 7.0",
        "flow_scheduler_reserved{scheduler=\"here\",place=\"machine\",resource=\"memory\"} 4.0",
        "flow_scheduler_reserved{scheduler=\"here\",place=\"gpu0\",resource=\"gpu\"} 0.25",
        "flow_scheduler_waiting{scheduler=\"here\"} 0.0",
        "flow_scheduler_running{scheduler=\"here\"} 1.0",
        "flow_scheduler_pressure{scheduler=\"here\"} 0.0",
        "flow_scheduler_wait_seconds_count{scheduler=\"here\"} 1",
    ] {
        assert!(page.lines().any(|other| other == line), "{line} is missing in\n{page}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_drained_scheduler_has_nothing_left() {
    let scheduler = scheduler(10);
    let task = |millis: u32| {
        let work = move |_| async move { sleep(millis * MS).await };
        scheduler.submit(&memory(10), Terms::default(), work)
    };
    let (first, second) = (task(10).unwrap(), task(10).unwrap());
    let begun = Instant::now();
    assert_eq!(scheduler.drain(Instant::now() + 1000 * MS).await, 0);
    assert_eq!((begun.elapsed(), first.await, second.await), (20 * MS, Ok(()), Ok(())));
    assert_eq!(task(10).unwrap_err(), ScheduleError::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_takes_too_long_refuses_those_who_wait() {
    let scheduler = scheduler(10);
    let running = acquire(&scheduler, 10).await;
    let waiting = scheduler.submit(&memory(10), Terms::default(), |_| async {}).unwrap();
    assert_eq!(scheduler.drain(Instant::now() + 10 * MS).await, 1);
    assert_eq!(waiting.await, Err(ScheduleError::Closed));
    drop(running);
    assert_eq!((scheduler.status().waiting, reserved(&scheduler)), (0, 0));
}
