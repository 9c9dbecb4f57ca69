//! The ladder, worked by hand so that everything happens in a known order; and with its threads.

mod model;

use super::*;
use crate::PolicyChoice;
use crate::devices::SimulatedDevice;
use crate::eviction::{Eviction, Facts};
use crate::files::{Fault, SimulatedFiles};
use crate::rung::tests::device::opencl;
use crate::rung::{Cascade, CascadeSettings, DeviceRung, DiskRung, HostRung, Step};

/// A ladder without threads.
pub(super) struct ByHand {
    pub(super) ladder: Ladder,
}

impl ByHand {
    pub(super) fn new(settings: &LadderSettings, rung: Option<Arc<dyn Rung>>) -> Self {
        let (shared, work) = Ladder::prepare(settings, rung).unwrap();
        let threads = Threads { shared: Arc::clone(&shared), work, running: Vec::new() };
        Self { ladder: Ladder { shared, _threads: Arc::new(threads) } }
    }

    pub(super) fn work_once(&self) -> bool {
        self.ladder.shared.work_once()
    }

    /// Works until nothing is left to do, which is soon: bytes that move for ever are a fault.
    pub(super) fn work(&self) {
        let rounds = (0..10_000).take_while(|_| self.work_once()).count();
        assert!(rounds < 10_000, "the ladder never rests");
    }

    /// Puts an object of so many bytes of one value, working until there is room.
    pub(super) fn put(&self, number: u128, length: usize, stay: Stay) -> Result<(), LadderError> {
        let reserve = self.ladder.reserve(length);
        self.work();
        let mut bytes = reserve.wait()?;
        bytes.fill(number as u8);
        let note = number.to_le_bytes().into();
        self.ladder.put(Key(number), Blob { note, bytes }, Terms { stay, cost: 0.0 });
        Ok(())
    }

    pub(super) fn get(&self, number: u128) -> Raised {
        let raise = self.ladder.get(Key(number));
        self.work();
        raise.wait()
    }

    fn check(&self, number: u128, length: usize) {
        let blob = self.get(number).unwrap();
        assert!(blob.bytes.len() == length && blob.bytes.iter().all(|byte| *byte == number as u8));
        assert_eq!(&blob.note[..], number.to_le_bytes());
    }
}

pub(super) const PAGE: usize = 4096;

pub(super) fn settings(host_pages: usize, below_pages: usize) -> LadderSettings {
    LadderSettings { host_bytes: host_pages * PAGE, below_bytes: below_pages * PAGE, ..Default::default() }
}

pub(super) fn disk(files: &SimulatedFiles) -> Option<Arc<dyn Rung>> {
    Some(Arc::new(DiskRung::open(files.clone()).unwrap()))
}

#[test]
fn what_does_not_fit_goes_down_and_comes_back() {
    let rung: Option<Arc<dyn Rung>> = Some(Arc::new(HostRung::new()));
    let ladder = ByHand::new(&settings(4, 100), rung);
    for number in 0..12 {
        ladder.put(number, PAGE, Stay::Always).unwrap();
    }
    let statistics = ladder.ladder.statistics();
    assert!(
        statistics.host_used <= statistics.host_budget && statistics.below_objects >= 8,
        "{statistics:?}"
    );
    (0..12).for_each(|number| ladder.check(number, PAGE));
    ladder.ladder.remove(Key(3));
    assert_eq!(ladder.get(3).unwrap_err(), LadderError::Absent { key: Key(3) });
    assert!(!ladder.ladder.contains(Key(3)) && ladder.ladder.contains(Key(4)));
}

#[test]
fn a_full_or_broken_disk_loses_nothing_and_says_what_happened() {
    let files = SimulatedFiles::new(5);
    let ladder = ByHand::new(&settings(4, 1000), disk(&files));
    (0..4).for_each(|number| ladder.put(number, PAGE, Stay::Always).unwrap());
    ladder.work();
    files.limit(files.taken());
    let mut refused = 0;
    for number in 4..12 {
        refused += usize::from(ladder.put(number, PAGE, Stay::Always).is_err());
    }
    assert!(refused > 0);
    let message = ladder.put(99, PAGE, Stay::Always).unwrap_err().to_string();
    assert!(message.contains("is full") && message.contains("free some room there"), "{message}");
    (0..4).for_each(|number| assert!(ladder.get(number).is_ok() || ladder.ladder.contains(Key(number))));
    files.limit(u64::MAX);
    ladder.put(99, PAGE, Stay::Always).unwrap();
    (0..4).for_each(|number| ladder.check(number, PAGE));
    ladder.check(99, PAGE);
    assert!(ladder.ladder.statistics().faults > 0);
}

