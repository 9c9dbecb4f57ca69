//! One owner asks for a hundred times as much as each of 63 others, whose weights are 1, 2 and 4.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use super::*;
use crate::Random;

const OWNERS: usize = 64;
const HOG: usize = 0;

fn name(owner: usize) -> String {
    format!("owner {owner}")
}

fn weight(owner: usize) -> u32 {
    if owner == HOG { 1 } else { 1 << (owner % 3) }
}

fn settings(policy: &str) -> PolicySettings {
    let settings = PolicySettings::from(policy.parse::<Discipline>().unwrap());
    (0..OWNERS).fold(settings, |settings, owner| {
        settings.weight(name(owner), NonZeroU32::new(weight(owner)).unwrap())
    })
}

/// Jain's index of fairness: 1 if all have the same, 1 / n if one has everything.
fn jain(values: &[f64]) -> f64 {
    let sum: f64 = values.iter().sum();
    let squares: f64 = values.iter().map(|value| value * value).sum();
    sum * sum / (squares * values.len() as f64)
}

/// What of 10,000 served items every owner had, while everybody has something waiting. An item costs what `cost` says;
/// its ticket says what `expected` makes of that, and the truth is told afterwards.
fn served(mut cost: impl FnMut(usize) -> u64, expected: fn(u64) -> u64) -> Vec<u64> {
    let mut line = Line::new(Capacity::UNBOUNDED, settings("fair_share"));
    let mut put = |line: &mut Line<(usize, u64)>, owner: usize| {
        let cost = cost(owner);
        line.try_put((owner, cost), Ticket::of(name(owner)).cost(expected(cost)), Duration::ZERO).unwrap();
    };
    for owner in 0..OWNERS {
        (0..if owner == HOG { 200 } else { 2 }).for_each(|_| put(&mut line, owner));
    }
    let mut served = vec![0; OWNERS];
    for _ in 0..10_000 {
        let taken = line.take(Duration::ZERO).unwrap();
        let (owner, cost) = taken.item;
        served[owner] += cost;
        line.charge(&taken.ticket(), cost);
        put(&mut line, owner);
    }
    served
}

/// Shares are those of the weights: of every class of weight within 2 %, of every owner within one item.
fn assert_shares(served: &[u64], largest: f64) {
    let total: u64 = served.iter().sum();
    let weights: u32 = (0..OWNERS).map(weight).sum();
    let fair = |weight: u32| total as f64 * f64::from(weight) / f64::from(weights);
    let mut classes: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
    for (owner, had) in served.iter().enumerate() {
        let class = classes.entry(weight(owner)).or_default();
        (class.0, class.1) = (class.0 + *had as f64, class.1 + fair(weight(owner)));
        let error = (*had as f64 - fair(weight(owner))).abs();
        assert!(error <= 2.0 * largest, "owner {owner} had {had}, its share is {}", fair(weight(owner)));
    }
    for (weight, (had, share)) in classes {
        assert!((had / share - 1.0).abs() <= 0.02, "weight {weight} had {had} of {share}");
    }
    let by_weight: Vec<f64> =
        served.iter().enumerate().map(|(owner, had)| *had as f64 / f64::from(weight(owner))).collect();
    assert!(jain(&by_weight) >= 0.99, "Jain's index is {}", jain(&by_weight));
}

#[test]
fn shares_follow_weights() {
    assert_shares(&served(|_| 7, |cost| cost), 7.0);
    let mut random = Random::seeded(2);
    assert_shares(&served(|_| 1 + random.below(10), |cost| cost), 10.0);
}

/// A ticket that says too little, too much, or nothing of use, makes no difference in the end.
#[test]
fn shares_are_counted_by_what_serving_has_cost() {
    for expected in [|_| 0, |_| 3, |_| 200, |cost| cost * 2] {
        let mut random = Random::seeded(3);
        assert_shares(&served(|owner| (1 + random.below(9)) * (1 + owner as u64 % 2), expected), 18.0);
    }
}

/// One of two owners has never more than one item, whose cost turns out ten times as high when nothing of it waits any
/// more. It gets its half, and not what it would if it began anew each time.
#[test]
fn leaving_and_coming_back_gains_nothing() {
    let mut line = Line::new(Capacity::UNBOUNDED, "fair_share".parse::<Discipline>().unwrap());
    let mut had = BTreeMap::from([("steady", 0), ("restless", 0)]);
    for _ in 0..20 {
        line.try_put("steady", Ticket::of("steady").cost(10), Duration::ZERO).unwrap();
    }
    line.try_put("restless", Ticket::of("restless").cost(1), Duration::ZERO).unwrap();
    for _ in 0..10_000 {
        let taken = line.take(Duration::ZERO).unwrap();
        *had.get_mut(taken.item).unwrap() += 10;
        line.charge(&taken.ticket(), 10);
        line.try_put(taken.item, taken.ticket(), Duration::ZERO).unwrap();
    }
    assert!(had.values().all(|cost| (49_000..=51_000).contains(cost)), "{had:?}");
}

/// The 99th percentile of the time that items of quiet owners spend in line and in service, by weight of the owner, in a
/// server of which the quiet owners together use half, and the hog asks for as much as `hog` of them.
fn latencies(policy: &str, hog: u32) -> BTreeMap<u32, Duration> {
    let service = Duration::from_millis(10);
    let mut arrivals: Vec<(Duration, usize)> = Vec::new();
    let quiet_gap = service.as_secs_f64() * 2.0 * (OWNERS - 1) as f64;
    for owner in 0..OWNERS {
        let gap = if owner == HOG { quiet_gap / f64::from(hog) } else { quiet_gap };
        let (mut random, mut at) = (Random::seeded(owner as u64), 0.0);
        while at < 4000.0 && (owner != HOG || hog > 0) {
            at -= gap * (1.0 - random.fraction()).ln();
            arrivals.push((Duration::from_secs_f64(at), owner));
        }
    }
    arrivals.sort_unstable();
    let mut line = Line::new(Capacity::UNBOUNDED, settings(policy));
    let mut coming = arrivals.into_iter().peekable();
    let (mut now, mut times) = (Duration::ZERO, BTreeMap::<u32, Vec<Duration>>::new());
    while now < Duration::from_secs(4000) {
        while let Some((at, owner)) = coming.next_if(|(at, _)| *at <= now) {
            line.try_put(owner, Ticket::of(name(owner)), at).unwrap();
        }
        let Some(taken) = line.take(now) else {
            now = coming.peek().unwrap().0;
            continue;
        };
        now += service;
        if taken.item != HOG {
            times.entry(weight(taken.item)).or_default().push(now - taken.arrived());
        }
    }
    let percentile = |(weight, mut times): (u32, Vec<Duration>)| {
        times.sort_unstable();
        (weight, times[times.len() * 99 / 100])
    };
    times.into_iter().map(percentile).collect()
}

#[test]
fn a_flood_of_one_owner_delays_the_others_little() {
    let alone = latencies("fair_share", 0);
    let flooded = latencies("fair_share", 100);
    let drowned = latencies("fifo", 100);
    for (weight, alone) in alone {
        let ratio = flooded[&weight].as_secs_f64() / alone.as_secs_f64();
        assert!(ratio <= 1.5, "weight {weight}: {:?} instead of {alone:?}", flooded[&weight]);
        assert!(drowned[&weight] > alone * 10, "by arrival the flood would not be felt");
    }
}
