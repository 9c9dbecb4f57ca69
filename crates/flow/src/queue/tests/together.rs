//! Items that go together fare as they would one by one, under every policy.

use super::*;
use crate::Random;
use crate::queue::policy::POLICIES;

const SEEDS: u64 = 300;

fn random_ticket(random: &mut Random, now: Duration) -> Ticket {
    let owner = ["", "alice", "bob", "carol"][random.below(4) as usize];
    let ticket = Ticket::of(owner).level(random.below(3) as u8).cost(random.below(5)).bytes(random.below(9));
    match random.below(12) {
        0 => ticket.cost(1 << 40),
        1 => ticket.deadline(now + ms(random.below(200))),
        2 => ticket.key(random.below(1000).to_string()),
        _ => ticket,
    }
}

/// Two queues in which the same happens, in one of them one item at a time.
async fn check(policy: Discipline, seed: u64) {
    let mut random = Random::seeded(seed);
    let policy = PolicySettings::from(policy).age_step(ms(50));
    let room = Capacity::items(64).bytes(200);
    let [many, single] = [(); 2].map(|()| Queue::builder(room).policy(policy.clone()).build());
    let mut number = 0;
    for _ in 0..40 {
        if random.below(2) == 0 {
            let (first, mut fit, mut refused) = (number, Vec::new(), None);
            for _ in 0..random.below(24) {
                let ticket = random_ticket(&mut random, many.now());
                if single.try_put(number, ticket.clone()).is_err() {
                    refused = Some(ticket);
                    break;
                }
                fit.push((number, ticket));
                number += 1;
            }
            let ids = many.put_many(fit).await.unwrap();
            assert_eq!(ids.len() as u64, number - first, "{policy:?}, seed {seed}");
            refused.into_iter().for_each(|ticket| assert!(many.try_put(number, ticket).is_err()));
        } else {
            let most = 1 + random.below(20) as usize;
            let popped = many.pop_many(UpTo::items(most).wait(Duration::ZERO)).await;
            let seen: Vec<u64> = popped.iter().copied().collect();
            let popped: Vec<_> = popped.collect();
            assert_eq!(seen, popped.iter().map(|taken| taken.item).collect::<Vec<_>>());
            for taken in popped {
                let other = single.try_pop().unwrap();
                let told = |taken: &Taken<u64>| (taken.item, taken.id(), taken.arrived(), taken.ticket());
                assert_eq!(told(&taken), told(&other), "{policy:?}, seed {seed}");
            }
        }
        advance(ms(random.below(30))).await;
        let [many, single] = [&many, &single].map(Queue::stats);
        let told = |stats: &Stats| (stats.depth, stats.cost, stats.bytes, stats.oldest, stats.totals);
        assert_eq!(told(&many), told(&single), "{policy:?}, seed {seed}");
        let waits = |stats: &Stats| (stats.waits.count(), stats.waits.sum(), stats.waits.max());
        assert_eq!(waits(&many), waits(&single), "{policy:?}, seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_at_once_are_as_many_one_by_one() {
    for policy in POLICIES {
        for seed in 0..SEEDS {
            check(policy, seed).await;
        }
    }
}

/// So many come that they are put in order before anybody takes, and the rest when somebody does.
#[tokio::test(start_paused = true)]
async fn batches_that_nobody_takes_for_long_leave_as_they_would_one_by_one() {
    for policy in POLICIES {
        let mut random = Random::seeded(7);
        let [many, single] =
            [(); 2].map(|()| Queue::<u64>::builder(Capacity::items(2000)).policy(policy).build());
        for batch in 0..29 {
            let owner = |random: &mut Random| format!("owner {}", random.below(40));
            let tickets = (0..31)
                .map(|_| Ticket::of(owner(&mut random)).level(random.below(5) as u8))
                .collect::<Vec<_>>();
            let items: Vec<_> = (batch * 31..).zip(tickets).collect();
            items.iter().for_each(|(item, ticket)| assert!(single.try_put(*item, ticket.clone()).is_ok()));
            many.put_many(items).await.unwrap();
        }
        let left: Vec<_> = many.pop_many(2000).await.map(|taken| taken.item).collect();
        let expected: Vec<_> = std::iter::from_fn(|| single.try_pop()).map(|taken| taken.item).collect();
        assert_eq!(left.len(), 29 * 31);
        assert_eq!(left, expected, "{policy:?}");
    }
}

/// A putter of more than there is room for, and takers in between.
#[tokio::test(start_paused = true)]
async fn a_batch_that_waits_comes_in_as_room_is_made() {
    let queue: Queue<u64> = Queue::builder(Capacity::items(10)).policy(Discipline::FIFO).build();
    let put = |items: std::ops::Range<u64>| {
        let queue = queue.clone();
        tokio::spawn(async move { queue.put_many(items.map(|item| (item, Ticket::default()))).await })
    };
    let [first, second] = [put(0..25), put(25..50)];
    let_others_run().await;
    for before in (0..40).step_by(4) {
        assert_eq!(queue.len(), 10);
        let popped: Vec<_> = queue.pop_many(4).await.map(|taken| taken.item).collect();
        assert_eq!(popped, (before..before + 4).collect::<Vec<_>>());
    }
    let ids = first.await.unwrap().unwrap();
    assert_eq!(ids, (0..25).map(TicketId::from).collect::<Vec<_>>());
    queue.close();
    assert_eq!(second.await.unwrap().unwrap().len(), 25);
    let late = queue.put_many((0..3).map(|item| (item, Ticket::default()))).await.unwrap_err();
    assert_eq!((late.taken.len(), late.rejected.item, late.rest.len()), (0, 0, 2));
    let left: Vec<_> = queue.pop_many(99).await.map(|taken| taken.item).collect();
    assert_eq!(left, (40..50).collect::<Vec<_>>());
    assert_at_rest(&queue);
}

/// Closing refuses what of a batch has not come in.
#[tokio::test(start_paused = true)]
async fn a_batch_that_waits_is_refused_from_where_it_stands() {
    let queue: Queue<u64> = Queue::builder(Capacity::items(10)).policy(Discipline::FIFO).build();
    let putter = tokio::spawn({
        let queue = queue.clone();
        async move { queue.put_many((0..25).map(|item| (item, Ticket::default()))).await }
    });
    let_others_run().await;
    assert_eq!(queue.pop_many(4).await.len(), 4);
    queue.close();
    let error = putter.await.unwrap().unwrap_err();
    assert_eq!((error.taken.len(), error.rejected.item, error.rest.len()), (14, 14, 10));
    assert_eq!(queue.pop_many(99).await.map(|taken| taken.item).last(), Some(13));
    assert_at_rest(&queue);
}