#[test]
fn damage_is_reported_and_what_is_damaged_is_not_given_out() {
    let files = SimulatedFiles::new(5);
    let ladder = ByHand::new(&settings(2, 1000), disk(&files));
    (0..4).for_each(|number| ladder.put(number, PAGE, Stay::Always).unwrap());
    ladder.work();
    files.fail_at(files.calls() + 1, Fault::Flipped);
    let error = ladder.get(0).unwrap_err();
    assert!(matches!(&error, LadderError::Rung { cause: RungError::Damaged { .. }, .. }), "{error}");
    assert_eq!(ladder.get(0).unwrap_err(), LadderError::Absent { key: Key(0) });
    assert_eq!(ladder.ladder.statistics().damaged, 1);
    // A read that merely fails may work the next time.
    files.fail_at(files.calls(), Fault::Broken);
    assert!(matches!(ladder.get(1), Err(LadderError::Rung { cause: RungError::Failed { .. }, .. })));
    ladder.check(1, PAGE);
}

#[test]
fn pins_and_holders_keep_objects_in_memory_and_room_is_refused_rather_than_waited_for_in_vain() {
    let ladder = ByHand::new(&settings(2, 100), Some(Arc::new(HostRung::new())));
    ladder.put(1, PAGE, Stay::Always).unwrap();
    ladder.put(2, PAGE, Stay::Always).unwrap();
    assert!(ladder.ladder.pin(Key(1)) && !ladder.ladder.pin(Key(9)));
    let held = ladder.get(2).unwrap();
    let error = ladder.put(3, PAGE, Stay::Always).unwrap_err();
    assert!(matches!(error, LadderError::Full { below: None, .. }), "{error}");
    assert!(matches!(ladder.put(3, 3 * PAGE, Stay::Always), Err(LadderError::TooLarge { .. })));
    drop(held);
    ladder.put(3, PAGE, Stay::Always).unwrap();
    ladder.ladder.unpin(Key(1));
    ladder.put(4, PAGE, Stay::Always).unwrap();
    (1..5).for_each(|number| ladder.check(number, PAGE));
}

#[test]
fn what_may_go_goes_when_both_rungs_are_full_and_what_may_not_stays() {
    // A file is a block longer than its object.
    let files = SimulatedFiles::new(9);
    let ladder = ByHand::new(&settings(2, 6), disk(&files));
    ladder.put(1, PAGE, Stay::Always).unwrap();
    for number in 2..20 {
        ladder.put(number, PAGE, Stay::WhileRoom).unwrap();
        ladder.work();
        assert!(files.taken() <= 6 * PAGE as u64);
    }
    ladder.check(1, PAGE);
    let left = (2..20).filter(|number| ladder.ladder.contains(Key(*number))).count();
    assert!((2..=4).contains(&left), "{left}");
    assert!(ladder.ladder.statistics().given_up > 10);
}

#[test]
fn a_rung_too_small_for_what_should_be_clean_is_left_alone() {
    // One object fits below, and more than one would have to be there for the low watermark.
    let ladder = ByHand::new(&settings(4, 3), disk(&SimulatedFiles::new(9)));
    (0..4).for_each(|number| ladder.put(number, PAGE, Stay::Always).unwrap());
    ladder.work();
    assert_eq!(ladder.ladder.statistics().below_objects, 1);
    (0..4).for_each(|number| ladder.check(number, PAGE));
}

#[test]
fn a_transfer_is_shared_by_all_who_wait_and_cancelled_when_nobody_does() {
    let files = SimulatedFiles::new(2);
    let ladder = ByHand::new(&settings(2, 100), disk(&files));
    (0..4).for_each(|number| ladder.put(number, PAGE, Stay::Always).unwrap());
    ladder.work();
    let calls = files.calls();
    let (first, second) = (ladder.ladder.get(Key(0)), ladder.ladder.get(Key(0)));
    drop(first);
    ladder.work();
    assert_eq!(second.wait().unwrap().bytes[0], 0);
    assert_eq!(files.calls() - calls, 2, "the header and the bytes are read once");
    ladder.put(7, 2 * PAGE, Stay::WhileRoom).unwrap();
    ladder.work();
    let calls = files.calls();
    drop(ladder.ladder.get(Key(0)));
    ladder.work();
    assert_eq!((files.calls(), ladder.ladder.statistics().cancelled), (calls, 1));
    ladder.check(0, PAGE);
}

