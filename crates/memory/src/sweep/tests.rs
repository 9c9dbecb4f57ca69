//! Whatever the budget and the order, parts are what they should be; and no more is read than has to be.

use proptest::prelude::*;

use super::*;
use crate::files::{Fault, Folder, SimulatedFiles};
use crate::rung::tests::folder;

const BLOCK: usize = 4096;

/// A file of parts of so many bytes, each at a block of its own, and where they are.
fn file(lengths: &[usize]) -> (Vec<u8>, Vec<Part>) {
    let (mut bytes, mut parts) = (Vec::new(), Vec::new());
    for (number, length) in lengths.iter().enumerate() {
        let part: Vec<u8> = (0..*length).map(|i| (i * 31 + i / 256 + number * 7) as u8).collect();
        let offset = bytes.len() as u64;
        parts.push(Part { offset, bytes: *length, checksum: crc32c::crc32c(&part) });
        bytes.extend(part);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0xee);
    }
    (bytes, parts)
}

fn disk(bytes: &[u8]) -> SimulatedFiles {
    let files = SimulatedFiles::new(5);
    files.write("weights", [bytes, &[]]).unwrap();
    files
}

fn check(sweep: &Sweep, bytes: &[u8], (parts, number): (&[Part], usize)) {
    let Part { offset, bytes: length, .. } = parts[number];
    let blob = sweep.part(number).unwrap();
    assert!(blob.bytes[..] == bytes[offset as usize..][..length], "part {number}");
    let SweepStatistics { budget, .. } = sweep.statistics();
    assert!(sweep.shared.ladder.statistics().host_used <= budget);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_order_gives_the_parts_within_every_budget(
        lengths in prop::collection::vec(1..40_000usize, 1..12),
        budget in 3 * 40_960..400_000usize,
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..60),
        rounds in 0..3usize,
    ) {
        let (bytes, parts) = file(&lengths);
        let sweep = Sweep::open(disk(&bytes), "weights", parts.clone(), budget).unwrap();
        prop_assert!(sweep.statistics().budget <= budget && sweep.statistics().held <= budget);
        let rounds = (0..rounds).flat_map(|_| 0..parts.len());
        for number in order.iter().map(|index| index.index(parts.len())).chain(rounds) {
            check(&sweep, &bytes, (&parts, number));
        }
    }
}

#[test]
fn a_round_reads_what_is_not_held_once() {
    let (bytes, parts) = file(&[4 * BLOCK; 40]);
    let sweep = Sweep::open(disk(&bytes), "weights", parts.clone(), 25 * 4 * BLOCK).unwrap();
    let SweepStatistics { held, bytes: all, .. } = sweep.statistics();
    // The window has half of the budget at the most, as long as parts are small.
    assert!((12 * 4 * BLOCK..25 * 4 * BLOCK).contains(&held), "{held} bytes are held");
    let runs = sweep.shared.plan.held.chunk_by(|a, b| a == b).map(<[bool]>::len).max();
    assert!(runs.is_some_and(|most| most <= 4), "held parts are spread: {:?}", sweep.shared.plan.held);
    for round in 1..=5 {
        (0..40).for_each(|number| check(&sweep, &bytes, (&parts, number)));
        let read = usize::try_from(sweep.statistics().read).unwrap();
        let ahead = 13 * 4 * BLOCK;
        let needed = held + round * (all - held);
        assert!((needed..=needed + ahead).contains(&read), "{read} bytes were read, {needed} needed");
    }
}

#[test]
fn what_is_left_out_is_read_ahead_no_more_once_that_is_known() {
    let (bytes, parts) = file(&[BLOCK; 30]);
    let sweep = Sweep::open(disk(&bytes), "weights", parts, 8 * BLOCK).unwrap();
    // The last ten are never asked for.
    (0..3).flat_map(|_| 0..20).for_each(|number| drop(sweep.part(number).unwrap()));
    let ahead = sweep.ahead(19);
    assert!(ahead.first().is_some_and(|next| *next < 5), "{ahead:?}");
}

