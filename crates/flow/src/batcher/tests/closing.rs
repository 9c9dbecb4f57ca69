//! A batcher that is closed, drained and cut, and one behind layers of `tower`.

use tower::load_shed::LoadShed;
use tower::{Service, ServiceExt};

use super::*;

#[tokio::test(start_paused = true)]
async fn a_closed_batcher_serves_what_is_inside_at_once_and_takes_no_more() {
    let (batcher, served) = echo(Batch::up_to(8).within(ms(500)).when_idle(WhenIdle::Wait), ms(10));
    let items: Vec<_> = (0..3).map(|x| tokio::spawn(batcher.submit(x))).collect();
    tokio::time::sleep(ms(5)).await;
    let drained = batcher.drain(ms(1_000)).await;
    assert_eq!(drained.cut, 0);
    assert!(join_all(items).await.into_iter().all(|out| out.unwrap().is_ok()));
    assert_eq!(*served.lock().unwrap(), [(ms(5), vec![0, 1, 2])], "nobody else could come");
    let refused = batcher.submit(9).await.unwrap_err();
    assert!(matches!(refused, BatchFailure::Closed) && refused.class() == Class::Transient, "{refused}");
    assert_eq!(batcher.drain(ms(0)).await.cut, 0, "a second drain finds it empty");
    assert_quiet(&batcher);
}

#[tokio::test(start_paused = true)]
async fn a_drain_cuts_what_waits_and_what_is_being_served_once_its_time_is_over() {
    let (batcher, served) = echo(Batch::up_to(2).at_most(1).capacity(5), ms(100));
    let items: Vec<_> = (0..8).map(|x| tokio::spawn(batcher.submit(x))).collect();
    tokio::time::sleep(ms(150)).await;
    let began = Instant::now();
    let drained = batcher.drain(ms(30)).await;
    assert_eq!(
        (began.elapsed(), drained.cut),
        (ms(30), 5),
        "two are done, five were inside and one had no place"
    );
    let outcomes: Vec<_> = join_all(items).await.into_iter().map(Result::unwrap).collect();
    let count = |wanted: fn(&Result<u64, BatchFailure<Classed>>) -> bool| {
        outcomes.iter().filter(|outcome| wanted(outcome)).count()
    };
    assert_eq!(count(Result::is_ok), 2);
    assert_eq!(count(|outcome| matches!(outcome, Err(BatchFailure::Cut))), 5);
    assert_eq!(count(|outcome| matches!(outcome, Err(BatchFailure::Closed))), 1);
    assert_eq!(began.elapsed(), ms(30), "nobody waited for the batch under way");
    assert_eq!(served.lock().unwrap().len(), 2);
    tokio::time::sleep(ms(1)).await;
    assert_quiet(&batcher);
}

#[tokio::test(start_paused = true)]
async fn a_drain_dropped_midway_gives_the_places_back() {
    let (batcher, _) = echo(Batch::up_to(2), ms(100));
    let item = tokio::spawn(batcher.submit(1));
    tokio::time::sleep(ms(1)).await;
    for millis in [0, 10, 50] {
        assert!(timeout(ms(millis), batcher.drain(ms(1_000))).await.is_err());
    }
    assert_eq!(item.await.unwrap().unwrap(), 1);
    tokio::time::sleep(ms(1)).await;
    assert_quiet(&batcher);
}

#[tokio::test(start_paused = true)]
async fn a_burst_through_a_client_is_shed_only_where_there_is_no_place() {
    let (batcher, _) = echo(Batch::up_to(100).capacity(1_000), ms(10));
    let mut shedding = LoadShed::new(batcher.client());
    let mut calls = Vec::new();
    for x in 0..1_001 {
        calls.push(shedding.ready().await.unwrap().call(x));
    }
    let outcomes = join_all(calls).await;
    let shed: Vec<usize> = (0..).zip(&outcomes).filter_map(|(x, out)| out.is_err().then_some(x)).collect();
    assert_eq!(shed, [1_000]);
    drop(shedding);
    tokio::time::sleep(ms(1)).await;
    assert_quiet(&batcher);
    let mut client = batcher.client();
    client.ready().await.unwrap();
    batcher.close();
    assert_eq!(client.call(7).await.unwrap(), 7, "it held its place before");
    assert!(matches!(client.ready().await, Err(BatchFailure::Closed)));
}
