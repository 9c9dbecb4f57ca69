//! More work than can be done, in virtual time.

use super::*;

/// What came of a minute in which work arrived `factor` times as fast as it could be done, and of the second after it.
struct Minute {
    goodput: f64,
    late: Duration,
    recovered: Duration,
}

/// One server, one item per millisecond; the target is 20 ms.
async fn overloaded(factor: u32) -> Minute {
    let (service, target) = (ms(1), ms(20));
    let control = ControlledDelay { target, interval: ms(100) };
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
        late: during[during.len() * 99 / 100],
        recovered: last_late.map_or(Duration::ZERO, |(at, _)| at.saturating_sub(over)),
    }
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_queue_serves_what_it_can_in_time() {
    for factor in [2, 5, 10] {
        let minute = overloaded(factor).await;
        assert!(minute.goodput >= 0.9, "{factor}x: goodput {}", minute.goodput);
        assert!(minute.late <= ms(40), "{factor}x: 99 % of those served waited up to {:?}", minute.late);
        assert!(
            minute.recovered < ms(1000),
            "{factor}x: late for {:?} after the load had gone",
            minute.recovered
        );
    }
}
