//! A breaker opens on what it was told to, and lets exactly its probes through, whoever asks in whatever order.

use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;

use super::*;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What counts as slow.
const SLOW: Duration = Duration::from_millis(200);

fn rules() -> BreakerRules {
    BreakerRules::default()
        .window(ms(1_000), 20)
        .at_least(4)
        .failure_rate(0.5)
        .open_for(ms(500), 0.2)
        .half_open(3)
}

/// One call that ends as it says.
fn call(breaker: &Breaker, at: Instant, verdict: Verdict) {
    let pass = breaker.admit(at).unwrap();
    match verdict {
        Verdict::Good => pass.succeeded(at),
        Verdict::Slow => pass.succeeded(at + SLOW),
        Verdict::Failed => pass.failed(at),
    }
}

/// A breaker that has just opened, and a moment at which it is half open.
fn opened(seed: u64, began: Instant) -> (Breaker, Instant) {
    let breaker = Breaker::seeded(rules(), Random::seeded(seed));
    (0..4).for_each(|_| call(&breaker, began, Verdict::Failed));
    let BreakerState::Open { left } = breaker.state(began) else { panic!("it should be open") };
    assert!((ms(500)..=ms(600)).contains(&left), "{left:?}");
    (breaker, began + left)
}

#[test]
fn too_many_failures_open_it_and_good_probes_close_it() {
    let began = Instant::now();
    let (breaker, due) = opened(1, began);
    assert_eq!(breaker.admit(due - ms(1)).unwrap_err().retry_after, ms(1));
    assert_eq!(breaker.state(due), BreakerState::HalfOpen { free: 3, under_way: 0 });
    let probes: Vec<Pass> = (0..3).map(|_| breaker.admit(due).unwrap()).collect();
    assert_eq!(breaker.admit(due).unwrap_err().retry_after, Duration::ZERO);
    assert_eq!(breaker.state(due), BreakerState::HalfOpen { free: 0, under_way: 3 });
    probes.into_iter().for_each(|probe| probe.succeeded(due));
    assert_eq!(breaker.state(due), BreakerState::Closed);
    assert_eq!(breaker.times_opened(), 1);
}

#[test]
fn bad_probes_open_it_again_and_abandoned_ones_say_nothing() {
    let (breaker, due) = opened(2, Instant::now());
    for _ in 0..10 {
        drop(breaker.admit(due).unwrap());
    }
    call(&breaker, due, Verdict::Failed);
    assert_eq!(breaker.state(due), BreakerState::HalfOpen { free: 2, under_way: 0 }, "one of three may fail");
    call(&breaker, due, Verdict::Failed);
    assert!(matches!(breaker.state(due), BreakerState::Open { .. }));
    assert_eq!(breaker.times_opened(), 2);
}

#[test]
fn slow_calls_open_it_too_and_old_calls_do_not_count() {
    let began = Instant::now();
    let slow = Breaker::new(rules().failure_rate(1.0).slow_call(SLOW, 0.75));
    call(&slow, began, Verdict::Good);
    (0..2).for_each(|_| call(&slow, began, Verdict::Slow));
    assert_eq!(slow.state(began), BreakerState::Closed);
    call(&slow, began, Verdict::Slow);
    assert!(matches!(slow.state(began), BreakerState::Open { .. }));

    let forgets = Breaker::new(rules());
    (0..3).for_each(|_| call(&forgets, began, Verdict::Failed));
    call(&forgets, began + ms(1_000), Verdict::Failed);
    assert_eq!(forgets.state(began + ms(1_000)), BreakerState::Closed, "the first three are too old");

    let counts = Breaker::new(rules().window(ms(1_000), 5).failure_rate(0.8));
    (0..3).for_each(|_| call(&counts, began, Verdict::Failed));
    (0..5).for_each(|_| call(&counts, began, Verdict::Good));
    (0..3).for_each(|_| call(&counts, began, Verdict::Failed));
    assert_eq!(counts.state(began), BreakerState::Closed, "three of the last five");
    call(&counts, began, Verdict::Failed);
    assert!(matches!(counts.state(began), BreakerState::Open { .. }), "four of the last five");
}

#[test]
fn a_result_from_before_the_change_says_nothing_after_it() {
    let began = Instant::now();
    let breaker = Breaker::seeded(rules(), Random::seeded(3));
    let late: Vec<Pass> = (0..8).map(|_| breaker.admit(began).unwrap()).collect();
    (0..4).for_each(|_| call(&breaker, began, Verdict::Failed));
    let due = began + ms(600);
    assert_eq!(breaker.state(due), BreakerState::HalfOpen { free: 3, under_way: 0 });
    for (n, pass) in late.into_iter().enumerate() {
        match n % 3 {
            0 => pass.failed(due),
            1 => pass.succeeded(due),
            _ => drop(pass),
        }
    }
    assert_eq!(breaker.state(due), BreakerState::HalfOpen { free: 3, under_way: 0 });
}