#[test]
fn all_of_it_is_held_where_there_is_room() {
    let (bytes, parts) = file(&[BLOCK, 3 * BLOCK + 7, 100]);
    let sweep = Sweep::open(disk(&bytes), "weights", parts.clone(), 1 << 20).unwrap();
    for number in [0, 1, 2, 0, 2, 1, 1] {
        check(&sweep, &bytes, (&parts, number));
    }
    let SweepStatistics { read, bytes: all, .. } = sweep.statistics();
    assert_eq!((read, all), (4 * BLOCK as u64 + 107, 4 * BLOCK + 107));
}

#[test]
fn too_little_room_is_refused_with_what_would_do() {
    let (bytes, parts) = file(&[8 * BLOCK; 10]);
    let Err(SweepError::Budget { least, .. }) =
        Sweep::open(disk(&bytes), "weights", parts.clone(), 23 * BLOCK)
    else {
        panic!("it does not fit")
    };
    let sweep = Sweep::open(disk(&bytes), "weights", parts.clone(), least).unwrap();
    (0..10).for_each(|number| check(&sweep, &bytes, (&parts, number)));
}

#[test]
fn a_flip_on_the_way_is_read_again_and_what_breaks_is_said_and_tried_again() {
    for (fault, is_mended) in [(Fault::Flipped, true), (Fault::Short, true), (Fault::Broken, false)] {
        let (bytes, parts) = file(&[BLOCK; 20]);
        let files = disk(&bytes);
        let sweep = Sweep::open(files.clone(), "weights", parts.clone(), 4 * BLOCK).unwrap();
        files.fail_at(files.calls() + 3, fault);
        // Whichever part meets it; when it was read ahead, it is read again when it is needed.
        for number in 0..20 {
            let outcome = sweep.part(number);
            let is_right = |blob: &Arc<crate::rung::Blob>| blob.bytes[..] == bytes[number * BLOCK..][..BLOCK];
            assert!(outcome.as_ref().map_or(!is_mended, is_right), "{fault:?}: {outcome:?}");
        }
        (0..20).for_each(|number| check(&sweep, &bytes, (&parts, number)));
    }
}

#[test]
fn damage_that_stays_is_an_error_and_never_other_bytes() {
    let (mut bytes, parts) = file(&[BLOCK; 20]);
    bytes[11 * BLOCK + 5] ^= 1;
    let sweep = Sweep::open(disk(&bytes), "weights", parts, 4 * BLOCK).unwrap();
    for number in (0..20).chain(0..20) {
        let part = sweep.part(number);
        assert_eq!(part.is_err(), number == 11, "part {number}");
    }
    assert!(matches!(sweep.last_fault(), Some(RungError::Damaged { .. })));
}

#[test]
fn a_file_that_lost_its_name_is_still_read() {
    let path = folder("sweep");
    std::fs::create_dir_all(&path).unwrap();
    // The last part ends inside of a block, and so does the file.
    let (mut bytes, parts) = file(&[BLOCK, BLOCK, BLOCK, 3 * BLOCK, 100]);
    bytes.truncate(bytes.len() - BLOCK + 200);
    let name = path.join("weights");
    std::fs::write(&name, &bytes).unwrap();
    let sweep = Sweep::open(Folder::holding(&name).unwrap(), "weights", parts.clone(), 9 * BLOCK).unwrap();
    std::fs::write(path.join("other"), vec![0; bytes.len()]).unwrap();
    std::fs::rename(path.join("other"), &name).unwrap();
    for number in (0..5).chain(0..5) {
        check(&sweep, &bytes, (&parts, number));
    }
    drop(sweep);
    std::fs::remove_dir_all(&path).unwrap();
    assert!(Folder::holding(&name).is_err());
}
