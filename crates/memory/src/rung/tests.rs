//! What every rung promises, shown for each; and what the disk's notices.

mod cascade;
pub(crate) mod device;

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::devices::SimulatedDevice;
use crate::files::{Access, Fault, Files, Folder, SimulatedFiles};
use crate::ladder::Writing;
use crate::{BufferPool, Residency};

/// A folder of this process, empty.
pub(crate) fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("tidegate-memory-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    path
}

pub(super) fn pool() -> BufferPool {
    BufferPool::new(16 << 20, Residency::Pageable).unwrap()
}

pub(super) fn object(pool: &BufferPool, number: u128, length: usize) -> (Key, Blob) {
    let mut bytes = pool.take(length).unwrap();
    bytes.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i as u128 * 31 + number) as u8);
    bytes.clear_padding();
    let note = format!("note {number}").into_bytes().into();
    (Key(number), Blob { note, bytes })
}

pub(super) fn keep(rung: &dyn Rung, objects: &[(Key, Blob)]) -> Vec<Result<(), RungError>> {
    let parcels: Vec<Parcel<'_>> = objects.iter().map(|(key, blob)| Parcel::new(*key, blob)).collect();
    rung.keep(&parcels)
}

pub(super) fn fetch(
    rung: &dyn Rung,
    pool: &BufferPool,
    key: Key,
    length: usize,
) -> Result<Vec<u8>, RungError> {
    let mut into = pool.take(length).unwrap();
    rung.fetch(key, &mut into, &Stop::default()).map(|_| into.to_vec())
}

/// The contract, but for damage.
pub(super) fn check(rung: &dyn Rung) {
    let pool = pool();
    let lengths = [0, 1, 4095, 4096, 5000, 3 << 20];
    let objects: Vec<_> = (1..).zip(lengths).map(|(n, length)| object(&pool, n, length)).collect();
    assert!(keep(rung, &objects).iter().all(Result::is_ok));
    for ((key, blob), length) in objects.iter().zip(lengths) {
        let mut into = pool.take(length).unwrap();
        let note = rung.fetch(*key, &mut into, &Stop::default()).unwrap();
        assert_eq!((&into[..], &note), (&blob.bytes[..], &blob.note));
        assert!(rung.footprint(length) >= length);
    }
    let mut inventory = rung.inventory().unwrap();
    inventory.sort_unstable();
    for ((key, bytes), ((named, blob), length)) in inventory.iter().zip(objects.iter().zip(lengths)) {
        assert_eq!((*key, rung.footprint(*bytes)), (*named, rung.footprint(length)));
        assert_eq!(fetch(rung, &pool, *key, *bytes).unwrap(), blob.bytes[..]);
    }
    let stop = Stop::default();
    stop.ask();
    assert_eq!(rung.fetch(Key(6), &mut pool.take(3 << 20).unwrap(), &stop), Err(RungError::Stopped));
    rung.remove(Key(6)).unwrap();
    rung.remove(Key(6)).unwrap();
    assert!(matches!(fetch(rung, &pool, Key(6), 3 << 20), Err(RungError::Gone { .. })));
    assert_eq!(rung.inventory().unwrap().len(), lengths.len() - 1);
}

#[test]
fn every_rung_gives_back_what_it_was_given() {
    check(&HostRung::new());
    check(&DiskRung::open(SimulatedFiles::new(1)).unwrap());
    check(&DeviceRung::new(SimulatedDevice::new(16 << 20)));
    for writing in [Writing::Back, Writing::Through] {
        for room in [0, 8 << 10, 16 << 20] {
            check(&cascade::over(&SimulatedDevice::new(room), room, &SimulatedFiles::new(1), writing));
        }
    }
    for access in [Some(Access::Buffered), Some(Access::Direct), None] {
        let path = folder(&format!("contract-{access:?}"));
        match Folder::open(&path, access) {
            Ok(files) => match DiskRung::open(files) {
                Ok(rung) => check(&rung),
                Err(error) => panic!("{error}"),
            },
            Err(error) => panic!("{error}"),
        }
        std::fs::remove_dir_all(&path).unwrap();
    }
}

