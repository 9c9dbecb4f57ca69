//! More work than can be done, in virtual time.

use super::*;

/// What came of a minute in which work arrived `factor` times as fast as it could be done, and of the second after it.
struct Minute {
    goodput: f64,
    median: Duration,
    late: Duration,
    recovered: Duration,
}

/// One server, one item per millisecond; the target is 20 ms.
async fn overloaded(factor: u32, order: OverloadOrder) -> Minute {
    let (service, target) = (ms(1), ms(20));
    let control = ControlledDelay { target, interval: ms(100), order };
    let queue: Queue<()> = Queue::builder(Capacity::items(10_000))
        .policy(fifo())
        .overflow(Overflow::Reject)
        .overload(control)
        .build();
    let server = tokio::spawn({
        let queue = queue.clone();
        async move {
            let mut waits = Vec::new();
            while let Some(lease) = queue.take().await {
                waits.push((queue.now(), lease.waited()));
                sleep(service).await;
                lease.ack().await.unwrap();
            }
            waits
        }
    });
    let over = ms(60_000);
    while queue.now() < over + ms(2000) {
        let items = if queue.now() < over { factor * 5 } else { 4 };
        for _ in 0..items {
            drop(queue.put((), Ticket::default()).await);
        }
        sleep(ms(5)).await;
    }
    queue.close();
    let waits = server.await.unwrap();
    let mut during: Vec<_> = waits.iter().filter(|(at, _)| *at < over).map(|(_, wait)| *wait).collect();
    during.sort_unstable();
    let last_late = waits.iter().rev().find(|(_, wait)| *wait > target);
    Minute {
        goodput: during.len() as f64 / (over.as_millis() / service.as_millis()) as f64,
        median: during[during.len() / 2],
        late: during[during.len() * 99 / 100],
        recovered: last_late.map_or(Duration::ZERO, |(at, _)| at.saturating_sub(over)),
    }
}

async fn check_overloaded(order: OverloadOrder, median: std::ops::Range<Duration>) {
    for factor in [2, 5, 10] {
        let minute = overloaded(factor, order).await;
        assert!(minute.goodput >= 0.9, "{factor}x: goodput {}", minute.goodput);
        assert!(
            median.contains(&minute.median),
            "{factor}x: half of those served waited {:?}",
            minute.median
        );
        assert!(minute.late <= ms(40), "{factor}x: 99 % of those served waited up to {:?}", minute.late);
        assert!(
            minute.recovered < ms(1000),
            "{factor}x: late for {:?} after the load had gone",
            minute.recovered
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_queue_serves_what_it_can_in_time() {
    check_overloaded(OverloadOrder::ByPolicy, ms(20)..ms(41)).await;
}

#[tokio::test(start_paused = true)]
async fn with_the_newest_first_most_are_served_at_once() {
    check_overloaded(OverloadOrder::NewestFirst, ms(0)..ms(6)).await;
}

/// Once it is overloaded, a queue gives the newest that is of use, and what had its turn keeps its place.
#[tokio::test(start_paused = true)]
async fn the_newest_comes_first_only_while_there_is_overload_and_only_by_arrival() {
    for (policy, expected) in [("fifo", [9, 7, 6]), ("priority", [4, 5, 6])] {
        let control = ControlledDelay { target: ms(20), interval: ms(100), ..ControlledDelay::default() };
        let queue = Queue::builder(Capacity::items(99))
            .policy(policy.parse::<Discipline>().unwrap())
            .overload(control.adaptive_lifo())
            .build();
        let put = |item: u32| {
            queue.try_put(item, Ticket::default()).unwrap();
        };
        (0..4).for_each(put);
        advance(ms(30)).await;
        assert_eq!(queue.try_pop().unwrap().item, 0, "nobody knows yet");
        advance(ms(100)).await;
        (4..8).for_each(put);
        // It would be the newest, but is of no use any more.
        queue.try_put(8, Ticket::default().deadline(queue.now() + ms(10))).unwrap();
        advance(ms(30)).await;
        if policy == "fifo" {
            put(9);
        }
        let served: Vec<u32> = (0..3).map(|_| queue.try_pop().unwrap().item).collect();
        assert_eq!(served, expected, "{policy}");
        assert_eq!(queue.stats().totals.shed, 3, "{policy}: 1, 2 and 3 waited too long");
    }
}
