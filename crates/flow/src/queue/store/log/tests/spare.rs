//! Segments that are written a second time.

use super::model::{Event, Expected, Memory, encoded};
use super::{OPTIONS, open, tidy};
use crate::queue::store::disk::{Disk, SimulatedDisk};
use crate::queue::store::log::segment::{self, HEADER_BLOCK};
use crate::queue::store::log::spare::SPARE;

/// Items that come and go, so that segments are needed no more as soon as they are full; answers what is left.
fn pass(disk: &SimulatedDisk, ids: std::ops::Range<u64>) -> Memory {
    let (mut log, _) = open(disk).unwrap();
    let mut memory = Memory::default();
    for id in ids.map(|id| 3 * id + 1) {
        let events = [Event::accepted(id, 300), Event::Done(id)];
        log.commit(&mut encoded(&events)).unwrap();
        tidy(&mut log).unwrap();
    }
    let last = Event::accepted(1_000_003, 300);
    log.commit(&mut encoded(std::slice::from_ref(&last))).unwrap();
    memory.apply(&last);
    memory
}

fn length(disk: &SimulatedDisk, wanted: &str) -> Option<u64> {
    disk.list().unwrap().into_iter().find(|(name, _)| name == wanted).map(|(_, length)| length)
}

#[test]
fn a_segment_that_is_needed_no_more_becomes_the_next_but_one() {
    let disk = SimulatedDisk::new(1);
    let (mut log, _) = open(&disk).unwrap();
    let mut reused = 0;
    for id in 1..100 {
        let before = length(&disk, SPARE);
        log.commit(&mut encoded(&[Event::accepted(3 * id + 1, 300), Event::Done(3 * id + 1)])).unwrap();
        if before.is_some() && length(&disk, SPARE).is_none() {
            reused += 1;
            assert_eq!(log.active().length, OPTIONS.segment_bytes, "its file is not written anew");
        }
        tidy(&mut log).unwrap();
        assert!(log.usage().bytes <= 3 * OPTIONS.segment_bytes + OPTIONS.reserve_bytes, "{:?}", log.usage());
    }
    assert!(reused > 3, "{disk:?}");
}

/// What a file held when it was another segment is no part of it, wherever the log was cut off and whatever else of it
/// cannot be read.
#[test]
fn what_was_done_long_ago_never_comes_back() {
    for count in 1..60 {
        let disk = SimulatedDisk::new(count);
        let memory = pass(&disk, 1..count);
        disk.restore_power();
        let (log, recovered) = open(&disk).unwrap();
        let last = log.active().number;
        drop(log);
        let mut expected = Expected { settled: memory.clone(), unsettled: Vec::new() };
        expected.check(&recovered).unwrap_or_else(|error| panic!("after {count}: {error}"));
        assert_eq!(recovered.damage, [""; 0]);

        let disk = SimulatedDisk::new(count);
        pass(&disk, 1..count);
        for offset in 0..HEADER_BLOCK as u64 + 8 {
            disk.flip(&segment::name(last), offset, 0x5a).unwrap();
        }
        let (_, recovered) = open(&disk).unwrap();
        let known = |id: u64| id == 1_000_003 || id + 60 > 3 * count;
        let ids: Vec<_> = recovered.items.iter().map(|item| item.id.0).collect();
        assert!(ids.iter().all(|id| known(*id)), "after {count}: {ids:?}");
        assert!(!recovered.damage.is_empty(), "after {count}");
    }
}

#[test]
fn a_full_disk_takes_the_spare_before_it_refuses_an_item() {
    let mut disk = SimulatedDisk::new(1);
    let (mut log, _) = open(&disk).unwrap();
    let mut id = 1;
    while log.spare == 0 {
        id += 3;
        log.commit(&mut encoded(&[Event::accepted(id, 300), Event::Done(id)])).unwrap();
        tidy(&mut log).unwrap();
    }
    disk.limit(log.usage().bytes);
    let kept = log.commit(&mut encoded(&[Event::accepted(id + 3, 2800)])).unwrap();
    assert_eq!((kept, log.spare), (super::super::Kept::All, 0));
    assert!(disk.read(SPARE, 0, 1).is_err());
}
