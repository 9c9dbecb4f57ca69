//! Room: who waits for it, in which order they get it, and what happens to who does not.

use super::*;

#[tokio::test(start_paused = true)]
async fn items_leave_in_the_order_of_the_policy() {
    let queue = Queue::new(Capacity::items(10));
    let ids =
        [("later", 1), ("now", 0)].map(|(item, level)| queue.try_put(item, Ticket::of("a").level(level)));
    assert_eq!(queue.stats().depth, 2);
    let lease = queue.take().await.unwrap();
    assert_eq!((*lease, lease.attempt(), lease.ticket().level), ("now", 1, 0));
    assert_eq!(Some(lease.id()), ids[1].as_ref().ok().copied());
    lease.ack().await.unwrap();
    assert_eq!(queue.pop().await.unwrap().item, "later");
    assert!(queue.try_take().is_none() && queue.try_pop().is_none());
    assert_at_rest(&queue);
}

#[tokio::test(start_paused = true)]
async fn putters_get_room_in_the_order_in_which_they_came() {
    let queue = Queue::builder(Capacity::items(1)).policy(fifo()).build();
    queue.put(0, Ticket::default()).await.unwrap();
    let putters: Vec<_> = (1..=20)
        .map(|item| {
            let queue = queue.clone();
            tokio::spawn(async move { queue.put(item, Ticket::default()).await.unwrap() })
        })
        .collect();
    let_others_run().await;
    let rejected = queue.try_put(99, Ticket::default()).unwrap_err();
    assert_eq!((rejected.item, rejected.reason), (99, Rejection::Turn));
    for expected in 0..=20 {
        assert_eq!(queue.pop().await.unwrap().item, expected);
    }
    for putter in putters {
        putter.await.unwrap();
    }
    assert_at_rest(&queue);
}

#[tokio::test(start_paused = true)]
async fn room_is_counted_in_items_cost_and_bytes() {
    let queue = Queue::new(Capacity::items(3).cost(10).bytes(100));
    queue.try_put("large ones wait alone", Ticket::default().cost(5).bytes(500)).unwrap();
    let reasons = |ticket: Ticket| queue.try_put("", ticket).unwrap_err().reason;
    assert_eq!(reasons(Ticket::default().cost(0).bytes(1)), Rejection::Bytes);
    assert_eq!(reasons(Ticket::default().cost(6)), Rejection::Cost);
    queue.pop().await.unwrap();
    for _ in 0..3 {
        queue.try_put("", Ticket::default()).unwrap();
    }
    assert_eq!(reasons(Ticket::default()), Rejection::Items);
    queue.set_capacity(Capacity::items(4));
    queue.try_put("", Ticket::default().cost(1000)).unwrap();
    let rejected = queue.stats().totals.rejected;
    assert_eq!((rejected.items, rejected.cost, rejected.bytes, rejected.total()), (1, 1, 1, 3));
}