#[test]
fn prefetched_objects_are_there_when_they_are_asked_for() {
    let ladder = ByHand::new(&settings(8, 100), Some(Arc::new(HostRung::new())));
    (0..16).for_each(|number| ladder.put(number, PAGE, Stay::Always).unwrap());
    ladder.work();
    let gone: Vec<Key> =
        (0..16).map(Key).filter(|key| ladder.ladder.shared.book.enter().is_below_only(*key)).collect();
    assert!(gone.len() >= 8);
    assert_eq!(ladder.ladder.prefetch(gone.iter().copied()), 4, "half of the memory is for what comes ahead");
    ladder.work();
    let before = ladder.ladder.statistics();
    gone[..4].iter().for_each(|key| ladder.check(key.0, PAGE));
    let after = ladder.ladder.statistics();
    assert_eq!((after.hits - before.hits, after.raises - before.raises), (4, 0));
    assert_eq!((after.prefetched, after.prefetches_used), (4, 4));
    assert!(after.prefetches_skipped > 0 && ladder.ladder.prefetch([Key(99)]) == 0);
}

#[test]
fn leftovers_are_served_after_a_restart_within_the_budget() {
    let files = SimulatedFiles::new(2);
    let keep = LadderSettings { leftovers: Leftovers::Keep, ..settings(4, 100) };
    let through = LadderSettings { writing: Writing::Through, ..keep.clone() };
    let ladder = ByHand::new(&through, disk(&files));
    (0..6).for_each(|number| ladder.put(number, 5000, Stay::WhileRoom).unwrap());
    ladder.work();
    drop(ladder);
    let ladder = ByHand::new(&keep, disk(&files));
    (0..6).for_each(|number| ladder.check(number, 5000));
    drop(ladder);
    let ladder = ByHand::new(&LadderSettings { below_bytes: 7 * PAGE, ..keep }, disk(&files));
    ladder.work();
    assert_eq!(files.taken(), 6 * PAGE as u64, "a file of 5000 bytes takes three pages");
    drop(ladder);
    let ladder = ByHand::new(&settings(4, 100), disk(&files));
    assert_eq!((files.taken(), ladder.ladder.statistics().below_objects), (0, 0));
}

/// Evicts the largest key.
struct Largest(std::collections::BTreeSet<Key>);

impl Eviction for Largest {
    fn insert(&mut self, key: Key, _facts: Facts) {
        self.0.insert(key);
    }

    fn touch(&mut self, _key: Key) {}

    fn remove(&mut self, key: Key) {
        self.0.remove(&key);
    }

    fn victim(&mut self, may: &mut dyn FnMut(Key) -> bool) -> Option<Key> {
        self.0.iter().rev().copied().find(|key| may(*key))
    }
}

#[test]
fn the_policy_changes_while_the_ladder_is_in_use() {
    let ladder = ByHand::new(&settings(3, 100), Some(Arc::new(HostRung::new())));
    (0..3).for_each(|number| ladder.put(number, PAGE, Stay::Always).unwrap());
    let own = || Box::new(Largest(Default::default())) as Box<dyn Eviction>;
    ladder.ladder.set_policy(&PolicyChoice::Own(Arc::new(own)));
    ladder.put(3, PAGE, Stay::Always).unwrap();
    assert!(ladder.ladder.shared.book.enter().is_below_only(Key(2)));
    ladder.ladder.set_policy(&PolicyChoice::default());
    ladder.put(4, PAGE, Stay::Always).unwrap();
    assert!(ladder.ladder.shared.book.enter().is_below_only(Key(0)));
    (0..5).for_each(|number| ladder.check(number, PAGE));
}

#[test]
fn a_smaller_budget_pushes_down_and_free_memory_grows_together() {
    let ladder = ByHand::new(&settings(8, 100), Some(Arc::new(HostRung::new())));
    (0..8).for_each(|number| ladder.put(number, PAGE, Stay::Always).unwrap());
    ladder.ladder.set_host_budget(3 * PAGE);
    ladder.work();
    assert!(ladder.ladder.statistics().host_used <= 3 * PAGE);
    ladder.ladder.set_host_budget(8 * PAGE);
    (0..8).for_each(|number| ladder.check(number, PAGE));
    [1, 3, 5].into_iter().for_each(|number| ladder.ladder.remove(Key(number)));
    let before = ladder.ladder.statistics().host_fragments;
    assert!(before > 1 && ladder.ladder.defragment() > 0);
    assert_eq!(ladder.ladder.statistics().host_fragments, 1);
    ladder.put(20, 3 * PAGE, Stay::Always).unwrap();
    [0, 2, 4, 6, 7].into_iter().for_each(|number| ladder.check(number, PAGE));
}

