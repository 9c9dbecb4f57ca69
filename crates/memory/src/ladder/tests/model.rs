//! Any sequence of acts and faults against a model: contents are bit-exact, budgets hold at every instant, nothing is lost
//! that was not given up with leave, and in the end everything is free again.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::rung::tests::device::MISFORTUNES;

#[derive(Clone, Debug)]
enum Act {
    Put(u128, usize, Stay),
    Get(u128),
    /// Asks and gives up, after so much work.
    Cancel(u128, usize),
    Prefetch(u128),
    Pin(u128),
    Unpin(u128),
    Hold(u128),
    LetGo,
    Remove(u128),
    Pressure(usize),
    Ease(usize),
    Policy(usize),
    Defragment,
    Fault(u64, usize),
    /// Of a device, by when and what.
    Misfortune(u64, usize),
    Room(u64),
    Work,
}

fn acts() -> impl Strategy<Value = Act> {
    let key = 0u128..16;
    let stay = prop_oneof![Just(Stay::Always), Just(Stay::WhileRoom)];
    prop_oneof![
        6 => (key.clone(), 1usize..3 * PAGE, stay).prop_map(|(k, n, s)| Act::Put(k, n, s)),
        6 => key.clone().prop_map(Act::Get),
        2 => (key.clone(), 0usize..3).prop_map(|(k, n)| Act::Cancel(k, n)),
        2 => key.clone().prop_map(Act::Prefetch),
        1 => key.clone().prop_map(Act::Pin),
        1 => key.clone().prop_map(Act::Unpin),
        1 => key.clone().prop_map(Act::Hold),
        2 => Just(Act::LetGo),
        1 => key.prop_map(Act::Remove),
        1 => (1usize..10).prop_map(Act::Pressure),
        2 => (0usize..10).prop_map(Act::Ease),
        1 => (0usize..4).prop_map(Act::Policy),
        1 => Just(Act::Defragment),
        2 => (0u64..12, 0usize..4).prop_map(|(n, f)| Act::Fault(n, f)),
        1 => (0u64..12, 0usize..MISFORTUNES.len()).prop_map(|(n, f)| Act::Misfortune(n, f)),
        1 => prop_oneof![(0u64..20).prop_map(Act::Room), Just(Act::Room(u64::MAX))],
        3 => Just(Act::Work),
    ]
}

/// What must be there, and what of it may have been lost to damage that was injected.
struct World {
    hands: ByHand,
    files: SimulatedFiles,
    device: Option<SimulatedDevice>,
    /// By number: length, and whether it may go.
    put: BTreeMap<u128, (usize, Stay)>,
    held: Vec<Arc<Blob>>,
    is_faulty: bool,
}

/// Pages of the rungs below, and those of them that are a device's, if there is one.
const BELOW: usize = 30;
const DEVICE: usize = 7;

impl World {
    fn new(seed: u64, writing: Writing) -> Self {
        let files = SimulatedFiles::new(seed);
        let settings = LadderSettings { writing, ..settings(10, BELOW) };
        let hands = ByHand::new(&settings, disk(&files));
        Self { hands, files, device: None, put: BTreeMap::new(), held: Vec::new(), is_faulty: false }
    }

    /// With a device between memory and disk.
    fn with_device(seed: u64, writing: Writing) -> Self {
        let (files, device) = (SimulatedFiles::new(seed), SimulatedDevice::new(DEVICE * PAGE));
        let upper = Step { rung: Arc::new(DeviceRung::new(device.clone())), bytes: DEVICE * PAGE };
        let disk = DiskRung::open(files.clone()).unwrap();
        let beside = if writing == Writing::Back { DEVICE } else { 0 };
        let lower = Step { rung: Arc::new(disk), bytes: (BELOW - beside) * PAGE };
        let both = Cascade::new(upper, lower, &CascadeSettings { writing, ..Default::default() }).unwrap();
        assert_eq!(both.budget(), BELOW * PAGE);
        let settings = LadderSettings { writing, ..settings(10, BELOW) };
        let hands = ByHand::new(&settings, Some(Arc::new(both)));
        let put = BTreeMap::new();
        Self { hands, files, device: Some(device), put, held: Vec::new(), is_faulty: false }
    }

