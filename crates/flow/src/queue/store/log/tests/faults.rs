//! One program, met by a fault at every call that it makes.

use super::model::{Event, Expected, Memory, encoded};
use super::{open, tidy};
use crate::queue::store::disk::{Disk, Fault, SimulatedDisk};
use crate::queue::store::log::Kept;
use crate::queue::store::{Recovered, StoreError};
use crate::random::Random;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Killed,
    PowerLost,
}

/// Groups that fill several segments and make the log copy what lives long.
fn script() -> Vec<Vec<Event>> {
    let (mut random, mut ids, mut memory) = (Random::seeded(5), 0, Memory::default());
    let mut groups: Vec<Vec<Event>> = Vec::new();
    for _ in 0..40 {
        groups.push((0..4).map(|_| memory.next_event(&mut random, &mut ids)).collect());
    }
    groups
}

/// Runs the script; what was refused is noted once more, which must work now.
fn run(disk: &SimulatedDisk, groups: &[Vec<Event>], expected: &mut Expected) -> Result<(), StoreError> {
    let (mut log, recovered) = open(disk)?;
    expected.check(&recovered).unwrap();
    for group in groups {
        expected.unsettled.clone_from(group);
        let kept = log.commit(&mut encoded(group))?;
        let refused: Vec<_> = match kept {
            Kept::All => Vec::new(),
            Kept::AllButItems => {
                group.iter().filter(|event| matches!(event, Event::Accepted(..))).cloned().collect()
            }
            Kept::Nothing => group.clone(),
        };
        if !refused.is_empty() {
            assert_eq!(log.commit(&mut encoded(&refused))?, Kept::All, "there is room again");
        }
        expected.unsettled.clear();
        group.iter().for_each(|event| expected.settled.apply(event));
        tidy(&mut log)?;
    }
    Ok(())
}

fn check(call: u64, fault: Fault, end: End, groups: &[Vec<Event>]) {
    let disk = SimulatedDisk::new(call);
    disk.fail_at(call, fault);
    let mut expected = Expected::default();
    let outcome = run(&disk, groups, &mut expected);
    if let Err(error) = &outcome {
        assert!(matches!(error, StoreError::Failed { .. } | StoreError::Full { .. }), "{error}");
    }
    if end == End::PowerLost {
        disk.restore_power();
    }
    let (_, recovered): (_, Recovered) = open(&disk).unwrap();
    expected.check(&recovered).unwrap_or_else(|error| panic!("{fault:?} at call {call}, {end:?}: {error}"));
    if outcome.is_ok() {
        assert_eq!(recovered.damage, [""; 0], "{fault:?} at call {call}, {end:?}");
    }
}

#[test]
fn a_fault_at_any_call_loses_nothing_that_was_settled() {
    // Every event of a group goes on from the one before, and a refused item must not be spoken of in its group.
    let groups: Vec<Vec<Event>> = script().into_iter().flatten().map(|event| vec![event]).collect();
    let disk = SimulatedDisk::new(0);
    run(&disk, &groups, &mut Expected::default()).unwrap();
    let calls = disk.calls();
    assert!(disk.list().unwrap().len() > 3, "{disk:?}");
    for call in 0..calls {
        for fault in [Fault::Broken, Fault::Full, Fault::PowerLoss] {
            check(call, fault, End::PowerLost, &groups);
            if fault != Fault::PowerLoss {
                check(call, fault, End::Killed, &groups);
            }
        }
    }
}
