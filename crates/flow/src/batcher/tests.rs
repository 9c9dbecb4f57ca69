//! No batch is too large, no item waits too long, and a failure is of exactly those who deserve it.

mod closing;
mod gathering;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use futures::future::join_all;
use futures::stream;
use proptest::prelude::*;

use super::*;
use crate::pipeline::Pipeline;
use crate::retry::{Class, Classify, Retry};
use crate::work::Classed;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The batches that were served, and when.
type Served = Arc<Mutex<Vec<(Duration, Vec<u64>)>>>;

/// A batcher whose batches take `took` each and come back as they are, and what it has served.
fn echo(rules: Batch<u64>, took: Duration) -> (Batcher<u64, u64, Classed>, Served) {
    let served = Served::default();
    let (seen, began) = (served.clone(), Instant::now());
    let batcher = Batcher::new(rules, move |items: Vec<u64>| {
        seen.lock().unwrap().push((began.elapsed(), items.clone()));
        async move {
            tokio::time::sleep(took).await;
            Ok(items.into_iter().map(Ok).collect())
        }
    });
    (batcher, served)
}

fn assert_quiet<I: Send + 'static, O: Send + 'static, E: StageError>(batcher: &Batcher<I, O, E>) {
    let stats = batcher.stats();
    assert_eq!((stats.waiting, stats.running), (0, 0), "{stats:?}");
    assert_eq!(batcher.shared.places.available_permits(), batcher.shared.rules.capacity);
}

