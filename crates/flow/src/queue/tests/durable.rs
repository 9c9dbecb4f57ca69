//! Queues on a store: what is on disk when, what is there after a crash, and what a store that fails does.

use std::collections::BTreeSet;
use std::pin::pin;

use futures::FutureExt;

use super::*;
use crate::Random;
use crate::queue::store::{MemoryStore, Recovered};

pub(super) fn open(store: &MemoryStore, recovered: Recovered) -> Queue<String> {
    let queue = Queue::builder(Capacity::items(9)).policy(fifo()).lease(ms(100)).max_attempts(times(3));
    let queue = queue.dedupe(NonZeroUsize::new(99).unwrap(), Duration::from_secs(60));
    queue.open(Arc::new(store.clone()), recovered).unwrap()
}

pub(super) fn keyed(key: &str) -> Ticket {
    Ticket::of("owner").level(2).cost(3).key(key)
}

#[tokio::test(start_paused = true)]
async fn an_item_is_there_once_it_is_settled_and_gone_once_that_is() {
    let store = MemoryStore::held();
    let queue = open(&store, Recovered::default());
    let mut put = pin!(queue.put("work".to_owned(), keyed("a")));
    assert!(put.as_mut().now_or_never().is_none());
    assert!(queue.try_take().is_none(), "nobody works on what is not on disk");
    assert_eq!((queue.len(), store.survivors().items.len()), (1, 0));
    let mut again = pin!(queue.put("work".to_owned(), keyed("a")));
    assert!(again.as_mut().now_or_never().is_none(), "the first one's answer is not known");
    store.settle();
    let id = put.await.unwrap();
    assert_eq!(again.await.unwrap(), id);
    assert_eq!(store.survivors().items[0].item, b"work");
    let lease = queue.take().await.unwrap();
    let mut ack = pin!(lease.ack());
    assert!(ack.as_mut().now_or_never().is_none());
    assert_eq!((queue.stats().in_flight, store.survivors().items.len()), (1, 1));
    store.settle();
    ack.await.unwrap();
    assert!(store.survivors().items.is_empty());
    assert_at_rest(&queue);
    assert_eq!(queue.try_put(String::new(), keyed("b")).unwrap_err().reason, Rejection::Durable);
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_of_several_are_settled_together_or_fail_together() {
    for (way, fails) in [("settled", false), ("dropped", false), ("failed", true)] {
        let store = MemoryStore::held();
        let queue = open(&store, Recovered::default());
        for item in ["a", "b", "c"] {
            let mut put = pin!(queue.put(item.to_owned(), keyed(item)));
            assert!(put.as_mut().now_or_never().is_none());
            store.settle();
            put.await.unwrap();
        }
        let leases = queue.take_many(3).await;
        let mut acks = Box::pin(Lease::ack_many(leases));
        assert!(acks.as_mut().now_or_never().is_none());
        assert_eq!((queue.stats().in_flight, store.survivors().items.len()), (3, 3), "{way}");
        match way {
            "settled" => {
                store.settle();
                assert_eq!(acks.await, vec![Ok(()); 3]);
            }
            "dropped" => {
                drop(acks);
                store.settle();
            }
            _ => {
                store.fill();
                store.settle();
                assert!(acks.await.iter().all(|answer| matches!(answer, Err(LeaseError::Store(_)))));
                assert_eq!((queue.len(), queue.stats().in_flight), (3, 0), "they are back");
            }
        }
        if !fails {
            assert!(store.survivors().items.is_empty(), "{way}");
            assert_at_rest(&queue);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_brings_back_items_attempts_dead_letters_keys_and_names() {
    let store = MemoryStore::new();
    let queue = open(&store, Recovered::default());
    let mut ids = Vec::new();
    for item in ["done", "dead", "tried", "waiting"] {
        ids.push(queue.put(item.to_owned(), keyed(item)).await.unwrap());
    }
    queue.take().await.unwrap().ack().await.unwrap();
    queue.take().await.unwrap().dead_letter("poison").await.unwrap();
    drop(queue.take().await.unwrap());
    queue.put("last".to_owned(), keyed("last")).await.unwrap();
    advance(ms(50)).await;
    let (store, recovered) = store.crash();
    let queue = open(&store, recovered);
    let dead = queue.dead_letters().list(|letter| (letter.id(), letter.item.clone(), letter.cause().clone()));
    assert_eq!(dead, [(ids[1], "dead".to_owned(), Cause::Verdict("poison".to_owned()))]);
    for (key, id) in ["done", "dead", "tried", "waiting"].iter().zip(&ids) {
        assert_eq!(queue.put(String::new(), keyed(key)).await.unwrap(), *id, "{key}");
    }
    let tried = queue.take().await.unwrap();
    assert_eq!((tried.as_str(), tried.attempt(), tried.id()), ("tried", 2, ids[2]));
    assert_eq!((tried.ticket().level, tried.ticket().cost, tried.ticket().bytes), (2, 3, 5));
    tried.ack().await.unwrap();
    assert!(queue.put("new".to_owned(), keyed("new")).await.unwrap() > ids[3], "names are not used again");
    assert_eq!(queue.dead_letters().retry_all().await.unwrap(), 1);
    for expected in ["dead", "waiting", "last", "new"] {
        let lease = queue.take().await.unwrap();
        assert_eq!(*lease, expected);
        lease.ack().await.unwrap();
    }
    assert_at_rest(&queue);
    assert!(store.survivors().items.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_brings_its_taker_down_each_time_is_given_up() {
    let mut store = MemoryStore::new();
    let mut recovered = Recovered::default();
    for attempt in 1..=3 {
        let queue = open(&store, recovered);
        if attempt == 1 {
            queue.put("poison".to_owned(), keyed("a")).await.unwrap();
        }
        let lease = queue.take().await.unwrap();
        assert_eq!(lease.attempt(), attempt);
        store.settle();
        (store, recovered) = store.crash();
        std::mem::forget(lease);
    }
    let queue = open(&store, recovered);
    assert_eq!(
        queue.dead_letters().list(|letter| (letter.cause().clone(), letter.attempts())),
        [(Cause::Attempts, 3)]
    );
    assert!(queue.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_loses_nothing() {
    let store = MemoryStore::held();
    let queue = open(&store, Recovered::default());
    let settle = |store: &MemoryStore| store.settle();
    let mut put = pin!(queue.put("first".to_owned(), keyed("a")));
    assert!(put.as_mut().now_or_never().is_none());
    settle(&store);
    put.await.unwrap();
    store.fill();
    let mut put = pin!(queue.put("second".to_owned(), keyed("b")));
    assert!(put.as_mut().now_or_never().is_none());
    settle(&store);
    let rejected = put.await.unwrap_err();
    assert_eq!(rejected.item, "second");
    assert!(matches!(rejected.reason, Rejection::Store(_)), "{rejected}");
    let lease = queue.take().await.unwrap();
    let mut ack = pin!(lease.ack());
    assert!(ack.as_mut().now_or_never().is_none());
    settle(&store);
    assert!(matches!(ack.await, Err(LeaseError::Store(_))));
    assert_eq!((queue.len(), queue.stats().in_flight), (1, 0), "it is on disk, so it is handed out again");
    store.make_room();
    let mut put = pin!(queue.put("second".to_owned(), keyed("b")));
    assert!(put.as_mut().now_or_never().is_none(), "its key is free again");
    settle(&store);
    put.await.unwrap();
    store.fail("the disk is gone");
    let many = [("third".to_owned(), keyed("c")), ("fourth".to_owned(), keyed("d"))];
    let error = queue.put_many(many).await.unwrap_err();
    assert_eq!((error.taken.len(), error.rejected.item.as_str(), error.rest.len()), (0, "third", 1));
    let survivors: Vec<_> = store.survivors().items.into_iter().map(|item| item.item).collect();
    assert_eq!(survivors, [b"first".to_vec(), b"second".to_vec()]);
    assert_eq!(queue.stats().depth, 2);
}

#[tokio::test(start_paused = true)]
async fn a_drained_queue_opens_again_with_exactly_what_was_not_done() {
    let store = MemoryStore::new();
    let queue = open(&store, Recovered::default());
    for name in ["done", "dead", "out", "put off", "waiting"] {
        queue.put(name.to_owned(), keyed(name)).await.unwrap();
    }
    queue.take().await.unwrap().ack().await.unwrap();
    queue.take().await.unwrap().dead_letter("poison").await.unwrap();
    let stalled = queue.take().await.unwrap();
    queue.take().await.unwrap().nack(ms(10_000)).await.unwrap();
    let start = queue.now();
    let drained = queue.drain(ms(50)).await;
    assert_eq!((queue.now() - start, drained.left.len(), drained.out), (ms(50), 3, 0));
    assert!(stalled.ack().await.is_err(), "it was called back");
    assert_at_rest(&queue);
    store.settle();
    let (store, recovered) = store.crash();
    let queue = open(&store, recovered);
    assert_eq!(queue.dead_letters().list(|letter| letter.item.clone()), ["dead"]);
    for expected in ["out", "put off", "waiting"] {
        let lease = queue.take().await.unwrap();
        assert_eq!(*lease, expected);
        lease.ack().await.unwrap();
    }
    assert_at_rest(&queue);
}

/// A put is dropped before, while and after it is noted; a crash follows or not.
#[tokio::test(start_paused = true)]
async fn a_put_that_is_dropped_is_in_the_queue_or_not() {
    for is_polled in [false, true] {
        let store = MemoryStore::held();
        let queue = open(&store, Recovered::default());
        {
            let mut put = pin!(queue.put("work".to_owned(), keyed("a")));
            if is_polled {
                assert!(put.as_mut().now_or_never().is_none());
            }
        }
        let_others_run().await;
        assert!(queue.try_take().is_none());
        store.settle();
        let_others_run().await;
        assert_eq!(queue.try_take().is_some(), is_polled);
        assert_eq!(store.survivors().items.len(), usize::from(is_polled));
        assert_eq!(queue.len(), usize::from(is_polled));
    }
}

/// Random puts, takes and acknowledgements, some dropped half-way, with a crash at a random moment: what was
/// acknowledged as put is there or was acknowledged as done, and nothing else is there but what was put.
#[tokio::test(start_paused = true)]
async fn after_a_crash_everything_acknowledged_is_there() {
    for seed in 0..2_000 {
        let mut random = Random::seeded(seed);
        let store = MemoryStore::held();
        let queue = open(&store, Recovered::default());
        let (mut put, mut done, mut perhaps) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for step in 0..random.below(30) {
            if random.below(2) == 0 {
                store.settle();
            }
            let_others_run().await;
            if random.below(2) == 0 {
                let name = step.to_string();
                let mut putting = pin!(queue.put(name.clone(), keyed(&name)));
                let first = putting.as_mut().now_or_never();
                if random.below(3) > 0 && first.is_none() && queue.len() <= 9 {
                    store.settle();
                    if putting.as_mut().now_or_never().is_some_and(|answer| answer.is_ok()) {
                        put.insert(name);
                    }
                }
            } else if let Some(lease) = queue.try_take() {
                let name = lease.clone();
                let mut acking = pin!(lease.ack());
                assert!(acking.as_mut().now_or_never().is_none());
                perhaps.insert(name.clone());
                if random.below(2) == 0 {
                    store.settle();
                    acking.await.unwrap();
                    done.insert(name);
                }
            }
        }
        let (_, recovered) = store.crash();
        let there: BTreeSet<_> =
            recovered.items.into_iter().map(|item| String::from_utf8(item.item).unwrap()).collect();
        assert!(there.is_disjoint(&done), "seed {seed}: done and there again");
        for name in put.difference(&perhaps) {
            assert!(there.contains(name), "seed {seed}: {name} was accepted and is lost");
        }
    }
}

/// On a full disk a dead letter may be refused that nobody waits for. The store learns of it when it has room again.
#[tokio::test(start_paused = true)]
async fn what_a_full_store_refused_about_the_dead_is_said_again() {
    let store = MemoryStore::held();
    let queue = open(&store, Recovered::default());
    let put = async |item: &str| {
        let mut put = pin!(queue.put(item.to_owned(), keyed(item)));
        assert!(put.as_mut().now_or_never().is_none());
        store.settle();
        put.await.unwrap()
    };
    let dead = || store.survivors().items.into_iter().map(|item| item.dead).collect::<Vec<_>>();
    let id = put("poison").await;
    (0..3).for_each(|_| drop(queue.try_take().unwrap()));
    store.fill();
    store.settle();
    assert_eq!((queue.dead_letters().len(), dead()), (1, vec![None]), "the store did not learn of it");
    store.make_room();
    put("another").await;
    assert_eq!(dead(), [Some(Cause::Attempts.to_string()), None]);

    // The same for one that comes back to life, and one that a later word makes void.
    store.fill();
    assert!(queue.dead_letters().retry(id).now_or_never().is_none());
    store.settle();
    store.make_room();
    put("a third").await;
    assert_eq!(dead(), [None, None, None]);
    let lease = queue.try_take().unwrap();
    assert_eq!((lease.id(), lease.attempt()), (id, 1));
    store.fill();
    let mut verdict = pin!(lease.dead_letter("worn out"));
    assert!(verdict.as_mut().now_or_never().is_none());
    store.settle();
    assert!(matches!(verdict.await, Err(LeaseError::Store(_))));
    store.make_room();
    put("a fourth").await;
    assert_eq!(
        (queue.dead_letters().len(), dead()),
        (0, vec![None; 4]),
        "a verdict that failed is not repeated"
    );
}