#[tokio::test(start_paused = true)]
async fn patience_ends_and_the_item_comes_back() {
    let queue = Queue::new(Capacity::items(1));
    queue.put("first", Ticket::default()).await.unwrap();
    let put = queue.put_timeout("second", Ticket::of("b"), ms(30)).await;
    let rejected = put.unwrap_err();
    assert_eq!(
        (rejected.item, &*rejected.ticket.owner, &rejected.reason),
        ("second", "b", &Rejection::TimedOut)
    );
    let taker = tokio::spawn({
        let queue = queue.clone();
        async move {
            sleep(ms(10)).await;
            queue.pop().await.map(|taken| taken.item)
        }
    });
    queue.put_timeout("third", Ticket::default(), ms(30)).await.unwrap();
    assert_eq!(taker.await.unwrap(), Some("first"));
    assert_eq!(queue.pop().await.unwrap().item, "third");
    assert_at_rest(&queue);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_does_as_it_is_told() {
    let gone = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&gone);
    let build = |overflow| {
        let told = Arc::clone(&told);
        Queue::builder(Capacity::items(2)).policy(fifo()).overflow(overflow).on_gone(
            move |gone: Gone<u32>| {
                told.lock().unwrap().push((gone.item, gone.why));
            },
        )
    };
    let fill = async |queue: &Queue<u32>| {
        let mut third = None;
        for item in 1..=3 {
            third = Some(queue.put(item, Ticket::default()).await);
        }
        third.unwrap()
    };
    let queue = build(Overflow::Reject).build();
    assert_eq!(fill(&queue).await.unwrap_err().reason, Rejection::Items);
    let queue = build(Overflow::DropOldest).build();
    fill(&queue).await.unwrap();
    assert_eq!(gone.lock().unwrap().drain(..).collect::<Vec<_>>(), [(1, Why::Oldest)]);
    assert_eq!(queue.try_pop().unwrap().item, 2);
    let queue = build(Overflow::DeadLetter).build();
    let id = fill(&queue).await.unwrap();
    let letters = queue.dead_letters().list(|letter| (letter.id(), letter.item, letter.cause().clone()));
    assert_eq!(letters, [(id, 3, Cause::Overflow)]);
    assert_eq!(queue.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_burst_from_one_task_is_not_shed() {
    let queue = Queue::builder(Capacity::items(10_000)).overload(ControlledDelay::default()).build();
    let taker = tokio::spawn({
        let queue = queue.clone();
        async move {
            let mut count = 0;
            while count < 10_000 {
                count += queue.pop_many(64).await.len();
            }
        }
    });
    for item in 0..5_000 {
        queue.put(item, Ticket::default()).await.unwrap();
    }
    for item in 0..5_000 {
        queue.try_put(item, Ticket::default()).unwrap();
    }
    taker.await.unwrap();
    let totals = queue.stats().totals;
    assert_eq!((totals.accepted, totals.taken, totals.shed, totals.rejected.total()), (10_000, 10_000, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn many_are_put_and_taken_in_one_go() {
    let queue = Queue::builder(Capacity::items(8)).policy(fifo()).build();
    let putter = tokio::spawn({
        let queue = queue.clone();
        async move { queue.put_many((0..50).map(|item| (item, Ticket::default().cost(item)))).await }
    });
    let_others_run().await;
    assert_eq!(queue.len(), 8);
    let mut got = Vec::new();
    while got.len() < 50 {
        let batch = queue.pop_many(UpTo::items(5).cost(60).wait(ms(1))).await;
        let cost: u64 = batch.iter().sum();
        assert!(batch.len() <= 5 && (cost <= 60 || batch.len() == 1), "{batch:?}");
        got.extend(batch.map(|taken| taken.item));
    }
    assert_eq!(got, (0..50).collect::<Vec<_>>());
    assert_eq!(putter.await.unwrap().unwrap().len(), 50);
    assert!(queue.pop_many(UpTo::items(5).wait(ms(10))).await.is_empty());
    queue.close();
    let error = queue.put_many([(1, Ticket::default()), (2, Ticket::default())]).await.unwrap_err();
    assert_eq!((error.taken.len(), error.rejected.item, error.rest.len()), (0, 1, 1));
    assert_at_rest(&queue);
}

#[tokio::test(start_paused = true)]
async fn rates_hold_back_everyone_or_one_owner() {
    let queue =
        Queue::builder(Capacity::items(100)).rate(Rate::per_second(times(10)).burst(times(2))).build();
    let start = queue.now();
    for _ in 0..12 {
        queue.put((), Ticket::default()).await.unwrap();
    }
    assert_eq!((queue.now() - start).as_millis(), 1000);
    let rejected = queue.try_put((), Ticket::default()).unwrap_err();
    assert_eq!((rejected.reason, rejected.retry_after), (Rejection::Rate, Some(ms(100))));
    queue.set_rate(None);
    queue.set_owner_rate(Some(Rate::new(times(1), ms(100))));
    let busy: Vec<_> = (0..5)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move {
                queue.put((), Ticket::of("busy")).await.unwrap();
                queue.now()
            })
        })
        .collect();
    let_others_run().await;
    let start = queue.now();
    queue.put((), Ticket::of("quiet")).await.unwrap();
    assert_eq!(queue.now(), start, "one owner's wait is nobody else's");
    for (index, putter) in busy.into_iter().enumerate() {
        let waited = putter.await.unwrap() - start;
        assert_eq!(waited.as_millis(), 100 * index as u128, "tokens are given in the order of asking");
    }
}

#[tokio::test(start_paused = true)]
async fn the_name_of_the_first_answers_for_its_key() {
    let queue = Queue::builder(Capacity::items(9)).dedupe(NonZeroUsize::new(2).unwrap(), ms(1000)).build();
    let put = |key: &str| queue.try_put(key.to_owned(), Ticket::default().key(key)).unwrap();
    let first = put("a");
    assert_eq!(put("a"), first);
    queue.pop().await.unwrap();
    assert_eq!(put("a"), first, "also when it is done");
    let second = put("b");
    assert!(put("c") > second);
    assert!(put("a") > second, "two keys are remembered");
    advance(ms(1000)).await;
    assert!(put("c") > second, "for a second");
    assert_eq!((queue.stats().totals.duplicates, queue.len()), (2, 4));
}

#[tokio::test(start_paused = true)]
async fn what_is_too_late_is_never_handed_out() {
    let gone = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&gone);
    let queue = Queue::builder(Capacity::items(9))
        .on_gone(move |gone: Gone<&str>| told.lock().unwrap().push(gone.item));
    let queue = queue.doomed(Doomed::Reject).build();
    queue.put("in time", Ticket::default().deadline(ms(1000))).await.unwrap();
    queue.put("late", Ticket::default().deadline(ms(20))).await.unwrap();
    sleep(ms(21)).await;
    assert_eq!(*gone.lock().unwrap(), ["late"], "although nobody touched the queue");
    assert_eq!(
        queue.try_put("late", Ticket::default().deadline(ms(20))).unwrap_err().reason,
        Rejection::Expired
    );
    for _ in 0..32 {
        queue.put("slow", Ticket::default()).await.unwrap();
        let lease = queue.take().await.unwrap();
        sleep(ms(10)).await;
        lease.ack().await.unwrap();
    }
    let service = queue.stats().service.unwrap();
    let doomed = Ticket::default().deadline(queue.now() + ms(5));
    assert_eq!(queue.try_put("doomed", doomed).unwrap_err().reason, Rejection::Doomed { service });
    assert_eq!(queue.stats().totals.expired, 1);
}

#[tokio::test(start_paused = true)]
async fn policy_and_bounds_change_while_items_wait() {
    let queue = Queue::builder(Capacity::items(2)).policy(fifo()).build();
    queue.put("patient", Ticket::default().level(3)).await.unwrap();
    queue.put("urgent", Ticket::default()).await.unwrap();
    let waiting = tokio::spawn({
        let queue = queue.clone();
        async move { queue.put("most urgent", Ticket::default()).await.unwrap() }
    });
    let_others_run().await;
    assert_eq!(queue.len(), 2);
    queue.set_capacity(Capacity::items(3));
    waiting.await.unwrap();
    queue.set_policy("priority".parse::<Discipline>().unwrap());
    assert_eq!(queue.pop().await.unwrap().item, "urgent");
}
