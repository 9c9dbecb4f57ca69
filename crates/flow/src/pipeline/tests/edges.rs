//! Where a pipeline meets other things: a queue that feeds it, and layers of `tower` around it.

use std::num::NonZeroU32;

use tower::load_shed::LoadShed;
use tower::{Service, ServiceExt};

use super::*;
use crate::queue::{Capacity, Queue, Ticket};
use crate::retry::Backoff;

#[tokio::test(start_paused = true)]
async fn a_queue_hears_what_became_of_its_items() {
    let capacity = Capacity::items(100);
    let queue = Queue::builder(capacity).max_attempts(NonZeroU32::new(3).unwrap()).build();
    let tries = Arc::new(AtomicUsize::new(0));
    let count = tries.clone();
    let pipeline = Pipeline::builder()
        .credits(4)
        .stage("judge", move |x: u32| {
            let tries = if x == 7 { count.fetch_add(1, SeqCst) } else { 0 };
            async move {
                tokio::time::sleep(ms(1)).await;
                match x {
                    7 if tries < 2 => Err(Classed::transient("not yet")),
                    8 => Err(Classed::transient("never")),
                    9 => Err(Classed::permanent("no such thing")),
                    _ => Ok(x),
                }
            }
        })
        .build();
    for x in 0..20 {
        queue.put(x, Ticket::default()).await.unwrap();
    }
    let late = Ticket::default().deadline(queue.now() + ms(3));
    queue.put(20, late).await.unwrap();
    queue.close();
    let served = pipeline.serve(&queue, Backoff::exponential(ms(10), ms(100))).await;
    assert_eq!((served.done, served.dead, served.unheard), (18, 1, 0), "{served:?}");
    assert_eq!(served.returned, 2 + 3, "7 failed twice, 8 three times");
    assert!(queue.is_empty());
    let mut causes: Vec<String> = queue.dead_letters().list(|letter| letter.cause().to_string());
    causes.sort();
    assert_eq!(causes.len(), 2, "{causes:?}");
    assert_quiet(&pipeline);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_while_its_item_is_inside_or_waits_for_a_credit() {
    let queue = Queue::builder(Capacity::items(100)).lease(ms(30)).build();
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let pipeline = Pipeline::builder()
        .credits(2)
        .stage("long", move |x: u32| {
            count.fetch_add(1, SeqCst);
            async move {
                tokio::time::sleep(ms(200)).await;
                Ok::<_, Classed>(x)
            }
        })
        .build();
    for x in 0..6 {
        queue.put(x, Ticket::default()).await.unwrap();
    }
    queue.close();
    let served = pipeline.serve(&queue, Backoff::exponential(ms(1), ms(1))).await;
    assert_eq!(
        (served.done, served.unheard, calls.load(SeqCst)),
        (6, 0, 6),
        "each was served once: {served:?}"
    );
    assert_eq!(queue.stats().totals.ran_out, 0);
    assert_quiet(&pipeline);
}

#[tokio::test(start_paused = true)]
async fn a_queue_gets_back_what_was_under_way() {
    let queue = Queue::new(Capacity::items(100));
    for x in 0..10u32 {
        queue.put(x, Ticket::default()).await.unwrap();
    }
    let pipeline = Pipeline::builder()
        .credits(3)
        .stage("wait", |x: u32| async move {
            tokio::time::sleep(ms(10)).await;
            Ok::<_, Classed>(x)
        })
        .build();
    let again = Backoff::exponential(ms(1), ms(1));
    assert!(timeout(ms(25), pipeline.serve(&queue, again)).await.is_err());
    tokio::task::yield_now().await;
    assert_eq!(queue.len(), 4, "six of the ten are done");
    assert_quiet(&pipeline);

    let (served, drained) = tokio::join!(pipeline.serve(&queue, again), async {
        tokio::time::sleep(ms(5)).await;
        pipeline.drain(ms(2)).await
    });
    assert_eq!((drained.cut, served.done, served.returned), (3, 0, 3));
    tokio::time::sleep(ms(1)).await;
    assert_eq!(queue.len(), 4, "nothing is lost");
}

#[tokio::test(start_paused = true)]
async fn a_burst_into_an_empty_pipeline_is_not_shed() {
    let pipeline = Pipeline::builder()
        .credits(10_000)
        .stage("wait", |x: u32| async move {
            tokio::time::sleep(ms(10)).await;
            Ok::<_, Classed>(x)
        })
        .build();
    let mut shedding = LoadShed::new(pipeline.client());
    let mut calls = Vec::new();
    for x in 0..10_001 {
        calls.push(shedding.ready().await.unwrap().call(x));
    }
    let outcomes = join_all(calls).await;
    let shed: Vec<usize> = (0..).zip(&outcomes).filter_map(|(x, out)| out.is_err().then_some(x)).collect();
    assert_eq!(shed, [10_000], "the one for which there was no credit");
    drop(shedding);
    assert_quiet(&pipeline);
}

#[tokio::test(start_paused = true)]
async fn a_client_is_ready_when_it_holds_a_credit() {
    let pipeline =
        Pipeline::builder().credits(1).stage("pass", |x: u32| async move { Ok::<_, Classed>(x) }).build();
    let mut first = pipeline.client();
    first.ready().await.unwrap();
    let mut second = first.clone();
    assert!(futures::poll!(second.ready()).is_pending(), "a clone holds none");
    assert_eq!(first.call(1).await.unwrap(), 1);
    assert_eq!(second.ready().await.unwrap().call(2).await.unwrap(), 2);
    first.ready().await.unwrap();
    drop((first, second));
    assert_quiet(&pipeline);
    pipeline.close();
    assert!(matches!(pipeline.client().ready().await, Err(Failure::Closed)));
}