#[tokio::test(start_paused = true)]
async fn an_idle_executor_is_not_kept_waiting_and_a_busy_one_gathers() {
    let (batcher, served) = echo(Batch::default(), ms(30));
    let first = tokio::spawn(batcher.submit(0));
    tokio::time::sleep(ms(10)).await;
    let rest: Vec<_> = (1..=20).map(|x| tokio::spawn(batcher.submit(x))).collect();
    assert_eq!(first.await.unwrap().unwrap(), 0);
    for (x, out) in (1..).zip(join_all(rest).await) {
        assert_eq!(out.unwrap().unwrap(), x);
    }
    assert_eq!(*served.lock().unwrap(), [(ms(0), vec![0]), (ms(30), (1..=20).collect())]);
    let stats = batcher.stats();
    assert_eq!((stats.batches, stats.items, stats.errors), (2, 21, 0));
    assert!(stats.waits.max() >= ms(19), "{:?}", stats.waits);
    tokio::time::sleep(ms(1)).await;
    assert_quiet(&batcher);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_told_for_a_busy_executor() {
    let (batcher, served) = echo(Batch::up_to(4).within(ms(20)), ms(1_000));
    let mut items = vec![tokio::spawn(batcher.submit(0))];
    tokio::time::sleep(ms(1)).await;
    for x in 1..=6 {
        items.push(tokio::spawn(batcher.submit(x)));
        tokio::time::sleep(ms(1)).await;
    }
    join_all(items).await;
    let wanted = [(ms(0), vec![0]), (ms(4), vec![1, 2, 3, 4]), (ms(25), vec![5, 6])];
    assert_eq!(
        *served.lock().unwrap(),
        wanted,
        "one at once, one when full, one when its oldest has waited 20 ms"
    );
}

#[tokio::test(start_paused = true)]
async fn a_bound_on_executors_is_kept_even_if_items_wait_longer() {
    let (batcher, served) = echo(Batch::up_to(2).within(ms(5)).at_most(1), ms(100));
    join_all((0..5).map(|x| batcher.submit(x))).await;
    let starts: Vec<Duration> = served.lock().unwrap().iter().map(|(at, _)| *at).collect();
    assert_eq!(starts, [0, 100, 200].map(ms));
    tokio::time::sleep(ms(1)).await;
    assert_quiet(&batcher);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_makes_its_batch_leave_in_time() {
    let (batcher, served) = echo(Batch::default().within(ms(500)), ms(50));
    batcher.submit(0).await.unwrap();
    let busy = tokio::spawn(batcher.submit(1));
    tokio::time::sleep(ms(1)).await;
    let deadline = Instant::now() + ms(70);
    let (out, other) = tokio::join!(batcher.submit_by(2, deadline), batcher.submit(3));
    assert_eq!((out.unwrap(), other.unwrap()), (2, 3));
    busy.await.unwrap().unwrap();
    let (left, items) = served.lock().unwrap()[2].clone();
    assert_eq!(items, [2, 3]);
    assert!((ms(60)..ms(71)).contains(&left), "the deadline is at 121 ms and a batch takes 50: {left:?}");
    let late = batcher.submit_by(4, Instant::now() + ms(10));
    assert!(matches!(late.await, Err(BatchFailure::Expired)), "it takes 50 ms");
    let gone = batcher.submit_by(5, Instant::now()).await;
    assert!(matches!(gone, Err(BatchFailure::Expired)));
    tokio::time::sleep(ms(100)).await;
    assert!(!served.lock().unwrap().iter().any(|(_, items)| items.contains(&5)));
    assert_quiet(&batcher);
}

#[tokio::test(start_paused = true)]
async fn an_idle_executor_waits_if_told_so() {
    let (patient, served) = echo(Batch::up_to(3).within(ms(40)).when_idle(WhenIdle::Wait), ms(1));
    join_all((0..4).map(|x| patient.submit(x))).await;
    assert_eq!(*served.lock().unwrap(), [(ms(0), vec![0, 1, 2]), (ms(40), vec![3])]);

    // Items every 2 ms fill a batch of 8 in 14 ms; items every 30 ms do not fill one within 40 ms.
    for (gap, sizes) in [(2, vec![1, 8, 8, 7]), (30, vec![1; 24])] {
        let (adaptive, served) = echo(Batch::up_to(8).within(ms(40)).when_idle(WhenIdle::Adapt), ms(1));
        let mut items = Vec::new();
        for x in 0..24 {
            items.push(tokio::spawn(adaptive.submit(x)));
            tokio::time::sleep(ms(gap)).await;
        }
        join_all(items).await;
        let seen: Vec<usize> = served.lock().unwrap().iter().map(|(_, items)| items.len()).collect();
        assert_eq!(seen, sizes, "items every {gap} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn items_go_with_their_like() {
    let rules = Batch::up_to(10).key(|x| x % 2).buckets([10, 100], |x| *x).when_idle(WhenIdle::Wait);
    let (batcher, served) = echo(rules, ms(1));
    join_all([1, 2, 3, 10, 11, 100, 101, 5_000].map(|x| batcher.submit(x))).await;
    let seen: BTreeSet<Vec<u64>> = served.lock().unwrap().iter().map(|(_, items)| items.clone()).collect();
    let wanted: [&[u64]; 6] = [&[1, 3], &[2, 10], &[11], &[100], &[101], &[5_000]];
    assert_eq!(seen, wanted.map(<[u64]>::to_vec).into());
}

/// What makes an item, or the batch it is in, fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Good,
    Bad,
    Poison,
    Panic,
}

fn fated(rules: Batch<Fate>) -> Batcher<Fate, Fate, Classed> {
    Batcher::new(rules, |items: Vec<Fate>| async move {
        assert!(!items.contains(&Fate::Panic), "a panic is inside");
        if items.contains(&Fate::Poison) {
            return Err(Classed::permanent("poison is inside"));
        }
        let outcome = |fate| if fate == Fate::Bad { Err(Classed::permanent("bad")) } else { Ok(fate) };
        Ok(items.into_iter().map(outcome).collect())
    })
}

fn told(outcome: Result<Fate, BatchFailure<Classed>>) -> String {
    outcome.map_or_else(|failure| failure.to_string(), |fate| format!("{fate:?}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    /// Bisection isolates exactly the items that make a batch fail, wherever they stand.
    #[test]
    fn exactly_the_poison_is_isolated(
        fates in prop::collection::vec(
            prop_oneof![8 => Just(Fate::Good), 2 => Just(Fate::Bad), 1 => Just(Fate::Poison), 1 => Just(Fate::Panic)],
            1..40,
        ),
        size in 1..20usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let outcomes: Vec<String> = runtime.block_on(async {
            let batcher = fated(Batch::up_to(size).bisect());
            let outcomes = batcher.process(stream::iter(fates.clone())).map(told).collect().await;
            tokio::time::sleep(ms(1)).await;
            assert_quiet(&batcher);
            outcomes
        });
        let wanted = fates.iter().map(|fate| match fate {
            Fate::Good => "Good",
            Fate::Bad => "bad",
            Fate::Poison => "poison is inside",
            Fate::Panic => "serving the batch panicked: a panic is inside",
        });
        prop_assert_eq!(outcomes, wanted.collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_not_looked_into_fails_together() {
    let batcher = fated(Batch::up_to(3).when_idle(WhenIdle::Wait));
    let outcomes = join_all([Fate::Good, Fate::Poison, Fate::Good].map(|fate| batcher.submit(fate))).await;
    assert!(outcomes.into_iter().all(|outcome| told(outcome) == "poison is inside"));

    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let rules = Batch::up_to(8).when_idle(WhenIdle::Wait).bisect();
    let down = Batcher::<u8, u8, Classed>::new(rules, move |_| {
        count.fetch_add(1, SeqCst);
        async { Err(Classed::transient("down")) }
    });
    let outcomes = join_all((0..8).map(|x| down.submit(x))).await;
    assert!(outcomes.iter().all(|outcome| outcome.as_ref().is_err_and(|e| e.class() == Class::Transient)));
    assert_eq!(calls.load(SeqCst), 1, "what is down for all is down for each");

    let short = Batcher::<u8, u8, Classed>::new(Batch::default(), |_| async { Ok(Vec::new()) });
    let failure = short.submit(1).await.unwrap_err();
    assert_eq!(
        failure.to_string(),
        "a batch of 1 items came back with 0 outcomes; give one for each, in their order"
    );
}

#[tokio::test(start_paused = true)]
async fn an_item_dropped_after_any_number_of_polls_leaves_nothing_behind() {
    let (mut polls, mut is_done) = (0, false);
    while !is_done {
        let (batcher, served) = echo(Batch::up_to(4).within(ms(3)).capacity(3), ms(5));
        let others: Vec<_> = (0..4).map(|x| tokio::spawn(batcher.submit(x))).collect();
        tokio::task::yield_now().await;
        let mut item = Box::pin(batcher.submit(100));
        let mut has_left = false;
        for _ in 0..polls {
            is_done = futures::poll!(&mut item).is_ready();
            if is_done {
                break;
            }
            tokio::time::sleep(ms(1)).await;
            has_left = served.lock().unwrap().iter().any(|(_, items)| items.contains(&100));
        }
        drop(item);
        assert!(join_all(others).await.into_iter().all(|out| out.unwrap().is_ok()));
        tokio::time::sleep(ms(20)).await;
        assert_quiet(&batcher);
        let was_served = served.lock().unwrap().iter().any(|(_, items)| items.contains(&100));
        assert_eq!(was_served, has_left, "dropped after {polls} polls");
        polls += 1;
    }
    assert!(polls > 5, "it has to wait: {polls}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_served_in_order_and_no_further_ahead_than_there_is_room() {
    let (batcher, served) = echo(Batch::up_to(8).capacity(20), ms(2));
    let read = AtomicUsize::new(0);
    let items = stream::iter(0..200).inspect(|_| {
        read.fetch_add(1, SeqCst);
    });
    let mut outcomes = std::pin::pin!(batcher.process(items));
    for x in 0..200 {
        assert_eq!(outcomes.next().await.unwrap().unwrap(), x);
        assert!(read.load(SeqCst) <= x as usize + 1 + 20);
    }
    assert!(outcomes.next().await.is_none());
    let sizes: Vec<usize> = served.lock().unwrap().iter().map(|(_, items)| items.len()).collect();
    assert!(sizes.iter().all(|size| *size <= 8) && sizes.len() <= 30, "{sizes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stage_of_a_pipeline_works_in_batches() {
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let (seen, failures) = (sizes.clone(), Arc::new(AtomicUsize::new(0)));
    let embed = move |items: Vec<u64>| {
        seen.lock().unwrap().push(items.len());
        let is_down = failures.fetch_add(1, SeqCst) == 3;
        async move {
            tokio::time::sleep(ms(2)).await;
            if is_down {
                return Err(Classed::transient("down"));
            }
            let outcome = |x| if x == 13 { Err(Classed::permanent("13")) } else { Ok(x * 2) };
            Ok(items.into_iter().map(outcome).collect())
        }
    };
    let pipeline = Pipeline::builder()
        .credits(64)
        .batch("embed", Batch::up_to(16), embed)
        .retry(Retry::exponential(ms(1), ms(1)))
        .stage("add", |x| async move { Ok::<_, Classed>(x + 1) })
        .build();
    let outcomes: Vec<_> = pipeline.run(stream::iter(0..500)).ordered().collect().await;
    for (x, outcome) in (0..).zip(outcomes) {
        match outcome {
            Ok(out) => assert_eq!(out, x * 2 + 1),
            Err(failure) => {
                assert_eq!((x, failure.to_string().as_str()), (13, "stage 'embed' failed at attempt 1: 13"))
            }
        }
    }
    let sizes = sizes.lock().unwrap();
    assert!(sizes.iter().all(|size| *size <= 16) && sizes.len() <= 45, "{sizes:?}");
    assert_eq!(pipeline.stats().stage("embed").unwrap().retries, sizes[3] as u64);
}
