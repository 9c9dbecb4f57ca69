//! Leases: how they end, what comes back and when, and what is given up.

use super::*;

fn leased(capacity: usize) -> Builder<u32> {
    Queue::builder(Capacity::items(capacity)).policy(fifo()).lease(ms(100))
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_runs_out_loses_the_item() {
    let queue = leased(9).build();
    queue.put(7, Ticket::default()).await.unwrap();
    let stalled = queue.take().await.unwrap();
    let second = queue.take().await.unwrap();
    assert_eq!((queue.now(), *second, second.attempt()), (ms(100), 7, 2));
    assert_eq!(second.history()[0].end, Ending::RanOut);
    let late = stalled.ack().await.unwrap_err();
    assert_eq!(late, LeaseError::Ended { id: second.id(), attempt: 1 });
    for _ in 0..5 {
        sleep(ms(80)).await;
        second.extend(ms(100)).unwrap();
    }
    second.ack().await.unwrap();
    let totals = queue.stats().totals;
    assert_eq!((totals.taken, totals.done, totals.ran_out), (2, 1, 1));
    assert_at_rest(&queue);
}

#[tokio::test(start_paused = true)]
async fn leases_of_several_queues_are_acknowledged_in_one_go_and_each_is_answered() {
    let queues = [leased(9).build(), leased(9).build()];
    let mut leases = Vec::new();
    for queue in &queues {
        for item in 0..3 {
            queue.put(item, Ticket::default()).await.unwrap();
        }
        leases.extend(queue.take_many(3).await);
    }
    let late = leases[1].id();
    leases
        .iter()
        .enumerate()
        .filter(|(at, _)| *at != 1)
        .for_each(|(_, lease)| lease.extend(ms(500)).unwrap());
    advance(ms(200)).await;
    let again = queues[0].take().await.unwrap();
    assert_eq!((again.id(), again.attempt()), (late, 2));
    let mut expected = vec![Ok(()); 6];
    expected[1] = Err(LeaseError::Ended { id: late, attempt: 1 });
    assert_eq!(Lease::ack_many(leases).await, expected);
    again.ack().await.unwrap();
    assert_eq!(Lease::<u32>::ack_many([]).await, []);
    queues.iter().for_each(assert_at_rest);
    let leases = queues[0].put(7, Ticket::default()).await.map(|_| queues[0].try_take().unwrap());
    drop(Lease::ack_many(leases));
    assert_eq!(*queues[0].try_take().unwrap(), 7, "what nobody polled says nothing");
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_lease_runs_out_too() {
    let queue = leased(9).build();
    queue.put(7, Ticket::default()).await.unwrap();
    std::mem::forget(queue.take().await.unwrap());
    queue.take().await.unwrap().ack().await.unwrap();
    assert_at_rest(&queue);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_lease_gives_the_item_back_at_once_and_a_nack_later() {
    let queue = Queue::builder(Capacity::items(9)).policy(fifo()).build();
    queue.put(1, Ticket::default()).await.unwrap();
    queue.put(2, Ticket::default()).await.unwrap();
    drop(queue.take().await.unwrap());
    let first = queue.take().await.unwrap();
    assert_eq!((*first, first.attempt()), (1, 2), "it has its place again");
    first.nack(ms(50)).await.unwrap();
    assert_eq!(queue.len(), 2);
    queue.take().await.unwrap().ack().await.unwrap();
    let first = queue.take().await.unwrap();
    assert_eq!((queue.now(), *first, first.attempt()), (ms(50), 1, 3));
    let ends: Vec<_> = first.history().iter().map(|attempt| attempt.end).collect();
    assert_eq!(ends, [Ending::Returned, Ending::Nacked(ms(50))]);
    first.ack().await.unwrap();
    assert_at_rest(&queue);
}

#[tokio::test(start_paused = true)]
async fn the_dead_are_listed_tried_again_and_thrown_away() {
    let queue = leased(9).max_attempts(times(2)).dead_letters(2).build();
    for item in 1..=3 {
        queue.put(item, Ticket::default()).await.unwrap();
    }
    for _ in 0..2 {
        drop(queue.take().await.unwrap());
    }
    queue.take().await.unwrap().dead_letter("poison").await.unwrap();
    let dead = queue.dead_letters();
    let look = |letter: &DeadLetter<u32>| (letter.item, letter.cause().clone(), letter.attempts());
    assert_eq!(dead.list(look), [(1, Cause::Attempts, 2), (2, Cause::Verdict("poison".into()), 1)]);
    assert_eq!(dead.list(|letter| letter.history().len()), [2, 1]);
    queue.take().await.unwrap().dead_letter("too many").await.unwrap();
    assert_eq!(dead.list(|letter| letter.item), [2, 3], "the oldest goes");
    assert_eq!(queue.stats().totals.forgotten, 1);
    let id = dead.list(DeadLetter::id)[0];
    assert!(dead.retry(id).await.unwrap() && !dead.retry(id).await.unwrap());
    let again = queue.take().await.unwrap();
    assert_eq!((*again, again.attempt()), (2, 1));
    again.ack().await.unwrap();
    assert_eq!(dead.purge_where(|letter| letter.item > 5).await.unwrap().len(), 0);
    assert_eq!(dead.retry_all().await.unwrap(), 1);
    queue.take().await.unwrap().dead_letter("again").await.unwrap();
    assert_eq!(dead.purge_all().await.unwrap()[0].item, 3);
    assert!(dead.is_empty());
    assert_at_rest(&queue);
}

#[tokio::test(start_paused = true)]
async fn the_expired_lie_among_the_dead_if_asked() {
    let queue = leased(9).expiry(Expiry::DeadLetter).build();
    queue.put(1, Ticket::default().deadline(ms(10))).await.unwrap();
    sleep(ms(11)).await;
    let dead = queue.dead_letters();
    assert_eq!(dead.list(|letter| (letter.cause().clone(), letter.died())), [(Cause::Expired, ms(10))]);
    dead.retry_all().await.unwrap();
    queue.take().await.unwrap().ack().await.unwrap();
    assert_at_rest(&queue);
}

#[tokio::test(start_paused = true)]
async fn takers_of_a_closed_queue_learn_that_nothing_can_come() {
    let queue = leased(9).build();
    queue.put(1, Ticket::default()).await.unwrap();
    let lease = queue.take().await.unwrap();
    let takers: Vec<_> = (0..3)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move { queue.take().await.map(|lease| *lease) })
        })
        .collect();
    let_others_run().await;
    queue.close();
    let_others_run().await;
    assert!(takers.iter().all(|taker| !taker.is_finished()), "what is out may come back");
    lease.ack().await.unwrap();
    for taker in takers {
        assert_eq!(taker.await.unwrap(), None);
    }
    assert_eq!(queue.put(2, Ticket::default()).await.unwrap_err().reason, Rejection::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_takers_and_hands_over_the_rest() {
    for (within, left) in [(ms(1000), 0), (ms(45), 6)] {
        let queue = leased(100).build();
        for item in 0..10 {
            queue.put(item, Ticket::default()).await.unwrap();
        }
        let taker = tokio::spawn({
            let queue = queue.clone();
            async move {
                let mut done = 0;
                while let Some(lease) = queue.take().await {
                    sleep(ms(10)).await;
                    done += usize::from(lease.ack().await.is_ok());
                }
                done
            }
        });
        let_others_run().await;
        let start = queue.now();
        let drained = queue.drain(within).await;
        assert!(queue.now() - start <= within);
        assert_eq!((drained.left.len(), drained.out), (left, 0));
        assert_eq!(
            taker.await.unwrap() + left,
            10,
            "nothing is lost, and the late acknowledgement does not count"
        );
        assert_at_rest(&queue);
    }
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_keeps_the_lease_for_as_long_as_the_work_takes() {
    let queue = leased(9).build();
    queue.put(7, Ticket::default()).await.unwrap();
    let lease = queue.take().await.unwrap();
    lease.with_heartbeat(sleep(ms(1_000))).await.unwrap();
    assert_eq!(queue.stats().totals.ran_out, 0);
    lease.with_heartbeat(std::future::ready(())).await.unwrap();
    // Dropped at any time, the work leaves the lease as it was, and that runs out by itself.
    for millis in [0, 50, 250] {
        assert!(tokio::time::timeout(ms(millis), lease.with_heartbeat(sleep(ms(1_000)))).await.is_err());
        assert_eq!(queue.stats().totals.ran_out, 0);
    }
    let second = queue.take().await.unwrap();
    assert_eq!((*second, second.attempt()), (7, 2));
    let lost = lease.with_heartbeat(sleep(ms(1_000))).await.unwrap_err();
    assert_eq!(lost, LeaseError::Ended { id: second.id(), attempt: 1 });
    second.ack().await.unwrap();
    assert_at_rest(&queue);

    let endless = Queue::new(Capacity::items(9));
    endless.put(7, Ticket::default()).await.unwrap();
    let lease = endless.take().await.unwrap();
    lease.with_heartbeat(sleep(ms(1_000))).await.unwrap();
    lease.ack().await.unwrap();
}
