//! Files that were damaged after they were written.

use std::collections::BTreeMap;

use super::model::{Event, Memory, encoded};
use super::{open, tidy};
use crate::queue::store::disk::{Disk, SimulatedDisk};
use crate::queue::store::log::segment::{self, HEADER_BLOCK};
use crate::queue::store::{Recovered, RecoveredItem};

/// Items that are not done at the end, in several segments; every other item is.
const ITEMS: u64 = 24;

/// A store that was closed in order, and what it holds.
fn store() -> (SimulatedDisk, Memory) {
    let disk = SimulatedDisk::new(3);
    let (mut log, _) = open(&disk).unwrap();
    let mut memory = Memory::default();
    for id in 1..=ITEMS {
        let mut group = vec![Event::accepted(2 * id, 400), Event::accepted(2 * id + 1, 60)];
        group.push(Event::Taken(2 * id, 1));
        group.push(Event::Done(2 * id + 1));
        group.iter().for_each(|event| memory.apply(event));
        log.commit(&mut encoded(&group)).unwrap();
    }
    log.close().unwrap();
    (disk, memory)
}

fn by_id(recovered: &Recovered) -> BTreeMap<u64, &RecoveredItem> {
    recovered.items.iter().map(|item| (item.id.0, item)).collect()
}

/// What was found is what was accepted, and how much of it is missing or back is known.
fn check(recovered: &Recovered, memory: &Memory, context: &str) -> (usize, usize) {
    let found = by_id(recovered);
    for (id, item) in &found {
        match memory.items.get(id) {
            Some(accepted) => {
                assert_eq!((&item.item, &item.facts), (&accepted.item, &accepted.facts), "{context}")
            }
            None => assert_eq!((id % 2, item.item.len()), (1, 60), "{context}"),
        }
    }
    let missing = memory.items.keys().filter(|id| !found.contains_key(id)).count();
    let back = found.keys().filter(|id| !memory.items.contains_key(id)).count();
    if !memory.is(recovered) {
        assert!(!recovered.damage.is_empty(), "{context}: {missing} missing and {back} back without a word");
    }
    (missing, back)
}

#[test]
fn a_flipped_bit_costs_one_record_and_is_reported() {
    let (disk, _) = store();
    let files = disk.list().unwrap();
    let segments: Vec<_> = files.into_iter().filter(|(name, _)| segment::number(name).is_some()).collect();
    assert!(segments.len() > 3, "{segments:?}");
    for (name, length) in segments {
        for offset in (0..length).step_by(5) {
            let (disk, memory) = store();
            disk.flip(&name, offset, 1 << (offset % 8)).unwrap();
            let context = format!("bit {} of byte {offset} of {name}", offset % 8);
            let (_, recovered) = open(&disk).unwrap();
            let (missing, back) = check(&recovered, &memory, &context);
            assert!(missing + back <= 1, "{context}: {missing} missing, {back} back");
        }
    }
}

#[test]
fn what_a_hole_takes_is_reported_once_and_the_rest_lives_on() {
    let (mut disk, memory) = store();
    let name = segment::name(2);
    for offset in HEADER_BLOCK as u64 + 700..HEADER_BLOCK as u64 + 1700 {
        disk.flip(&name, offset, 0xa5).unwrap();
    }
    let (mut log, recovered) = open(&disk).unwrap();
    let (missing, back) = check(&recovered, &memory, "a hole of 1,000 bytes");
    assert!((1..=3).contains(&missing) && back <= 3, "{missing} missing, {back} back");
    assert_eq!(recovered.damage.len(), 1, "{:?}", recovered.damage);
    // The damaged file is needed no more once what is left of it has been copied, and is kept for people.
    tidy(&mut log).unwrap();
    drop(log);
    let (_, again) = open(&disk).unwrap();
    assert_eq!((&again.items, &again.used_keys), (&recovered.items, &recovered.used_keys));
    assert_eq!(again.damage, [""; 0]);
    assert!(disk.read(&segment::damaged_name(2), 0, 1).is_ok(), "{disk:?}");
}

#[test]
fn a_segment_that_is_gone_or_has_no_header_is_reported() {
    let (mut disk, memory) = store();
    disk.remove(&segment::name(2)).unwrap();
    let (_, recovered) = open(&disk).unwrap();
    let (missing, _) = check(&recovered, &memory, "a missing file");
    assert!(missing > 0 && missing < ITEMS as usize / 2, "{missing} missing");

    let (disk, memory) = store();
    for offset in 0..HEADER_BLOCK as u64 {
        disk.flip(&segment::name(2), offset, 0x5a).unwrap();
    }
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(check(&recovered, &memory, "a header"), (0, 0));
    assert_eq!(recovered.damage.len(), 1, "{:?}", recovered.damage);
}

#[test]
fn an_item_that_goes_bad_while_the_log_is_open_is_never_copied() {
    let (disk, memory) = store();
    let (mut log, _) = open(&disk).unwrap();
    disk.flip(&segment::name(1), HEADER_BLOCK as u64 + 200, 1).unwrap();
    for id in 1000..1200 {
        log.commit(&mut encoded(&[Event::accepted(3 * id + 1, 700), Event::Done(3 * id + 1)])).unwrap();
        tidy(&mut log).unwrap();
    }
    drop(log);
    let (mut log, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.items.len(), memory.items.len() - 1);
    assert!(!recovered.damage.is_empty());
    tidy(&mut log).unwrap();
    assert!(log.usage().files < 12, "{:?}", log.usage());
}
