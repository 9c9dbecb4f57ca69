//! Two rungs as one: what goes where, and what is left when the upper one fails.

use std::sync::Arc;

use super::*;
use crate::devices::Misfortune;
use crate::files::SimulatedFiles;

const PAGE: usize = 4096;

/// A device of which so many bytes may be used, over a disk of 32 MiB.
pub(crate) fn over(
    device: &SimulatedDevice,
    bytes: usize,
    files: &SimulatedFiles,
    writing: Writing,
) -> Cascade {
    let upper = Step { rung: Arc::new(DeviceRung::new(device.clone())), bytes };
    let lower = Step { rung: Arc::new(DiskRung::open(files.clone()).unwrap()), bytes: 32 << 20 };
    Cascade::new(upper, lower, &CascadeSettings { writing, ..CascadeSettings::default() }).unwrap()
}

/// Keeps pages of those numbers one after the other.
fn keep_pages(rung: &Cascade, pool: &BufferPool, numbers: std::ops::Range<u128>) {
    for number in numbers {
        assert_eq!(keep(rung, &[object(pool, number, PAGE)]), [Ok(())]);
    }
}

/// Whether a page comes back as it was.
fn is_there(rung: &Cascade, pool: &BufferPool, number: u128) -> bool {
    let (key, blob) = object(pool, number, PAGE);
    match fetch(rung, pool, key, PAGE) {
        Ok(bytes) => {
            assert!(bytes[..] == blob.bytes[..], "{number} has other bytes");
            true
        }
        Err(_) => false,
    }
}

/// Objects on the device, and on the disk.
fn objects(rung: &Cascade) -> [usize; 2] {
    let levels = rung.levels();
    assert!(levels.iter().all(|level| level.used <= level.budget));
    [levels[0].objects, levels[1].objects]
}

#[test]
fn objects_fill_the_device_then_the_disk_and_are_copied_down_before_room_is_needed() {
    let (pool, device, files) = (pool(), SimulatedDevice::new(usize::MAX), SimulatedFiles::new(1));
    let rung = over(&device, 10 * PAGE, &files, Writing::Back);
    keep_pages(&rung, &pool, 0..8);
    assert_eq!((objects(&rung), rung.tend()), ([8, 0], false), "there is room");
    keep_pages(&rung, &pool, 8..12);
    assert_eq!(objects(&rung), [10, 2], "what finds no room goes down at once");
    assert!(is_there(&rung, &pool, 0));
    assert_eq!((0..).take_while(|_| rung.tend()).count(), 4, "down to the low watermark");
    assert_eq!((objects(&rung), device.taken()), ([10, 6], 10 * PAGE));
    // The pages that have copies go for new ones: 1, 2, 3 and 4, for 0 was in use.
    let read = || rung.levels()[0].read;
    keep_pages(&rung, &pool, 12..16);
    assert_eq!(objects(&rung), [10, 6]);
    let before = read();
    assert!([0, 5, 12, 15].into_iter().all(|number| is_there(&rung, &pool, number)));
    assert_eq!(read() - before, 4 * PAGE as u64, "from the device");
    assert!((0..16).all(|number| is_there(&rung, &pool, number)));
}

#[test]
fn what_is_read_from_the_disk_is_on_the_device_then() {
    let (pool, device, files) = (pool(), SimulatedDevice::new(usize::MAX), SimulatedFiles::new(1));
    let rung = over(&device, 4 * PAGE, &files, Writing::Through);
    keep_pages(&rung, &pool, 0..8);
    assert_eq!(objects(&rung), [4, 8], "everything is on the disk");
    let calls = files.calls();
    assert!(is_there(&rung, &pool, 0) && files.calls() > calls);
    let calls = files.calls();
    assert!(is_there(&rung, &pool, 0) && is_there(&rung, &pool, 7));
    assert_eq!(files.calls(), calls, "now on the device");
    rung.remove(Key(0)).unwrap();
    assert!(!is_there(&rung, &pool, 0));
    drop(rung);
    let rung = over(&SimulatedDevice::new(usize::MAX), 4 * PAGE, &files, Writing::Through);
    assert!((1..8).all(|number| is_there(&rung, &pool, number)), "after a restart");
}

#[test]
fn a_device_that_is_lost_takes_with_it_only_what_is_nowhere_else() {
    let (pool, device, files) = (pool(), SimulatedDevice::new(usize::MAX), SimulatedFiles::new(1));
    let rung = over(&device, 10 * PAGE, &files, Writing::Back);
    keep_pages(&rung, &pool, 0..9);
    while rung.tend() {}
    assert_eq!(objects(&rung), [9, 3]);
    device.fail_at(device.calls(), Misfortune::Lost);
    let left: Vec<u128> = (0..9).filter(|number| is_there(&rung, &pool, *number)).collect();
    assert_eq!(left, [0, 1, 2]);
    keep_pages(&rung, &pool, 20..24);
    assert!((20..24).all(|number| is_there(&rung, &pool, number)), "what is new goes to the disk");
    assert!(rung.levels()[0].faults > 0 && rung.levels()[1].faults == 0);
    (0..30).for_each(|number| rung.remove(Key(number)).unwrap());
    assert_eq!((objects(&rung), device.taken(), files.taken()), ([0, 0], 0, 0));
}

#[test]
fn a_bit_that_flips_on_the_device_costs_nothing_where_there_is_a_copy() {
    let (pool, device, files) = (pool(), SimulatedDevice::new(usize::MAX), SimulatedFiles::new(1));
    let rung = over(&device, 10 * PAGE, &files, Writing::Through);
    keep_pages(&rung, &pool, 0..2);
    device.fail_at(device.calls(), Misfortune::Flipped);
    assert!(is_there(&rung, &pool, 0));
    assert_eq!((objects(&rung), rung.levels()[0].faults), ([2, 2], 1), "and it is on the device again");
}

#[test]
fn what_could_not_be_removed_is_removed_before_it_is_kept_again() {
    let (pool, device, files) = (pool(), SimulatedDevice::new(usize::MAX), SimulatedFiles::new(1));
    let rung = over(&device, 10 * PAGE, &files, Writing::Through);
    keep_pages(&rung, &pool, 0..1);
    files.fail_at(files.calls(), Fault::Broken);
    assert!(rung.remove(Key(0)).is_err());
    assert_eq!(objects(&rung), [0, 1]);
    keep_pages(&rung, &pool, 0..1);
    assert_eq!(objects(&rung), [1, 1]);
    assert!(is_there(&rung, &pool, 0));
}
