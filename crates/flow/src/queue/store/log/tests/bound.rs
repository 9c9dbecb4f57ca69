//! The log stays small, and what must outlive its segment does.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::model::{Event, Expected, Memory, encoded};
use super::{OPTIONS, open, tidy};
use crate::queue::store::disk::SimulatedDisk;
use crate::queue::store::log::Log;
use crate::queue::store::{DiskOptions, KeyWindow};
use crate::random::Random;

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Most items are done soon, some live long, and all are found again.
    #[test]
    fn the_disk_holds_no_more_than_the_bound(seed in any::<u64>(), living in 0..60_usize, size in 0..900_usize) {
        let mut random = Random::seeded(seed);
        let disk = SimulatedDisk::new(seed);
        let (mut log, _) = open(&disk).unwrap();
        let mut expected = Expected::default();
        for id in 0..400 {
            let mut group = vec![Event::accepted(id, size)];
            if expected.settled.items.len() > living {
                let chosen = random.below(expected.settled.items.len() as u64) as usize;
                let chosen = expected.settled.items.keys().nth(chosen).copied();
                group.extend(chosen.map(Event::Done));
            }
            log.commit(&mut encoded(&group)).unwrap();
            group.iter().for_each(|event| expected.settled.apply(event));
            tidy(&mut log).unwrap();
            let longest_group = size as u64 + 500;
            let bound = 2 * log.ledger.needed_bytes() + 3 * OPTIONS.segment_bytes + longest_group;
            prop_assert!(log.file_bytes() <= bound, "{} of {bound} after {id}", log.file_bytes());
        }
        drop(log);
        disk.restore_power();
        let (_, recovered) = open(&disk).unwrap();
        expected.check(&recovered).map_err(TestCaseError::fail)?;
        prop_assert!(recovered.damage.is_empty());
    }
}

#[test]
fn used_keys_outlive_their_segments_and_go_with_the_window() {
    let check = |keys: KeyWindow, expected: Vec<u64>| {
        let disk = SimulatedDisk::new(1);
        let options = DiskOptions { keys, ..OPTIONS };
        let (mut log, _) = Log::open(disk.clone(), options).unwrap();
        // An item that is never done holds the first segment until it is copied forward.
        log.commit(&mut encoded(&[Event::accepted(1, 100)])).unwrap();
        for id in 2..=600 {
            log.commit(&mut encoded(&[Event::accepted(id, 100), Event::Done(id)])).unwrap();
            tidy(&mut log).unwrap();
        }
        let usage = log.usage();
        assert!(usage.files <= 6 + expected.len() / 20, "{usage:?}");
        drop(log);
        let (_, recovered) = Log::open(disk, options).unwrap();
        let found: Vec<_> = recovered.used_keys.iter().map(|(key, id, _)| (Arc::clone(key), id.0)).collect();
        let expected: Vec<_> = expected.into_iter().map(|id| (Arc::from(format!("key {id}")), id)).collect();
        assert_eq!(found, expected);
        assert_eq!((recovered.items.len(), recovered.next_id), (1, 601));
    };
    // Every third item has a key, and one is accepted every second.
    let third = |first: u64| (first..=600).filter(|id| id % 3 == 0).collect::<Vec<_>>();
    check(KeyWindow { age: Duration::MAX, count: 10 }, third(573));
    check(KeyWindow { age: Duration::from_secs(60), count: 1000 }, third(540));
    check(KeyWindow { age: Duration::MAX, count: 1000 }, third(3));
}

#[test]
fn a_segment_in_which_everything_is_done_goes_at_once() {
    let disk = SimulatedDisk::new(1);
    let (mut log, _) = open(&disk).unwrap();
    let mut memory = Memory::default();
    for id in 1..200 {
        // Without keys nothing remains to be known of them.
        let events = [Event::accepted(3 * id + 1, 700), Event::Done(3 * id + 1)];
        events.iter().for_each(|event| memory.apply(event));
        log.commit(&mut encoded(&events)).unwrap();
        tidy(&mut log).unwrap();
        assert!(log.usage().files <= 3, "{:?}", log.usage());
    }
    assert_eq!(log.usage().live_bytes, 0);
}
