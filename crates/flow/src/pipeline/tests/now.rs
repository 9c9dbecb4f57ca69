//! An item that has to wait for nothing is a call, and one that would have to is given back as if it had not come.

use super::*;
use crate::breaker::BreakerRules;
use crate::work::{Cx, Work};

/// Halves even numbers at once; odd ones need a future, which rounds them down. It refuses 6 and panics at 8.
#[derive(Clone, Copy)]
struct Half;

impl Work<u64> for Half {
    type Out = u64;
    type Err = Classed;

    async fn call<'a>(&'a self, _: Cx<'a>, input: u64) -> Result<u64, Classed> {
        tokio::task::yield_now().await;
        Ok(input / 2)
    }

    fn call_now(&self, _: Cx<'_>, input: u64) -> Result<Result<u64, Classed>, u64> {
        assert!(input != 8, "8 is too much");
        match input {
            6 => Ok(Err(Classed::permanent("6 is refused"))),
            even if even % 2 == 0 => Ok(Ok(even / 2)),
            odd => Err(odd),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_needs_no_future_is_on_the_same_books() {
    let pipeline = Pipeline::builder().credits(2).work("half", Half).workers(1).build();
    assert_eq!(pipeline.submit_now(4).unwrap().unwrap(), 2);
    let told = |outcome: Result<Result<u64, Failure>, u64>| outcome.unwrap().unwrap_err().to_string();
    assert_eq!(told(pipeline.submit_now(6)), "stage 'half' failed at attempt 1: 6 is refused");
    assert_eq!(told(pipeline.submit_now(8)), "stage 'half' panicked: 8 is too much");
    assert_eq!(pipeline.submit_now(5).unwrap_err(), 5);
    assert_eq!(pipeline.submit(5).await.unwrap(), 2);
    let stats = pipeline.stats();
    assert_eq!((stats.accepted, stats.completed, stats.failed, stats.cancelled), (4, 2, 2, 0));
    let half = stats.stage("half").unwrap();
    assert_eq!((half.completed, half.errors, half.abandoned, half.latency.count()), (2, 2, 0, 4));
    assert_quiet(&pipeline);
}

#[tokio::test(start_paused = true)]
async fn what_would_have_to_wait_is_given_back() {
    let pipeline = Pipeline::builder().credits(2).work("half", Half).workers(1).build();
    let mut busy = Box::pin(pipeline.submit(5));
    assert!(futures::poll!(&mut busy).is_pending());
    assert_eq!(pipeline.submit_now(4).unwrap_err(), 4, "the only worker is taken");
    let mut next = Box::pin(pipeline.submit(7));
    assert!(futures::poll!(&mut next).is_pending());
    assert_eq!(pipeline.submit_now(4).unwrap_err(), 4, "so are all credits");
    assert_eq!(pipeline.stats().accepted, 2);
    assert_eq!((busy.await.unwrap(), next.await.unwrap()), (2, 3));
    pipeline.close();
    assert_eq!(pipeline.submit_now(4).unwrap_err(), 4, "nothing is taken in any more");
    assert!(matches!(pipeline.submit(4).await, Err(Failure::Closed)));
    assert_quiet(&pipeline);
}

#[tokio::test(start_paused = true)]
async fn a_stage_that_may_wait_before_or_after_its_work_gives_every_item_back() {
    let rate = std::num::NonZeroU32::new(1000).unwrap();
    let second = Duration::from_secs(1);
    let one = || Pipeline::builder().work("half", Half);
    let slow = [
        one().rate(rate, second, rate).build(),
        one().breaker(crate::breaker::Breaker::new(BreakerRules::default())).build(),
        one().retry(crate::Retry::exponential(ms(1), ms(2)).attempts(2)).build(),
        one().fallback(|item, _| async move { Ok(item) }).build(),
        one().work("again", Half).build(),
    ];
    for pipeline in slow {
        assert_eq!(pipeline.submit_now(4).unwrap_err(), 4);
        assert_eq!(pipeline.stats().accepted, 0);
        assert_eq!(pipeline.submit(16).await.unwrap() % 4, 0);
        assert_quiet(&pipeline);
    }
}
