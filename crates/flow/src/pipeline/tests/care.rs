//! Timeouts, retries, rates, breakers and fallbacks: each does its part, and none begins what cannot help.

use std::num::NonZeroU32;

use super::*;
use crate::breaker::{Breaker, BreakerRules, BreakerState};
use crate::random::Random;
use crate::retry::{Retry, RetryBudget};
use crate::work::{Cx, Work};

/// Fails transiently until the attempt that it is told.
struct Flaky;

impl Work<u32> for Flaky {
    type Out = u32;
    type Err = Classed;

    async fn call(&self, cx: Cx<'_>, good_at: u32) -> Result<u32, Classed> {
        tokio::time::sleep(ms(10)).await;
        if cx.attempt < good_at { Err(Classed::transient("not yet")) } else { Ok(cx.attempt) }
    }
}

#[tokio::test(start_paused = true)]
async fn an_item_is_tried_again_while_the_worker_serves_others() {
    let pipeline = Pipeline::builder()
        .work("flaky", Flaky)
        .workers(1)
        .retry(Retry::exponential(ms(1_000), ms(1_000)).attempts(3))
        .random(Random::seeded(5))
        .build();
    let began = Instant::now();
    let mut again = Box::pin(pipeline.submit(3));
    assert!(futures::poll!(&mut again).is_pending());
    tokio::time::advance(ms(10)).await;
    assert!(futures::poll!(&mut again).is_pending());
    assert_eq!(pipeline.submit(1).await.unwrap(), 1);
    assert_eq!(began.elapsed(), ms(20), "the other does not wait for the first");
    assert_eq!(again.await.unwrap(), 3);
    let failure = pipeline.submit(4).await.unwrap_err();
    assert_eq!(failure.to_string(), "stage 'flaky' failed at attempt 3: not yet");
    assert_eq!(pipeline.stats().stages[0].retries, 4);
    assert_quiet(&pipeline);
}

