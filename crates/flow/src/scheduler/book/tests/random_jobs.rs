//! Random inventories, jobs and changes of them: what is reserved is always there, everything ends, and nobody waits
//! beyond the bound.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::super::{Book, JobId, Placement};
use crate::random::Random;
use crate::scheduler::{Balance, Device, Inventory, Needs, Rules, WHOLE};

const SEEDS: u64 = 100_000;
const LONGEST: u64 = 40;

/// What the test itself knows to be there, by device ("" is the machine) and name of the need.
type Amounts = BTreeMap<(String, String), u64>;

struct Run {
    at: u64,
    placement: Placement,
    needs: Needs,
}

struct Asked {
    needs: Needs,
    arrived: u64,
    level: u8,
    ahead: u64,
}

/// One random history.
struct History {
    random: Random,
    rules: Rules,
    book: Book,
    now: u64,
    capacity: Amounts,
    used: Amounts,
    waiting: HashMap<JobId, Asked>,
    running: Vec<Run>,
    /// Whether the inventory changes; the bound holds while it does not.
    changes: bool,
    ended: usize,
}

fn time(now: u64) -> Duration {
    Duration::from_millis(now)
}

impl History {
    fn new(seed: u64) -> Self {
        let mut random = Random::seeded(seed);
        let balances = [Balance::LeastReserved, Balance::TwoChoices, Balance::Packed];
        let rules = Rules {
            age_step: time(1 + random.below(60)),
            patience: time(random.below(100)),
            look_ahead: 1 + random.below(8) as usize,
            balance: balances[random.below(3) as usize],
            seed,
        };
        let mut inventory = Inventory::new().memory(4 + random.below(20)).cpu(500 * (1 + random.below(8)));
        let mut capacity = Amounts::new();
        for (name, has) in &inventory.resources {
            capacity.insert((String::new(), name.to_string()), has.amount);
        }
        for index in 0..random.below(4) {
            let memory = 1 + random.below(10);
            let device = Device::new("gpu", &format!("gpu{index}")).memory(memory);
            capacity.insert((device.name.to_string(), "gpu".to_owned()), WHOLE);
            capacity.insert((device.name.to_string(), "gpu_memory".to_owned()), memory);
            inventory = inventory.device(device);
        }
        let book = Book::new(&inventory, rules).unwrap();
        let (used, waiting, running) = (Amounts::new(), HashMap::new(), Vec::new());
        let changes = random.below(4) == 0;
        Self { random, rules, book, now: 0, capacity, used, waiting, running, changes, ended: 0 }
    }

    fn needs(&mut self) -> Needs {
        let mut needs = Needs::new();
        if self.random.below(8) > 0 {
            needs = needs.memory(self.random.below(12));
        }
        if self.random.below(2) > 0 {
            needs = needs.cpu(250 * self.random.below(6));
        }
        let has_devices = self.book.keys().iter().any(|key| &*key.name == "gpu");
        if has_devices && self.random.below(2) > 0 {
            needs = needs.with("gpu", [0, 250, 500, 1000, 2000][self.random.below(5) as usize]);
            needs = needs.with("gpu_memory", self.random.below(6));
        }
        needs
    }

    fn arrive(&mut self) {
        let needs = self.needs();
        let (level, owner) = (self.random.below(4) as u8, ["a", "b", "c"][self.random.below(3) as usize]);
        let ahead = self.waiting.len() as u64;
        if let Ok(id) = self.book.ask(&needs, &Arc::from(owner), level, time(self.now)) {
            self.waiting.insert(id, Asked { needs, arrived: self.now, level, ahead });
        }
    }

    fn start(&mut self) {
        for placement in self.book.start(time(self.now), usize::MAX) {
            let asked = self.waiting.remove(&placement.job).expect("only what waits is started");
            self.check_bound(&asked);
            self.account(&placement, &asked.needs, u64::checked_add);
            self.check_capacity(&placement, &asked.needs);
            let at = self.now + 1 + self.random.below(LONGEST);
            self.running.push(Run { at, placement, needs: asked.needs });
        }
    }

    fn check_bound(&self, asked: &Asked) {
        let urgent = (u64::from(asked.level) + 1) * self.rules.age_step.as_millis() as u64;
        let bound = urgent.max(self.rules.patience.as_millis() as u64) + (asked.ahead + 2) * LONGEST;
        let waited = self.now - asked.arrived;
        assert!(self.changes || waited <= bound, "waited {waited} ms and not {bound}");
    }

