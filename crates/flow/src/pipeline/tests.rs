//! An item ends in exactly one outcome, whatever its stages, its caller and its neighbours do.

mod cancel;
mod care;
mod edges;
mod now;
mod random;
mod streams;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use futures::future::join_all;
use futures::stream;

use super::*;
use crate::retry::{Class, Classify};
use crate::work::Classed;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What nothing is left of: every accepted item has ended, every worker is free and nobody waits.
fn assert_quiet<In: Send + 'static, Out: Send + 'static>(pipeline: &Pipeline<In, Out>) {
    let stats = pipeline.stats();
    assert_eq!(stats.in_flight(), 0, "{stats:?}");
    for stage in &stats.stages {
        assert_eq!((stage.in_flight, stage.waiting), (0, 0), "{stats:?}");
    }
    let gate = pipeline.way.gate();
    assert_eq!(gate.credits.available_permits(), gate.limit as usize);
}

#[tokio::test(start_paused = true)]
async fn an_item_comes_out_of_the_last_stage() {
    let pipeline = Pipeline::builder()
        .stage("double", |x: u64| async move { Ok::<_, Classed>(x * 2) })
        .workers(4)
        .stage("show", |x| async move { Ok::<_, Classed>(x.to_string()) })
        .build();
    assert_eq!(pipeline.submit(21).await.unwrap(), "42");
    let stats = pipeline.stats();
    assert_eq!((stats.accepted, stats.completed), (1, 1));
    assert_eq!(stats.stage("double").unwrap().workers, Some(4));
    assert_eq!(stats.stage("show").unwrap().completed, 1);
    assert_quiet(&pipeline);
}