#[tokio::test(start_paused = true)]
async fn no_attempt_begins_that_would_end_after_the_deadline() {
    let pipeline = Pipeline::builder()
        .work("flaky", Flaky)
        .retry(Retry::exponential(Duration::ZERO, Duration::ZERO).attempts(100))
        .build();
    assert_eq!(pipeline.submit(1).await.unwrap(), 1);
    let began = Instant::now();
    let failure = pipeline.submit_by(100, began + ms(35)).await.unwrap_err();
    assert!(matches!(failure, Failure::Failed { attempts: 3, .. }), "{failure}");
    assert_eq!(began.elapsed(), ms(30), "a fourth attempt would have taken until 40 ms");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_an_item_wherever_it_is() {
    let started = Arc::new(AtomicUsize::new(0));
    let count = started.clone();
    let pipeline = Pipeline::builder()
        .credits(1)
        .stage("wait", |time: u64| async move {
            tokio::time::sleep(ms(time)).await;
            Ok::<_, Classed>(time)
        })
        .workers(1)
        .stage("last", move |time| {
            count.fetch_add(1, SeqCst);
            async move { Ok::<_, Classed>(time) }
        })
        .build();
    let deadline = Instant::now() + ms(50);
    let outcomes = join_all([40, 20, 0].map(|time| pipeline.submit_by(time, deadline))).await;
    let stages: Vec<_> = outcomes.iter().map(|outcome| outcome.as_ref().err().map(Failure::stage)).collect();
    assert_eq!(stages, [None, Some(Some("wait")), Some(None)], "done, within a stage, before the first");
    assert!(outcomes[1..].iter().all(|outcome| matches!(outcome, Err(Failure::Expired { .. }))));
    let late = pipeline.submit_by(0, Instant::now()).await;
    assert!(matches!(late, Err(Failure::Expired { stage: None })));
    assert_eq!(started.load(SeqCst), 1, "nothing begins at or after its deadline");
    assert_eq!(pipeline.stats().expired, 3);
    assert_quiet(&pipeline);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_is_of_one_attempt() {
    let pipeline = Pipeline::builder()
        .stage("wait", |time: u64| async move {
            tokio::time::sleep(ms(time)).await;
            Ok::<_, Classed>(time)
        })
        .timeout(ms(30))
        .retry(Retry::exponential(Duration::ZERO, Duration::ZERO).attempts(2))
        .build();
    let began = Instant::now();
    assert_eq!(pipeline.submit(29).await.unwrap(), 29);
    let failure = pipeline.submit(40).await.unwrap_err();
    assert_eq!(failure.to_string(), "stage 'wait' was not done after 30ms, at attempt 2");
    assert_eq!(began.elapsed(), ms(29 + 2 * 30));
}

#[tokio::test(start_paused = true)]
async fn attempts_begin_at_the_rate_in_the_order_of_the_items() {
    let begun = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (seen, began) = (begun.clone(), Instant::now());
    let (two, three) = (NonZeroU32::new(2).unwrap(), NonZeroU32::new(3).unwrap());
    let pipeline = Pipeline::builder()
        .stage("call", move |x: u64| {
            seen.lock().unwrap().push((x, began.elapsed()));
            async move { Ok::<_, Classed>(x) }
        })
        .rate(two, ms(100), three)
        .build();
    join_all((0..9).map(|x| pipeline.submit(x))).await;
    let wanted: Vec<_> = (0..9).map(|x: u64| (x, ms(50 * x.saturating_sub(2)))).collect();
    assert_eq!(*begun.lock().unwrap(), wanted);
}

/// A dependency that can be switched off, and counts its calls.
fn dependency() -> (Arc<std::sync::atomic::AtomicBool>, Arc<AtomicUsize>, impl Fn(u64) -> Call + Clone) {
    let (is_up, calls) = (Arc::new(std::sync::atomic::AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (up, count) = (is_up.clone(), calls.clone());
    let call = move |x: u64| -> Call {
        count.fetch_add(1, SeqCst);
        let up = up.load(SeqCst);
        Box::pin(async move { if up { Ok(x) } else { Err(Classed::transient("down")) } })
    };
    (is_up, calls, call)
}

type Call = BoxFuture<'static, Result<u64, Classed>>;

#[tokio::test(start_paused = true)]
async fn a_retry_storm_adds_a_fifth_and_the_minimum_and_no_more() {
    let (is_up, calls, call) = dependency();
    let budget = RetryBudget::ratio(0.2).min_per_sec(10);
    let retry = Retry::exponential(ms(1), ms(20)).attempts(4).budget(budget);
    let pipeline = Pipeline::builder().stage("call", call).retry(retry).build();
    let second = async |pipeline: &Pipeline<u64, u64>| {
        for x in 0..1_000 {
            let item = tokio::spawn(pipeline.submit(x));
            tokio::time::advance(ms(1)).await;
            drop(item);
        }
    };
    for _ in 0..12 {
        second(&pipeline).await;
    }
    assert_eq!(calls.swap(0, SeqCst), 12_000, "nobody retries while all is well");
    is_up.store(false, SeqCst);
    for _ in 0..30 {
        second(&pipeline).await;
    }
    let storm = calls.swap(0, SeqCst);
    assert!(storm <= 30_000 + 2_000 + 10 * 31, "{storm} calls for 30,000 items");
    assert!(storm >= 32_000, "the budget is used: {storm}");
    is_up.store(true, SeqCst);
    let before = pipeline.stats().completed;
    second(&pipeline).await;
    tokio::time::advance(ms(100)).await;
    assert!(pipeline.stats().completed - before >= 1_000);
    assert!(calls.load(SeqCst) <= 1_000 + 250, "what waited to be retried comes on top");
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_calls_nobody_and_the_fallback_answers() {
    let (is_up, calls, call) = dependency();
    let rules = BreakerRules::default().at_least(5).window(ms(1_000), 10).open_for(ms(500), 0.0).half_open(2);
    let breaker = Breaker::seeded(rules, Random::seeded(1));
    let fallback =
        |x: u64, failure: Failure| async move { if x == 99 { Err(failure) } else { Ok(1_000 + x) } };
    let pipeline =
        Pipeline::builder().stage("call", call).breaker(breaker.clone()).fallback(fallback).build();
    is_up.store(false, SeqCst);
    for x in 0..20 {
        assert_eq!(pipeline.submit(x).await.unwrap(), 1_000 + x);
    }
    assert_eq!(calls.swap(0, SeqCst), 5, "the circuit opened after five");
    let failure = pipeline.submit(99).await.unwrap_err();
    assert!(matches!(failure, Failure::Open { .. }), "{failure}");
    assert!(matches!(failure.class(), Class::Overload { retry_after: Some(_) }));
    tokio::time::advance(ms(500)).await;
    is_up.store(true, SeqCst);
    assert_eq!(pipeline.stats().stages[0].breaker, Some(BreakerState::HalfOpen { free: 2, under_way: 0 }));
    assert_eq!(pipeline.submit(1).await.unwrap(), 1);
    assert_eq!(pipeline.submit(2).await.unwrap(), 2);
    assert_eq!(breaker.state(Instant::now()), BreakerState::Closed);
    assert_eq!(pipeline.stats().stages[0].fallbacks, 21);
    assert_quiet(&pipeline);
}

#[tokio::test(start_paused = true)]
async fn a_permanent_error_opens_no_circuit_and_is_not_tried_again() {
    let pipeline = Pipeline::builder()
        .stage("call", |_: u64| async move { Err::<u64, _>(Classed::permanent("no such thing")) })
        .breaker(Breaker::new(BreakerRules::default().at_least(2)))
        .retry(Retry::exponential(ms(1), ms(1)).attempts(5))
        .build();
    for x in 0..20 {
        assert!(matches!(pipeline.submit(x).await, Err(Failure::Failed { attempts: 1, .. })));
    }
}