#[test]
fn what_is_eased_goes_down_and_refuses_nothing() {
    let ladder = ByHand::new(&settings(8, 100), Some(Arc::new(HostRung::new())));
    (0..8).for_each(|number| ladder.put(number, PAGE, Stay::Always).unwrap());
    let used = || ladder.ladder.statistics().host_used;
    ladder.ladder.ease(2 * PAGE);
    ladder.work();
    assert!(used() <= 2 * PAGE, "{}", used());
    (0..8).for_each(|number| ladder.check(number, PAGE));
    ladder.work();
    assert!(used() <= 2 * PAGE, "it stays eased: {}", used());
    ladder.put(20, 5 * PAGE, Stay::Always).unwrap();
    ladder.check(20, 5 * PAGE);
    let too_large = ladder.put(21, 9 * PAGE, Stay::Always).unwrap_err();
    assert_eq!(too_large, LadderError::TooLarge { bytes: 9 * PAGE, budget: 8 * PAGE });
    ladder.ladder.ease(usize::MAX);
    assert_eq!(ladder.ladder.statistics().host_budget, 8 * PAGE);
    ladder.ladder.set_host_budget(3 * PAGE);
    ladder.ladder.ease(usize::MAX);
    assert_eq!(ladder.ladder.statistics().host_budget, 3 * PAGE, "no more than is allowed");

    // With nowhere to go, everything stays, and newcomers find the room that there is.
    let alone = ByHand::new(&settings(8, 100), None);
    (0..3).for_each(|number| alone.put(number, PAGE, Stay::Always).unwrap());
    alone.ladder.ease(PAGE);
    (3..8).for_each(|number| alone.put(number, PAGE, Stay::Always).unwrap());
    (0..8).for_each(|number| alone.check(number, PAGE));
    assert!(matches!(alone.put(8, PAGE, Stay::Always), Err(LadderError::Full { .. })));
}

#[test]
fn threads_serve_many_clients_and_end_with_the_ladder() {
    let path = crate::rung::tests::folder("threads");
    let disk = || DiskRung::open(crate::files::Folder::open(&path, None).unwrap()).unwrap();
    threads_serve_many_clients(Arc::new(disk()));
    for writing in [Writing::Back, Writing::Through] {
        let simulated = DeviceRung::new(SimulatedDevice::new(usize::MAX));
        let real = opencl(64 * PAGE).map(|device| Arc::new(DeviceRung::new(device)) as Arc<dyn Rung>);
        for upper in [Some(Arc::new(simulated) as Arc<dyn Rung>), real].into_iter().flatten() {
            let upper = Step { rung: upper, bytes: 64 * PAGE };
            let lower = Step { rung: Arc::new(disk()), bytes: 4000 * PAGE };
            let settings = CascadeSettings { writing, ..CascadeSettings::default() };
            let both = Arc::new(Cascade::new(upper, lower, &settings).unwrap());
            threads_serve_many_clients(Arc::clone(&both) as Arc<dyn Rung>);
            let levels = both.levels();
            assert!(levels.iter().all(|level| level.read > 0 && level.faults == 0), "{levels:?}");
        }
    }
    std::fs::remove_dir_all(&path).unwrap();
}

fn threads_serve_many_clients(rung: Arc<dyn Rung>) {
    let ladder = Ladder::open(&settings(40, 4000), Some(rung)).unwrap();
    std::thread::scope(|scope| {
        for client in 0..4u128 {
            let ladder = ladder.clone();
            scope.spawn(move || {
                for round in 0..40u128 {
                    let key = Key(client * 1000 + round);
                    let mut bytes = ladder.reserve(6000).wait().unwrap();
                    bytes.fill(round as u8);
                    ladder.put(key, Blob { note: [].into(), bytes }, Terms { stay: Stay::Always, cost: 0.0 });
                    let before = Key(client * 1000 + round / 2);
                    drop(ladder.get(Key(client * 1000 + round / 3)));
                    let blob = ladder.get(before).wait().unwrap();
                    assert!(blob.bytes.iter().all(|byte| *byte == (round / 2) as u8));
                }
            });
        }
    });
    let statistics = ladder.statistics();
    assert_eq!((statistics.faults, statistics.given_up), (0, 0), "{statistics:?}");
}

impl Book {
    fn is_below_only(&self, key: Key) -> bool {
        self.statistics();
        self.place_of(key) == (false, true)
    }
}
