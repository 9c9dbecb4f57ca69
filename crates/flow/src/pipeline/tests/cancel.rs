//! An item may be dropped at any moment, and leaves nothing behind.

use std::num::NonZeroU32;

use super::*;
use crate::breaker::{Breaker, BreakerRules, BreakerState};
use crate::retry::Retry;

/// A pipeline in which an item has to wait in as many ways as there are, with a little of everything for one.
fn narrow(started: Arc<AtomicUsize>) -> Pipeline<u32, u32> {
    let one = NonZeroU32::new(1).unwrap();
    let tried = Arc::new(AtomicUsize::new(0));
    Pipeline::builder()
        .credits(3)
        .stage("rated", |x: u32| async move {
            tokio::time::sleep(ms(1)).await;
            Ok::<_, Classed>(x)
        })
        .workers(1)
        .rate(one, ms(1), one)
        .stage("flaky", move |x| {
            let tried = tried.clone();
            async move {
                tokio::time::sleep(ms(1)).await;
                if tried.fetch_add(1, SeqCst).is_multiple_of(2) {
                    Err(Classed::transient("again"))
                } else {
                    Ok(x)
                }
            }
        })
        .workers(1)
        .buffer(1)
        .timeout(ms(100))
        .breaker(Breaker::new(BreakerRules::default().failure_rate(1.0)))
        .retry(Retry::exponential(ms(2), ms(2)).attempts(10))
        .stage("last", move |x| {
            started.fetch_add(1, SeqCst);
            async move { Ok::<_, Classed>(x) }
        })
        .workers(2)
        .build()
}

#[tokio::test(start_paused = true)]
async fn an_item_dropped_after_any_number_of_polls_leaves_nothing_behind() {
    let started = Arc::new(AtomicUsize::new(0));
    let pipeline = narrow(started.clone());
    let (mut polls, mut is_done) = (0, false);
    while !is_done {
        // Others are there as well, so that it has to wait for everything.
        let others: Vec<_> = (0..3).map(|x| tokio::spawn(pipeline.submit(x))).collect();
        tokio::task::yield_now().await;
        let mut item = Box::pin(pipeline.submit(100));
        for _ in 0..polls {
            is_done = futures::poll!(&mut item).is_ready();
            if is_done {
                break;
            }
            tokio::time::advance(ms(1)).await;
        }
        let before = started.load(SeqCst);
        drop(item);
        for other in others {
            other.await.unwrap().unwrap();
        }
        assert!(started.load(SeqCst) <= before + 3, "a dropped item starts no further stage");
        assert_quiet(&pipeline);
        polls += 1;
    }
    assert!(polls > 5, "it has to wait: {polls}");
    let stats = pipeline.stats();
    assert_eq!(stats.completed + stats.cancelled, stats.accepted);
    assert!(stats.cancelled > 0 && stats.stages.iter().take(2).all(|stage| stage.abandoned > 0), "{stats:?}");
    assert_eq!(stats.stages[1].breaker, Some(BreakerState::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_run_dropped_after_any_number_of_outcomes_cancels_what_is_left() {
    let started = Arc::new(AtomicUsize::new(0));
    let pipeline = narrow(started.clone());
    for taken in 0..20 {
        let mut run = pipeline.run(stream::iter(0..20));
        for _ in 0..taken {
            run.next().await.unwrap().unwrap();
        }
        drop(run);
        tokio::task::yield_now().await;
        assert_quiet(&pipeline);
    }
    let before = started.load(SeqCst);
    tokio::time::advance(ms(1_000)).await;
    assert_eq!(started.load(SeqCst), before, "nothing goes on behind the caller's back");
    let stats = pipeline.stats();
    assert_eq!(stats.completed + stats.cancelled, stats.accepted);
}

#[tokio::test(start_paused = true)]
async fn a_drain_dropped_midway_gives_the_credits_back() {
    let pipeline = narrow(Arc::default());
    let items: Vec<_> = (0..3).map(|x| tokio::spawn(pipeline.submit(x))).collect();
    tokio::task::yield_now().await;
    {
        let mut drain = Box::pin(pipeline.drain(ms(1_000)));
        assert!(futures::poll!(&mut drain).is_pending());
    }
    assert!(matches!(pipeline.submit(4).await, Err(Failure::Closed)));
    for item in items {
        item.await.unwrap().unwrap();
    }
    assert_quiet(&pipeline);
    assert_eq!(pipeline.drain(ms(0)).await.cut, 0);
    assert_eq!(pipeline.drain(ms(0)).await.cut, 0, "a second drain finds it drained");
}