/// What one of many callers does next.
enum Caller {
    Asks,
    Holds(Pass),
    Done,
}

/// 64 callers, each of which asks once and later gives its result, in an order drawn from the seed. A call into the
/// breaker holds its one lock from beginning to end, so an order of calls is all that threads could make of it.
fn schedule(seed: u64) {
    let mut random = Random::seeded(seed);
    let (breaker, due) = opened(seed, Instant::now());
    let mut callers: Vec<Caller> = (0..64).map(|_| Caller::Asks).collect();
    let (mut admitted, mut under_way, mut results) = (0u32, 0u32, 0u32);
    while callers.iter().any(|caller| !matches!(caller, Caller::Done)) {
        let chosen = random.below(64) as usize;
        callers[chosen] = match std::mem::replace(&mut callers[chosen], Caller::Done) {
            Caller::Done => Caller::Done,
            Caller::Asks => match breaker.admit(due) {
                Ok(pass) if results < 3 => {
                    (admitted, under_way) = (admitted + 1, under_way + 1);
                    assert!(
                        results + under_way <= 3,
                        "seed {seed}: {under_way} probes besides {results} results"
                    );
                    Caller::Holds(pass)
                }
                Ok(pass) => {
                    assert_eq!(breaker.state(due), BreakerState::Closed, "seed {seed}");
                    Caller::Holds(pass)
                }
                Err(_) => Caller::Done,
            },
            Caller::Holds(pass) if random.below(4) == 0 => {
                drop(pass);
                under_way = under_way.saturating_sub(1);
                Caller::Done
            }
            Caller::Holds(pass) => {
                pass.succeeded(due);
                (under_way, results) = (under_way.saturating_sub(1), results + 1);
                Caller::Done
            }
        };
    }
    assert!(admitted >= 3, "seed {seed}: somebody probes");
}

#[test]
fn half_open_admits_exactly_its_probes_in_ten_thousand_schedules() {
    (0..10_000).for_each(schedule);
}

#[test]
fn half_open_admits_exactly_its_probes_to_64_threads() {
    for seed in 0..20 {
        let (breaker, due) = opened(seed, Instant::now());
        let (admitted, start) = (AtomicU32::new(0), std::sync::Barrier::new(64));
        let passes = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..64 {
                scope.spawn(|| {
                    start.wait();
                    if let Ok(pass) = breaker.admit(due) {
                        admitted.fetch_add(1, Ordering::Relaxed);
                        passes.lock().unwrap().push(pass);
                    }
                });
            }
        });
        assert_eq!(admitted.into_inner(), 3);
        assert_eq!(breaker.state(due), BreakerState::HalfOpen { free: 0, under_way: 3 });
    }
}

proptest! {
    /// Closed, it opens at the first call at which a plain recount of the window condemns it, and not before.
    #[test]
    fn it_opens_when_a_recount_says_so(calls in prop::collection::vec((0..200u64, 0..3u8), 1..60)) {
        let rules = rules().slow_call(SLOW, 0.6);
        let breaker = Breaker::new(rules.clone());
        let mut now = Instant::now();
        let mut seen: Vec<(Instant, Verdict)> = Vec::new();
        for (gap, verdict) in calls {
            now += ms(gap);
            let verdict = [Verdict::Good, Verdict::Failed, Verdict::Slow][usize::from(verdict)];
            let Ok(pass) = breaker.admit(now) else { unreachable!("it is closed") };
            if verdict == Verdict::Slow {
                now += SLOW;
            }
            if verdict == Verdict::Failed { pass.failed(now) } else { pass.succeeded(now) }
            seen.push((now, verdict));
            let recent = seen.iter().rev().take(20).filter(|(at, _)| now - *at < ms(1_000));
            let recent: Vec<Verdict> = recent.map(|(_, verdict)| *verdict).collect();
            let count = |wanted| recent.iter().filter(|verdict| **verdict == wanted).count() as f64;
            let enough = recent.len() >= 4;
            let share = recent.len() as f64;
            let bad = count(Verdict::Failed) / share >= 0.5 || count(Verdict::Slow) / share >= 0.6;
            let is_open = matches!(breaker.state(now), BreakerState::Open { .. });
            prop_assert_eq!(is_open, enough && bad);
            if is_open {
                break;
            }
        }
    }
}