    fn act(&mut self, act: Act) {
        let ladder = self.hands.ladder.clone();
        match act {
            Act::Put(number, length, stay) => {
                let (length, stay) = match self.put.get(&number) {
                    Some((length, before)) => (*length, stay.max(*before)),
                    None => (length, stay),
                };
                if self.hands.put(number, length, stay).is_ok() {
                    self.put.insert(number, (length, stay));
                }
            }
            Act::Get(number) => drop(self.get(number)),
            Act::Hold(number) => {
                let blob = self.get(number);
                self.held.extend(blob);
            }
            Act::LetGo => self.held.clear(),
            Act::Cancel(number, work) => {
                let raise = ladder.get(Key(number));
                for _ in 0..work {
                    self.hands.work_once();
                }
                drop(raise);
            }
            Act::Prefetch(number) => _ = ladder.prefetch([Key(number)]),
            Act::Pin(number) => _ = ladder.pin(Key(number)),
            Act::Unpin(number) => ladder.unpin(Key(number)),
            Act::Remove(number) => {
                ladder.remove(Key(number));
                self.put.remove(&number);
            }
            Act::Pressure(pages) => ladder.set_host_budget(pages * PAGE),
            Act::Ease(pages) => ladder.ease(pages * PAGE),
            Act::Policy(number) => {
                ladder.set_policy(&PolicyChoice::Known(crate::eviction::POLICIES[number]));
            }
            Act::Defragment => _ = ladder.defragment(),
            Act::Fault(call, fault) => {
                self.is_faulty = true;
                let fault = [Fault::Broken, Fault::Full, Fault::Short, Fault::Flipped][fault];
                self.files.fail_at(self.files.calls() + call, fault);
            }
            Act::Misfortune(call, which) => {
                if let Some(device) = &self.device {
                    self.is_faulty = true;
                    device.fail_at(device.calls() + call, MISFORTUNES[which]);
                }
            }
            Act::Room(pages) => {
                self.is_faulty = true;
                self.files.limit(pages.saturating_mul(PAGE as u64));
            }
            Act::Work => self.hands.work(),
        }
    }

    /// Asks for an object and compares it, and what the answer says, with the model.
    fn get(&mut self, number: u128) -> Option<Arc<Blob>> {
        match (self.hands.get(number), self.put.get(&number)) {
            (Ok(blob), Some((length, _))) => {
                assert_eq!((blob.bytes.len(), &blob.note[..]), (*length, &number.to_le_bytes()[..]));
                assert!(blob.bytes.iter().all(|byte| *byte == number as u8), "other bytes");
                return Some(blob);
            }
            (Ok(_), None) => panic!("{number} was removed, or never put"),
            (Err(LadderError::Absent { .. }), Some((_, Stay::Always))) => {
                let statistics = self.hands.ladder.statistics();
                let is_device_lost = self.device.as_ref().is_some_and(SimulatedDevice::is_lost);
                assert!(statistics.damaged > 0 || is_device_lost, "{number} is lost");
                self.put.remove(&number);
            }
            // What was on its way out when it was asked for stays after all if it could not be removed.
            (Err(LadderError::Absent { .. }), Some((_, Stay::WhileRoom))) if self.is_faulty => {}
            (Err(LadderError::Absent { .. }), _) => _ = self.put.remove(&number),
            (Err(LadderError::Rung { .. }), _) => assert!(self.is_faulty),
            (Err(LadderError::Full { .. } | LadderError::TooLarge { .. }), Some(_)) => {}
            (Err(error), _) => panic!("{number}: {error}"),
        }
        None
    }

    fn check(&self) {
        let statistics = self.hands.ladder.statistics();
        assert!(statistics.host_used <= 10 * PAGE);
        assert!(statistics.below_used <= BELOW * PAGE);
        assert!(self.is_faulty || self.files.taken() <= statistics.below_used as u64);
        assert!(self.device.as_ref().is_none_or(|device| device.taken() <= DEVICE * PAGE));
        for level in self.hands.ladder.levels() {
            assert!(level.used <= level.budget, "{level:?}");
        }
        self.hands.ladder.shared.book.enter().check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn contents_are_exact_budgets_hold_and_nothing_is_lost(
        seed in any::<u64>(),
        through in any::<bool>(),
        device in any::<bool>(),
        acts in prop::collection::vec(acts(), 1..80),
    ) {
        let world = if device { World::with_device } else { World::new };
        let mut world = world(seed, if through { Writing::Through } else { Writing::Back });
        for act in acts {
            world.act(act);
            world.check();
        }
        world.files.limit(u64::MAX);
        world.held.clear();
        let ladder = world.hands.ladder.clone();
        ladder.set_host_budget(10 * PAGE);
        (0..16).for_each(|number| (0..80).for_each(|_| ladder.unpin(Key(number))));
        world.hands.work();
        for number in 0..16 {
            let is_there = world.get(number).is_some() || !world.put.contains_key(&number);
            prop_assert!(is_there || world.is_faulty);
        }
        (0..16).for_each(|number| ladder.remove(Key(number)));
        world.hands.work();
        let statistics = ladder.statistics();
        prop_assert_eq!((statistics.host_used, statistics.host_objects, statistics.transfers), (0, 0, 0));
        prop_assert_eq!(statistics.host_fragments, 1);
        if !world.is_faulty {
            prop_assert_eq!((statistics.below_used, world.files.taken(), statistics.faults), (0, 0, 0));
            prop_assert!(ladder.levels().iter().all(|level| (level.used, level.objects) == (0, 0)));
        }
    }
}
