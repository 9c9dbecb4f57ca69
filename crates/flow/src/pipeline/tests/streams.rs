//! Whole streams: every item once, in order if asked for, and no further ahead than there is room.

use std::sync::Mutex;

use super::*;
use crate::random::Random;

/// A pipeline whose stage takes a random time, and fails at every seventh item.
fn jittery(credits: u32) -> Pipeline<u64, u64> {
    let random = Arc::new(Mutex::new(Random::seeded(11)));
    Pipeline::builder()
        .credits(credits)
        .stage("wait", move |x: u64| {
            let time = random.lock().unwrap().below(20);
            async move {
                if time > 3 {
                    tokio::time::sleep(ms(time)).await;
                }
                if x.is_multiple_of(7) { Err(Classed::permanent(x.to_string())) } else { Ok(x) }
            }
        })
        .workers(16)
        .build()
}

/// The item that an outcome is of.
fn item(outcome: &Result<u64, Failure>) -> u64 {
    match outcome {
        Ok(x) => *x,
        Err(Failure::Failed { cause, .. }) => cause.to_string().parse().unwrap(),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn outcomes_come_in_the_order_of_the_items_if_asked_for() {
    for credits in [1, 3, 50, 1_000] {
        let pipeline = jittery(credits);
        let ordered: Vec<u64> =
            pipeline.run(stream::iter(0..2_000)).ordered().map(|out| item(&out)).collect().await;
        assert!(ordered.into_iter().eq(0..2_000));
        let mut loose: Vec<u64> = pipeline.run(stream::iter(0..2_000)).map(|out| item(&out)).collect().await;
        assert!(credits == 1 || !loose.is_sorted(), "as they come is another order");
        loose.sort_unstable();
        assert!(loose.into_iter().eq(0..2_000));
        assert_quiet(&pipeline);
        let stats = pipeline.stats();
        assert_eq!((stats.accepted, stats.failed), (4_000, 2 * 286));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_runs_and_callers_share_a_pipeline_on_several_threads() {
    let pipeline = Pipeline::builder()
        .credits(16)
        .stage("yield", |x: u64| async move {
            if x.is_multiple_of(3) {
                tokio::task::yield_now().await;
            }
            Ok::<_, Classed>(x)
        })
        .workers(3)
        .stage("same", |x| async move { Ok::<_, Classed>(x) })
        .workers(2)
        .buffer(1)
        .build();
    let run = |ordered: u64| {
        let run = pipeline.run(stream::iter(0..3_000u64));
        let run = if ordered == 0 { run.ordered() } else { run };
        tokio::spawn(run.map(Result::unwrap).fold(0, |sum, x| std::future::ready(sum + x)))
    };
    let callers = (0..500).map(|x| tokio::spawn(pipeline.submit(x)));
    let (runs, callers) = tokio::join!(join_all((0..3).map(run)), join_all(callers));
    assert!(runs.into_iter().all(|sum| sum.unwrap() == 2_999 * 3_000 / 2));
    assert_eq!(callers.into_iter().map(|out| out.unwrap().unwrap()).sum::<u64>(), 499 * 500 / 2);
    assert_quiet(&pipeline);
}

#[tokio::test(start_paused = true)]
async fn a_slow_sink_is_felt_at_the_source_and_not_by_others() {
    let pipeline =
        Pipeline::builder().credits(8).stage("pass", |x: u64| async move { Ok::<_, Classed>(x) }).build();
    for ordered in [0, 1] {
        let read = Arc::new(AtomicUsize::new(0));
        let count = read.clone();
        let items = stream::iter(0..1_000u64).inspect(move |_| {
            count.fetch_add(1, SeqCst);
        });
        let run = pipeline.run(items);
        let mut run = if ordered == 0 { run } else { run.ordered() };
        for taken in 1..=1_000 {
            run.next().await.unwrap().unwrap();
            tokio::time::sleep(ms(1)).await;
            let ahead = read.load(SeqCst) - taken;
            assert!(ahead <= 8 + 1, "{ahead} items were read and not taken");
            assert_eq!(pipeline.submit(7).await.unwrap(), 7, "what waits to be taken holds no credit");
        }
        assert!(run.next().await.is_none());
    }
    assert_quiet(&pipeline);
}

#[tokio::test(start_paused = true)]
async fn every_item_of_a_run_has_its_time() {
    let pipeline = jittery(100);
    let outcomes: Vec<_> = pipeline.run(stream::iter(1..100)).within(ms(10)).collect().await;
    let expired = outcomes.iter().filter(|outcome| matches!(outcome, Err(Failure::Expired { .. }))).count();
    assert!((20..90).contains(&expired), "{expired}");
    assert_eq!((outcomes.len() as u64, pipeline.stats().expired), (99, expired as u64));
    assert_quiet(&pipeline);
}

#[tokio::test(start_paused = true)]
async fn a_closed_pipeline_ends_a_run_after_what_was_accepted() {
    let pipeline = jittery(4);
    let mut run = pipeline.run(stream::iter(1..));
    for _ in 0..10 {
        run.next().await.unwrap().ok();
    }
    pipeline.close();
    let rest: Vec<_> = run.collect().await;
    let refused = rest.iter().filter(|outcome| matches!(outcome, Err(Failure::Closed))).count();
    assert!(rest.len() <= 10 && refused == 1, "{rest:?}");
    assert_quiet(&pipeline);
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "the source is broken")]
async fn a_source_that_panics_is_the_callers_panic() {
    let items = stream::iter(0..10).inspect(|x| assert!(*x < 5, "the source is broken"));
    let _ = jittery(4).run(items).count().await;
}