    /// The amounts of a piece of work by place, computed from what it asked for and which devices it got.
    fn amounts(placement: &Placement, needs: &Needs) -> Vec<((String, String), u64)> {
        let devices = &placement.devices;
        needs.iter().filter(|(_, amount)| *amount > 0).fold(Vec::new(), |mut all, (name, amount)| {
            if name.starts_with("gpu") {
                assert_eq!(devices.len() as u64, amount_of_devices(needs), "{needs:?} on {devices:?}");
                let each = if name == "gpu" { amount.min(WHOLE) } else { amount };
                all.extend(devices.iter().map(|device| ((device.to_string(), name.to_owned()), each)));
            } else {
                all.push(((String::new(), name.to_owned()), amount));
            }
            all
        })
    }

    fn account(&mut self, placement: &Placement, needs: &Needs, change: fn(u64, u64) -> Option<u64>) {
        for (place, amount) in Self::amounts(placement, needs) {
            let used = self.used.entry(place).or_default();
            *used = change(*used, amount).expect("no more is given back than was taken");
        }
    }

    /// What was just started fits beside everything else that it shares a place with.
    fn check_capacity(&self, placement: &Placement, needs: &Needs) {
        for (place, _) in Self::amounts(placement, needs) {
            let (used, all) = (self.used[&place], self.capacity[&place]);
            assert!(used <= all, "{used} of {all} in {place:?}");
        }
    }

    fn end(&mut self) {
        let next = (0..self.running.len()).min_by_key(|index| self.running[*index].at).unwrap();
        let run = self.running.swap_remove(next);
        self.now = self.now.max(run.at);
        self.account(&run.placement, &run.needs, u64::checked_sub);
        self.book.give_back(&run.placement);
        self.ended += 1;
    }

    fn cancel(&mut self) {
        let ids: Vec<JobId> = self.waiting.keys().copied().min().into_iter().collect();
        for id in ids {
            self.waiting.remove(&id);
            assert!(self.book.leave(id));
        }
    }

    fn change(&mut self) {
        let index = self.random.below(4);
        let name = format!("gpu{index}");
        let lost = match self.random.below(3) {
            0 => {
                let memory = 1 + self.random.below(24);
                self.capacity.insert((String::new(), "memory".to_owned()), memory);
                self.book.set_capacity("memory", memory)
            }
            1 => self.book.retire_device(&name),
            _ => {
                let memory = 1 + self.random.below(10);
                let added = self.book.add_device(&Device::new("gpu", &name).memory(memory));
                if added.is_ok() {
                    self.capacity.insert((name.clone(), "gpu".to_owned()), WHOLE);
                    self.capacity.insert((name, "gpu_memory".to_owned()), memory);
                }
                added
            }
        };
        for (id, _) in lost.unwrap_or_default() {
            self.waiting.remove(&id).expect("only what waits is lost");
        }
    }

    fn run(mut self) {
        let mut arrivals = 4 + self.random.below(12);
        while arrivals > 0 || !self.running.is_empty() {
            let choice = self.random.below(10);
            if arrivals > 0 && (choice < 6 || self.running.is_empty()) {
                arrivals -= 1;
                self.now = self
                    .running
                    .iter()
                    .map(|run| run.at)
                    .min()
                    .unwrap_or(self.now + 5)
                    .min(self.now + choice);
                self.arrive();
            } else if choice == 6 {
                self.cancel();
            } else if choice == 7 && self.changes {
                self.change();
            } else if !self.running.is_empty() {
                self.end();
            }
            self.start();
        }
        assert!(self.waiting.is_empty(), "deadlock: {} wait and nothing runs", self.waiting.len());
        assert!(self.used.values().all(|used| *used == 0) && self.book.running() == 0);
        let (machine, devices) = self.book.resources();
        let all = machine.iter().chain(devices.iter().flat_map(|device| &device.resources));
        assert!(all.into_iter().all(|resource| resource.reserved == 0));
        assert!(self.book.shares().is_empty());
    }
}

fn amount_of_devices(needs: &Needs) -> u64 {
    let shares = needs.iter().find(|(name, _)| *name == "gpu").map_or(0, |(_, amount)| amount);
    (shares / WHOLE).max(1)
}

#[test]
fn reservations_never_exceed_what_is_there_and_everything_ends_in_time() {
    let half = |seeds: std::ops::Range<u64>| {
        for seed in seeds {
            let outcome = std::panic::catch_unwind(|| History::new(seed).run());
            assert!(outcome.is_ok(), "seed {seed}");
        }
    };
    std::thread::scope(|scope| {
        let first = scope.spawn(move || half(0..SEEDS / 2));
        let second = scope.spawn(move || half(SEEDS / 2..SEEDS));
        assert!(first.join().is_ok() && second.join().is_ok());
    });
}
