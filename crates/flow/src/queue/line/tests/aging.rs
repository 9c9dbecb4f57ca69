//! Nothing starves, however much that is more urgent arrives.

use super::*;
use crate::Random;

const AGE_STEP: Duration = Duration::from_secs(1);
const SERVICE: Duration = Duration::from_millis(10);
/// So many most urgent items wait at every moment.
const FLOOD: usize = 20;

/// An item that is not of the flood.
#[derive(Clone, Copy)]
struct Patient {
    level: u8,
    arrived: Duration,
    served: Duration,
}

impl Patient {
    /// When it counts as most urgent.
    fn is_level(&self) -> Duration {
        self.arrived + u32::from(self.level) * AGE_STEP
    }
}

/// Serves one item every [`SERVICE`] from a line that is always flooded with level 0, and into which items of the levels
/// 1 to 7 come now and then.
fn patients(policy: &str, seed: u64) -> Vec<Patient> {
    let mut random = Random::seeded(seed);
    let settings = PolicySettings::from(policy.parse::<Discipline>().unwrap()).age_step(AGE_STEP);
    let mut line = Line::new(Capacity::UNBOUNDED, settings);
    let (mut now, mut flood, mut served) = (Duration::ZERO, 0, Vec::new());
    let mut calls = 0;
    while served.len() < 200 {
        while flood < FLOOD {
            line.try_put(None, Ticket::of("flood"), now).unwrap();
            flood += 1;
        }
        if calls < 200 && random.below(500) == 0 {
            let level = 1 + random.below(7) as u8;
            line.try_put(Some(calls), Ticket::of("patient").level(level), now).unwrap();
            calls += 1;
        }
        let taken = line.take(now).unwrap();
        match taken.item {
            None => flood -= 1,
            Some(_) => {
                served.push(Patient { level: taken.ticket().level, arrived: taken.arrived(), served: now })
            }
        }
        now += SERVICE;
    }
    served
}

/// From when on an item is most urgent, it waits for one service and for those before it that are so too.
#[test]
fn under_priority_everything_is_served_once_it_has_aged() {
    let mut alone = 0;
    for seed in 0..20 {
        let all = patients("priority", seed);
        for one in &all {
            let aged = one.is_level();
            let is_before = |other: &&Patient| other.arrived < one.arrived && other.served >= aged;
            let before = all.iter().filter(is_before).count();
            alone += usize::from(before == 0);
            let bound = aged + SERVICE * (1 + before as u32);
            assert!(one.served <= bound, "seed {seed}: level {} served at {:?}", one.level, one.served);
        }
    }
    assert!(
        alone > 3000,
        "only {alone} of 4,000 had nobody before them, and so one service of waiting at most"
    );
}

/// A level is served once in `level × age step`, one service, and those of the other levels that are due as well.
#[test]
fn under_fair_share_every_level_is_served_in_time() {
    for seed in 0..20 {
        let all = patients("fair_share", seed);
        for level in 1..8 {
            let of_level: Vec<_> = all.iter().filter(|one| one.level == level).collect();
            for pair in of_level.windows(2) {
                let waited = pair[1].served - pair[0].served.max(pair[1].arrived);
                assert!(waited <= u32::from(level) * AGE_STEP + 8 * SERVICE, "seed {seed}: level {level}");
            }
        }
    }
}

/// Whatever comes after it, an item of every level leaves within the time in which it becomes most urgent, plus the
/// service of what came before it.
#[test]
fn no_policy_lets_one_owner_starve_itself() {
    for discipline in policy::POLICIES {
        for level in 0..8 {
            let settings = PolicySettings::from(discipline).age_step(AGE_STEP);
            let mut line = Line::new(ROOM, settings);
            for _ in 0..FLOOD {
                line.try_put(None, ticket(0, 0, None), Duration::ZERO).unwrap();
            }
            line.try_put(Some(level), ticket(level, 0, None), Duration::ZERO).unwrap();
            let bound = u32::from(level) * AGE_STEP + (FLOOD as u32 + 1) * SERVICE;
            let mut now = Duration::ZERO;
            while line.take(now).unwrap().item != Some(level) {
                now += SERVICE;
                assert!(now <= bound, "{discipline}: level {level} waits longer than {bound:?}");
                for _ in 0..2 {
                    drop(line.try_put(None, ticket(0, 0, None), now));
                }
            }
        }
    }
}

/// New owners without end, each with one item, do not hold up one who has had more than they.
#[test]
fn newcomers_do_not_hold_up_who_was_there() {
    for policy in ["round_robin", "fair_share"] {
        let mut line = Line::new(Capacity::UNBOUNDED, policy.parse::<Discipline>().unwrap());
        let mut waited = Vec::new();
        let put = |line: &mut Line<bool>, number: usize| {
            line.try_put(false, Ticket::of(format!("new {number}")).cost(10), Duration::ZERO).unwrap();
        };
        (0..3).for_each(|number| put(&mut line, number));
        for _ in 0..3 {
            line.try_put(true, Ticket::of("old").cost(1000), Duration::ZERO).unwrap();
        }
        for number in 3..10_000 {
            put(&mut line, number);
            if line.take(Duration::ZERO).unwrap().item {
                waited.push(number);
            }
        }
        assert_eq!(waited.len(), 3, "{policy}: the three items left at {waited:?}");
    }
}
