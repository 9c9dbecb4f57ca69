//! Retries are spread, bounded, and never begun in vain.

use proptest::prelude::*;

use super::*;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn attempt(number: u32, class: Class) -> Attempt {
    Attempt { number, class, failed_at: Instant::now(), deadline: None, usual: Duration::ZERO }
}

#[test]
fn the_wait_doubles_up_to_the_longest_and_is_spread_over_all_of_it() {
    let backoff = Backoff::exponential(ms(50), ms(300));
    let ceilings: Vec<Duration> = (0..6).map(|failures| backoff.ceiling(failures)).collect();
    assert_eq!(ceilings, [0, 50, 100, 200, 300, 300].map(ms));
    assert_eq!(backoff.ceiling(u32::MAX), ms(300));
    let mut random = Random::seeded(7);
    let mut tenths = [0u32; 10];
    for _ in 0..10_000 {
        let tenth = backoff.delay(3, &mut random).as_nanos() * 10 / ms(200).as_nanos();
        tenths[(tenth as usize).min(9)] += 1;
    }
    assert!(tenths.iter().all(|count| (880..1120).contains(count)), "{tenths:?}");
}

#[test]
fn an_attempt_that_cannot_help_is_not_made() {
    let retry = Retry::exponential(ms(10), ms(10)).attempts(3);
    let mut random = Random::seeded(1);
    let mut after = |attempt| retry.after(attempt, &mut random);
    assert_eq!(after(attempt(1, Class::Permanent)), Err(GiveUp::Permanent));
    assert!(after(attempt(2, Class::Transient)).is_ok_and(|wait| wait <= ms(10)));
    assert_eq!(after(attempt(3, Class::Transient)), Err(GiveUp::Attempts));
    let asked = Class::Overload { retry_after: Some(ms(500)) };
    assert!(after(attempt(1, asked)).is_ok_and(|wait| (ms(500)..=ms(510)).contains(&wait)));
    let within = |deadline, usual| {
        let now = Instant::now();
        Attempt { deadline: Some(now + deadline), failed_at: now, usual, ..attempt(1, Class::Transient) }
    };
    assert!(after(within(ms(111), ms(100))).is_ok());
    assert_eq!(after(within(ms(100), ms(100))), Err(GiveUp::Deadline));
    assert_eq!(Retry::never().after(attempt(1, Class::Transient), &mut random), Err(GiveUp::Attempts));
}

#[test]
fn a_refused_deadline_costs_no_budget() {
    let retry = Retry::exponential(ms(10), ms(10)).budget(RetryBudget::ratio(0.0).min_per_sec(1));
    let mut random = Random::seeded(1);
    let now = Instant::now();
    let hopeless = Attempt { deadline: Some(now), failed_at: now, ..attempt(1, Class::Transient) };
    assert_eq!(retry.after(hopeless, &mut random), Err(GiveUp::Deadline));
    let hopeful = Attempt { deadline: None, ..hopeless };
    assert!(retry.after(hopeful, &mut random).is_ok());
    assert_eq!(retry.after(hopeful, &mut random), Err(GiveUp::Budget));
}

#[derive(Clone, Copy, PartialEq)]
enum Health {
    Well,
    Dead,
}

/// What a dependency gets: calls, and among them the retries.
fn storm(budget: &RetryBudget, began: Instant, seconds: std::ops::Range<u64>, health: Health) -> (u64, u64) {
    let (mut calls, mut retries) = (0, 0);
    for tick in seconds.start * 1000..seconds.end * 1000 {
        let now = began + ms(tick);
        calls += 1;
        let mut attempts = 1;
        while health == Health::Dead && attempts < 4 && budget.withdraw(now) {
            attempts += 1;
            retries += 1;
        }
        if health == Health::Well {
            budget.deposit(now);
        }
    }
    (calls, retries)
}

#[test]
fn a_dead_dependency_gets_the_budget_and_the_minimum_and_no_more() {
    let budget = RetryBudget::ratio(0.2).min_per_sec(10);
    let began = Instant::now();
    assert_eq!(storm(&budget, began, 0..30, Health::Well), (30_000, 0));
    let (calls, retries) = storm(&budget, began, 30..90, Health::Dead);
    assert_eq!(calls, 60_000);
    let earned = 2_000;
    let minimum = 10 * 60 + 10;
    assert!((earned..=earned + minimum).contains(&retries), "{retries} retries");
    let (_, later) = storm(&budget, began, 90..150, Health::Dead);
    assert!((590..=610).contains(&later), "only the minimum is left: {later}");
    storm(&budget, began, 150..160, Health::Well);
    let (_, again) = storm(&budget, began, 160..161, Health::Dead);
    assert!(again >= 1_000, "a dependency that is back earns retries again: {again}");
}

proptest! {
    /// Over any run of successes and withdrawals, retries never exceed the ratio of successes plus the minimum.
    #[test]
    fn the_budget_is_never_exceeded(
        ratio in 0.0..1.0f64,
        minimum in 0..5u32,
        steps in prop::collection::vec((0..3_000u64, 0..40u64, 0..40u64), 1..100),
    ) {
        let budget = RetryBudget::ratio(ratio).min_per_sec(minimum);
        let began = Instant::now();
        let (mut now, mut successes, mut retries) = (began, 0u64, 0u64);
        for (gap, deposits, asks) in steps {
            now += ms(gap);
            for _ in 0..deposits {
                budget.deposit(now);
            }
            successes += deposits;
            retries += (0..asks).filter(|_| budget.withdraw(now)).count() as u64;
            let seconds = (now - began).as_secs_f64();
            let bound = ratio * successes as f64 + f64::from(minimum) * (seconds + 1.0);
            prop_assert!(retries as f64 <= bound + 1e-6, "{retries} retries, bound {bound}");
        }
    }
}