#[tokio::test(start_paused = true)]
async fn an_error_and_a_panic_are_of_their_item_alone() {
    let pipeline = Pipeline::builder()
        .stage("parse", |text: &'static str| async move { text.parse::<u32>().map_err(Classed::permanent) })
        .stage("check", |x| async move {
            assert!(x != 13, "13 is right out");
            Ok::<_, Classed>(x)
        })
        .workers(1)
        .build();
    let texts = ["1", "one", "13", "2"];
    let outcomes = join_all(texts.map(|text| pipeline.submit(text))).await;
    let told: Vec<String> = outcomes
        .iter()
        .map(|outcome| outcome.as_ref().map_or_else(ToString::to_string, ToString::to_string))
        .collect();
    let parse = "stage 'parse' failed at attempt 1: invalid digit found in string";
    assert_eq!(told, ["1", parse, "stage 'check' panicked: 13 is right out", "2"]);
    assert_eq!(outcomes[2].as_ref().unwrap_err().class(), Class::Permanent);
    let stats = pipeline.stats();
    assert_eq!((stats.completed, stats.failed, stats.stage("check").unwrap().errors), (2, 2, 1));
    assert_quiet(&pipeline);
}

#[tokio::test(start_paused = true)]
async fn no_more_items_are_inside_than_credits_nor_in_a_stage_than_workers() {
    let most = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let seen = most.clone();
    let inside = Arc::new(AtomicUsize::new(0));
    let pipeline = Pipeline::builder()
        .credits(5)
        .stage("work", move |(): ()| {
            let (most, inside) = (seen.clone(), inside.clone());
            async move {
                most[0].fetch_max(inside.fetch_add(1, SeqCst) + 1, SeqCst);
                tokio::time::sleep(ms(10)).await;
                inside.fetch_sub(1, SeqCst);
                Ok::<_, Classed>(())
            }
        })
        .workers(2)
        .build();
    let mut items: Vec<_> = (0..20).map(|_| Box::pin(pipeline.submit(()))).collect();
    let began = Instant::now();
    for item in &mut items {
        assert!(futures::poll!(item).is_pending());
    }
    let stats = pipeline.stats();
    assert_eq!((stats.accepted, stats.stages[0].in_flight, stats.stages[0].waiting), (5, 2, 3));
    join_all(items).await;
    assert_eq!((began.elapsed(), most[0].load(SeqCst)), (ms(100), 2));
    assert_quiet(&pipeline);
}

#[tokio::test(start_paused = true)]
async fn a_full_buffer_keeps_the_worker_before_it() {
    let pipeline = Pipeline::builder()
        .stage("fast", |x: u32| async move { Ok::<_, Classed>(x) })
        .workers(1)
        .stage("slow", |x| async move {
            tokio::time::sleep(ms(10)).await;
            Ok::<_, Classed>(x)
        })
        .workers(1)
        .buffer(2)
        .build();
    let items: Vec<_> = (0..10).map(|x| tokio::spawn(pipeline.submit(x))).collect();
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    let stats = pipeline.stats();
    let entered: Vec<u64> = stats.stages.iter().map(StageStats::entered).collect();
    assert_eq!(entered, [4, 1], "one is worked on, two wait, and one cannot leave the first stage");
    assert_eq!(join_all(items).await.len(), 10);
    assert_quiet(&pipeline);
}

#[tokio::test(start_paused = true)]
async fn waiting_stages_scale_with_their_workers() {
    let pipeline = Pipeline::builder()
        .stage("wait", |x: u32| async move {
            tokio::time::sleep(ms(10)).await;
            Ok::<_, Classed>(x)
        })
        .workers(1)
        .build();
    let mut took = Vec::new();
    for workers in [1, 64] {
        pipeline.set_workers("wait", workers).unwrap();
        let began = Instant::now();
        assert_eq!(pipeline.run(stream::iter(0..6_400)).count().await, 6_400);
        took.push(began.elapsed().as_secs_f64());
    }
    assert!(took[0] / took[1] >= 0.95 * 64.0, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn workers_are_changed_while_they_work() {
    let pipeline = Pipeline::builder()
        .stage("wait", |x: u32| async move {
            tokio::time::sleep(ms(10)).await;
            Ok::<_, Classed>(x)
        })
        .workers(8)
        .build();
    let mut run = pipeline.run(stream::iter(0..));
    let mut seen = Vec::new();
    for workers in [8, 2, 5, 0, 1, 3] {
        pipeline.set_workers("wait", workers).unwrap();
        let _ = timeout(ms(100), run.by_ref().for_each(|_| std::future::ready(()))).await;
        let stage = pipeline.stats().stages[0].clone();
        seen.push((stage.workers, stage.in_flight));
    }
    let wanted = [8, 2, 5, 0, 1, 3].map(|workers| (Some(workers), workers as u64));
    assert_eq!(seen, wanted);
    drop(run);
    tokio::task::yield_now().await;
    assert_quiet(&pipeline);
    let error = pipeline.set_workers("wit", 1).unwrap_err();
    assert_eq!(error.to_string(), "there is no stage 'wit'; the pipeline has wait");
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_what_is_inside_and_cuts_the_rest() {
    for (time, wanted) in [(50, (4, 0, 0)), (15, (2, 2, 2))] {
        let pipeline = Pipeline::builder()
            .credits(4)
            .stage("wait", |x: u32| async move {
                tokio::time::sleep(ms(10)).await;
                Ok::<_, Classed>(x)
            })
            .workers(2)
            .build();
        let items: Vec<_> = (0..6).map(|x| tokio::spawn(pipeline.submit(x))).collect();
        tokio::task::yield_now().await;
        let began = Instant::now();
        let drained = pipeline.drain(ms(time)).await;
        assert!(began.elapsed() <= ms(time));
        let outcomes = join_all(items).await.into_iter().map(Result::unwrap);
        let (mut done, mut cut, mut closed) = (0, 0, 0);
        for outcome in outcomes {
            match outcome {
                Ok(_) => done += 1,
                Err(Failure::Cut { stage: Some(_) }) => cut += 1,
                Err(Failure::Closed | Failure::Cut { stage: None }) => closed += 1,
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!((done, cut, drained.cut), wanted);
        assert_eq!(closed, 2, "the two that waited for a credit were never accepted");
        assert!(matches!(pipeline.submit(7).await, Err(Failure::Closed)));
        let stats = pipeline.stats();
        assert_eq!((stats.accepted, stats.completed, stats.cut, stats.in_flight()), (4, done, cut, 0));
    }
}
