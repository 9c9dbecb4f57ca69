//! Deadlines are kept where they can be, and what is late is never served.

use super::*;
use crate::Random;

const SLOT: Duration = Duration::from_millis(10);

struct Job {
    arrives: u32,
    due: u32,
}

/// Jobs of one slot each that some order serves in time: nine of ten slots are given to a job each, which comes at its
/// slot or before and is due when it ends or later.
fn feasible(random: &mut Random) -> Vec<Job> {
    let mut jobs: Vec<Job> = Vec::new();
    for slot in 0..300 {
        if random.below(10) > 0 {
            let arrives = slot - (random.below(20) as u32).min(slot);
            jobs.push(Job { arrives, due: slot + 1 + random.below(6) as u32 });
        }
    }
    jobs.sort_by_key(|job| job.arrives);
    jobs
}

/// Serves one job in every slot; returns how many were expired or finished late.
fn misses(policy: Discipline, jobs: &[Job]) -> usize {
    let mut line = Line::new(Capacity::UNBOUNDED, policy);
    let mut coming = jobs.iter().peekable();
    let mut misses = 0;
    for slot in 0..1000 {
        let now = SLOT * slot;
        while let Some(job) = coming.next_if(|job| job.arrives <= slot) {
            line.try_put(job.due, Ticket::of("someone").deadline(SLOT * job.due), now).unwrap();
        }
        misses += line.expire(now).len();
        if let Some(taken) = line.take(now) {
            assert!(now < SLOT * taken.item, "{policy} served what was late");
            misses += usize::from(slot + 1 > taken.item);
        }
    }
    assert!(line.is_empty());
    misses
}

#[test]
fn the_earliest_deadline_misses_none_that_can_be_kept() {
    let mut random = Random::seeded(4);
    let mut by_arrival = 0;
    for set in 0..500 {
        let jobs = feasible(&mut random);
        assert_eq!(misses("deadline".parse().unwrap(), &jobs), 0, "set {set}");
        by_arrival += misses("fifo".parse().unwrap(), &jobs);
    }
    assert!(by_arrival > 500, "order of arrival misses only {by_arrival}: the sets are too easy");
}

/// Up to three times as much work as there is time for.
#[test]
fn nothing_is_served_after_its_deadline() {
    let mut random = Random::seeded(5);
    for _ in 0..200 {
        let number = 300 + random.below(600);
        let mut jobs: Vec<Job> = (0..number)
            .map(|_| {
                let arrives = random.below(300) as u32;
                Job { arrives, due: arrives + random.below(30) as u32 }
            })
            .collect();
        jobs.sort_by_key(|job| job.arrives);
        policy::POLICIES.into_iter().for_each(|policy| assert!(misses(policy, &jobs) > 0));
    }
}