#[test]
fn a_folder_has_one_owner_and_forgets_what_was_half_written() {
    let path = folder("owner");
    let pool = pool();
    let open = || DiskRung::open(Folder::open(&path, Some(Access::Buffered)).unwrap());
    let rung = open().unwrap();
    assert!(matches!(open(), Err(RungError::Taken { .. })));
    assert!(keep(&rung, &[object(&pool, 1, 100)])[0].is_ok());
    drop(rung);
    std::fs::write(path.join(format!("{}.unfinished", Key(2))), "half").unwrap();
    std::fs::write(path.join("somebody's.txt"), "not ours").unwrap();
    let rung = open().unwrap();
    assert_eq!(rung.inventory().unwrap(), [(Key(1), 4096)]);
    assert!(!path.join(format!("{}.unfinished", Key(2))).exists() && path.join("somebody's.txt").exists());
    drop(rung);
    std::fs::remove_dir_all(&path).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn what_a_disk_does_wrong_is_an_error_and_never_other_bytes(
        seed in any::<u64>(),
        faults in prop::collection::vec((0u64..24, 0usize..4), 0..4),
        power in any::<bool>(),
        length in 1usize..40_000,
    ) {
        let pool = pool();
        let files = SimulatedFiles::new(seed);
        let rung = DiskRung::open(files.clone()).unwrap();
        for (call, fault) in &faults {
            let fault = [Fault::Broken, Fault::Full, Fault::Short, Fault::Flipped][*fault];
            files.fail_at(files.calls() + call, fault);
        }
        let objects: Vec<_> = (1..4).map(|number| object(&pool, number, length)).collect();
        let kept = keep(&rung, &objects);
        if power {
            files.lose_power();
        }
        for ((key, blob), kept) in objects.iter().zip(kept) {
            match fetch(&rung, &pool, *key, length) {
                Ok(bytes) => prop_assert_eq!(&bytes[..], &blob.bytes[..]),
                Err(error) => prop_assert!(kept.is_err() || !faults.is_empty(), "{}", error),
            }
        }
    }

    #[test]
    fn every_flipped_bit_of_a_file_is_seen(at in 0usize..8192, bit in 0u32..8) {
        let pool = pool();
        let files = SimulatedFiles::new(0);
        let rung = DiskRung::open(files.clone()).unwrap();
        prop_assert!(keep(&rung, &[object(&pool, 7, 4096)])[0].is_ok());
        let name = format!("{}.object", Key(7));
        let mut bytes = vec![0; 8192];
        files.read(&name, 0, &mut bytes).unwrap();
        bytes[at] ^= 1 << bit;
        files.write(&name, [&bytes[..4096], &bytes[4096..]]).unwrap();
        let is_seen = matches!(fetch(&rung, &pool, Key(7), 4096), Err(RungError::Damaged { .. }));
        prop_assert!(is_seen);
    }
}

#[test]
fn a_full_disk_is_told_from_a_broken_one_and_leaves_nothing_behind() {
    let pool = pool();
    let files = SimulatedFiles::new(3);
    let rung = DiskRung::open(files.clone()).unwrap();
    files.limit(20_000);
    let outcomes = keep(&rung, &[object(&pool, 1, 8000), object(&pool, 2, 8000)]);
    assert!(outcomes[0].is_ok());
    assert!(matches!(&outcomes[1], Err(RungError::Full { .. })), "{outcomes:?}");
    assert_eq!(files.list().unwrap().len(), 1);
    files.limit(u64::MAX);
    files.fail_at(files.calls(), Fault::Broken);
    let outcome = keep(&rung, &[object(&pool, 2, 8000)]).remove(0);
    let message = outcome.unwrap_err().to_string();
    assert!(message.starts_with("cannot write a simulated disk/0000"), "{message}");
    assert!(keep(&rung, &[object(&pool, 2, 8000)])[0].is_ok());
}
