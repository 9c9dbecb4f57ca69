//! All short programs, cut off at every call, with everything that may have survived: known mistakes of crash safety
//! nearly all show within three steps around a sync (Mohan et al., "Finding crash-consistency bugs with bounded
//! black-box crash testing", 2018).

use super::model::{Event, Expected, encoded};
use super::{open, tidy};
use crate::queue::store::StoreError;
use crate::queue::store::disk::{Fault, SimulatedDisk};

/// At most so many combinations of what survives are tried at one place; with more decisions, the first ones vary.
const COMBINATIONS: u64 = 16;

/// A step: a group of events, and what keeps the log small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Small,
    Large,
    Taken,
    Dead,
    Done,
    Reopened,
}

const STEPS: [Step; 6] = [Step::Small, Step::Large, Step::Taken, Step::Dead, Step::Done, Step::Reopened];

fn event(step: Step, expected: &Expected, ids: &mut u64) -> Option<Event> {
    let oldest = expected.settled.items.values().next();
    match step {
        Step::Small | Step::Large => {
            *ids += 1;
            Some(Event::accepted(*ids, if step == Step::Small { 40 } else { 2800 }))
        }
        Step::Taken => oldest.map(|item| Event::Taken(item.id.0, item.attempts + 1)),
        Step::Dead => oldest.map(|item| match item.dead {
            None => Event::Dead(item.id.0, "worn out".to_owned()),
            Some(_) => Event::Revived(item.id.0),
        }),
        Step::Done => oldest.map(|item| Event::Done(item.id.0)),
        Step::Reopened => None,
    }
}

/// Runs the steps after a start of two items, one of which fills most of a segment.
fn run(disk: &SimulatedDisk, steps: &[Step], expected: &mut Expected) -> Result<(), StoreError> {
    let mut ids = 0;
    let (mut log, _) = open(disk)?;
    for step in [Step::Small, Step::Large].iter().chain(steps) {
        if *step == Step::Reopened {
            drop(log);
            let recovered;
            (log, recovered) = open(disk)?;
            expected.check(&recovered).unwrap();
        }
        let group: Vec<_> = event(*step, expected, &mut ids).into_iter().collect();
        expected.unsettled.clone_from(&group);
        log.commit(&mut encoded(&group))?;
        expected.unsettled.clear();
        group.iter().for_each(|event| expected.settled.apply(event));
        tidy(&mut log)?;
    }
    Ok(())
}

/// Cuts a program off at one call and answers how many decisions there were on what survived.
fn check(steps: &[Step], call: u64, bits: u64) -> u32 {
    let disk = SimulatedDisk::listed(bits);
    disk.fail_at(call, Fault::PowerLoss);
    let mut expected = Expected::default();
    let _cut_off = run(&disk, steps, &mut expected);
    disk.restore_power();
    let decisions = disk.decisions();
    let (_, recovered) = open(&disk).unwrap();
    let context = || format!("{steps:?} cut off at call {call}, surviving {bits:b}");
    expected.check(&recovered).unwrap_or_else(|error| panic!("{}: {error}", context()));
    assert_eq!(recovered.damage, [""; 0], "{}", context());
    decisions
}

#[test]
fn all_short_programs_survive_a_power_loss_anywhere() {
    let mut programs = 0_u64;
    let pairs = || STEPS.iter().flat_map(|first| STEPS.iter().map(move |second| (*first, *second)));
    for (first, second) in pairs() {
        for third in STEPS {
            let steps = [first, second, third];
            let whole = SimulatedDisk::listed(0);
            run(&whole, &steps, &mut Expected::default()).unwrap();
            for call in 0..whole.calls() {
                let mut bits = 0;
                let mut most = 1;
                while bits < most {
                    most = COMBINATIONS.min(1 << check(&steps, call, bits).min(63)).max(most);
                    bits += 1;
                    programs += 1;
                }
            }
        }
    }
    println!("{programs} programs");
    assert!(programs > 10_000);
}
