//! The synchronous part against any sequence of arrivals, in virtual time.

use super::super::gather::{Entry, Executors, Gather, Lane};
use super::*;

#[derive(Clone, Debug)]
struct Arrival {
    after: u64,
    key: u64,
    cost: u64,
    /// How long from its arrival, if it has a deadline.
    deadline: Option<u64>,
    is_withdrawn: bool,
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let arrival = (0..30u64, 0..3u64, 0..60u64, prop::option::of(1..200u64), prop::bool::weighted(0.1));
    let arrival = arrival.prop_map(|(after, key, cost, deadline, is_withdrawn)| Arrival {
        after,
        key,
        cost,
        deadline,
        is_withdrawn,
    });
    prop::collection::vec(arrival, 1..120)
}

const SIZE: usize = 6;
const COST: u64 = 100;
const WITHIN: u64 = 50;

/// Lets time pass from one item to the next, and checks every batch that leaves.
fn check(arrivals: &[Arrival], executors: Executors, when_idle: WhenIdle) {
    let rules = Batch::<u64>::up_to(SIZE).within(ms(WITHIN)).cost(COST, |_| 0).when_idle(when_idle);
    let mut gather = Gather::new(&rules);
    let began = Instant::now();
    let mut now = 0;
    let (mut put, mut left) = (0u64, BTreeSet::new());
    let mut take = |gather: &mut Gather<u64>, now: u64| {
        while let Some(batch) = gather.leave(began + ms(now), executors) {
            let keys: BTreeSet<u64> = batch.iter().map(|entry| arrivals[entry.item as usize].key).collect();
            assert_eq!(keys.len(), 1, "only what goes together");
            assert!(batch.is_sorted_by_key(|entry| entry.item), "in order of arrival");
            let cost: u64 = batch.iter().map(|entry| entry.cost).sum();
            assert!(
                batch.len() <= SIZE && (cost <= COST || batch.len() == 1),
                "{} items cost {cost}",
                batch.len()
            );
            let waited = began + ms(now) - batch[0].arrived;
            let most = if executors == Executors::Idle && when_idle == WhenIdle::Leave { 0 } else { WITHIN };
            assert!(waited <= ms(most), "waited {waited:?}");
            for entry in batch {
                let late = entry.deadline.is_some_and(|deadline| deadline < began + ms(now));
                assert!(!late, "it left after its deadline though somebody looked in time");
                assert!(left.insert(entry.item), "left twice");
            }
        }
    };
    for (index, arrival) in arrivals.iter().enumerate() {
        // Every tick on the way, as a timekeeper would.
        for tick in now..now + arrival.after {
            take(&mut gather, tick);
            let next = gather.next_leave(executors);
            assert!(next.is_none_or(|next| next > began + ms(tick)), "what is due has left");
        }
        now += arrival.after;
        let arrived = began + ms(now);
        let deadline = arrival.deadline.map(|deadline| arrived + ms(deadline));
        let lane = Lane { key: arrival.key, bucket: 0 };
        let id = gather.push(lane, Entry { item: index as u64, cost: arrival.cost, arrived, deadline });
        put += 1;
        if arrival.is_withdrawn {
            assert_eq!(gather.remove(lane, id).map(|entry| entry.item), Some(index as u64));
            assert!(gather.remove(lane, id).is_none());
            put -= 1;
        }
    }
    for tick in now..=now + WITHIN {
        take(&mut gather, tick);
    }
    assert_eq!((gather.len(), left.len() as u64), (0, put), "nothing stays behind");
    assert_eq!(gather.next_leave(executors), None);
}

proptest! {
    #[test]
    fn batches_are_neither_too_large_nor_too_late(arrivals in arrivals()) {
        check(&arrivals, Executors::Busy, WhenIdle::Leave);
        check(&arrivals, Executors::Idle, WhenIdle::Leave);
        check(&arrivals, Executors::Idle, WhenIdle::Adapt);
        check(&arrivals, Executors::Idle, WhenIdle::Wait);
    }
}
