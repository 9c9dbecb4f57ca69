//! Random programs on a disk that loses power, breaks and fills up.
//!
//! The check is exact: what a store says when it is opened is what was settled, plus the first so many of the events
//! after that. So nothing settled is lost, nothing corrupt is delivered, and nothing done comes back.

use std::io;
use std::thread;

use super::model::{Event, Expected, encoded};
use super::{Log, OPTIONS};
use crate::queue::store::disk::{Disk, Fault, SimulatedDisk};
use crate::queue::store::log::{Upkeep, mutant};
use crate::queue::store::{Recovered, StoreError};
use crate::random::Random;

/// How many programs run in every test run.
const SEEDS: u64 = 100_000;

/// How many are enough to find a mistake.
const MUTANT_SEEDS: u64 = 2000;

/// A mistake that a log could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    AcknowledgesBeforeSync,
    NeverSyncsTheFolder,
    TrustsEverySum,
}

/// A disk that makes a mistake in place of the log.
#[derive(Debug)]
struct Mistaken(SimulatedDisk, Mistake);

#[rustfmt::skip]
impl Disk for Mistaken {
    fn sync(&mut self, name: &str) -> io::Result<()> {
        if self.1 == Mistake::AcknowledgesBeforeSync { Ok(()) } else { self.0.sync(name) }
    }
    fn sync_dir(&mut self) -> io::Result<()> {
        if self.1 == Mistake::NeverSyncsTheFolder { Ok(()) } else { self.0.sync_dir() }
    }
    fn place(&self) -> String { self.0.place() }
    fn lock(&mut self) -> io::Result<()> { self.0.lock() }
    fn list(&self) -> io::Result<Vec<(String, u64)>> { self.0.list() }
    fn create(&mut self, name: &str) -> io::Result<()> { self.0.create(name) }
    fn write(&mut self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> { self.0.write(name, at, bytes) }
    fn read(&mut self, name: &str, at: u64, length: usize) -> io::Result<Vec<u8>> { self.0.read(name, at, length) }
    fn cut(&mut self, name: &str, length: u64) -> io::Result<()> { self.0.cut(name, length) }
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> { self.0.rename(from, to) }
    fn remove(&mut self, name: &str) -> io::Result<()> { self.0.remove(name) }
}

/// A program that uses a store, dies and is started again.
struct Program {
    random: Random,
    disk: SimulatedDisk,
    mistake: Mistake,
    /// Whether the disk has lost something by breaking, and not by a power loss.
    broke: bool,
    expected: Expected,
    ids: u64,
}

impl Program {
    fn new(seed: u64, mistake: Mistake) -> Self {
        let mut random = Random::seeded(seed);
        let disk = SimulatedDisk::new(random.bits());
        Self { random, disk, mistake, broke: false, expected: Expected::default(), ids: 0 }
    }

    fn run(mut self) -> Result<(), String> {
        for _ in 0..=self.random.below(3) {
            self.plan_misfortune();
            self.live()?;
            self.die();
        }
        self.disk.restore_power();
        self.disk.limit(u64::MAX);
        let (_, recovered) = self.open().map_err(|error| format!("a whole disk is refused: {error}"))?;
        self.look_at(&recovered)
    }

    fn open(&self) -> Result<(Log<Mistaken>, Recovered), StoreError> {
        Log::open(Mistaken(self.disk.clone(), self.mistake), OPTIONS)
    }

    fn plan_misfortune(&mut self) {
        let call = self.disk.calls() + self.random.below(80);
        match self.random.below(8) {
            0..=4 => self.disk.fail_at(call, Fault::PowerLoss),
            fault @ 5..=6 => {
                self.broke = true;
                self.disk.fail_at(call, if fault == 5 { Fault::Broken } else { Fault::Full });
            }
            _ => self.disk.limit(self.random.below(20_000)),
        }
    }

    fn live(&mut self) -> Result<(), String> {
        let Ok((mut log, recovered)) = self.open() else { return Ok(()) };
        self.look_at(&recovered)?;
        for _ in 0..self.random.below(16) {
            let mut after = self.expected.settled.clone();
            let size = 1 + self.random.below(4);
            let group: Vec<_> =
                (0..size).map(|_| after.next_event(&mut self.random, &mut self.ids)).collect();
            match log.commit(&mut encoded(&group)) {
                Ok(kept) => self.expected.settled.apply_kept(&group, kept),
                Err(error) => {
                    self.expected.unsettled = group;
                    return self.stays_failed(&mut log, &error);
                }
            }
            for _ in 0..self.random.below(4) {
                match log.tidy() {
                    Ok(Upkeep::Due) => {}
                    Ok(Upkeep::Done) => break,
                    Err(error) => return self.stays_failed(&mut log, &error),
                }
            }
            if self.random.below(16) == 0 {
                self.disk.limit(u64::MAX);
            }
        }
        if self.random.below(3) == 0 {
            let _it_may_fail = log.close();
        }
        Ok(())
    }

    fn stays_failed(&mut self, log: &mut Log<Mistaken>, error: &StoreError) -> Result<(), String> {
        let again = log.commit(&mut encoded(&[Event::accepted(1 << 40, 1)]));
        if again.as_ref() == Err(error) { Ok(()) } else { Err(format!("after {error}: {again:?}")) }
    }

    /// The process ends; in half of the cases the power goes as well, if it has not gone already.
    fn die(&mut self) {
        let is_off = self.disk.list().is_err();
        if is_off || self.random.below(2) == 0 {
            self.disk.restore_power();
        }
        self.disk.limit(u64::MAX);
    }

    fn look_at(&mut self, recovered: &Recovered) -> Result<(), String> {
        if !self.broke && !recovered.damage.is_empty() {
            return Err(format!("a power loss is taken for damage: {:?}", recovered.damage));
        }
        self.expected.check(recovered)
    }
}

/// Runs the programs of all seeds; answers how many went wrong, and how the first did.
fn check(seeds: u64, mistake: Mistake) -> (u64, Option<String>) {
    let threads = thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let run = |first: u64| {
        mutant::TRUSTS_EVERY_SUM.set(mistake == Mistake::TrustsEverySum);
        let wrong = (first..seeds).step_by(threads as usize).filter_map(|seed| {
            let outcome = Program::new(seed, mistake).run();
            outcome.err().map(|error| format!("seed {seed}: {error}"))
        });
        wrong.fold((0, None), |(count, kept), error| (count + 1, kept.or(Some(error))))
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|first| scope.spawn(move || run(first))).collect();
        let outcomes = running.into_iter().map(|thread| thread.join().unwrap());
        outcomes.fold((0, None), |(sum, kept), (count, error)| (sum + count, kept.or(error)))
    })
}

#[test]
fn nothing_settled_is_lost_nothing_corrupt_is_delivered_and_nothing_done_comes_back() {
    let (wrong, first) = check(SEEDS, Mistake::None);
    assert_eq!(wrong, 0, "of {SEEDS} programs; {}", first.unwrap_or_default());
}

#[test]
fn the_same_check_finds_the_mistakes_that_a_log_could_make() {
    let mistakes = [Mistake::AcknowledgesBeforeSync, Mistake::NeverSyncsTheFolder, Mistake::TrustsEverySum];
    for mistake in mistakes {
        let (wrong, _) = check(MUTANT_SEEDS, mistake);
        println!("{mistake:?}: found by {wrong} of {MUTANT_SEEDS} programs");
        assert!(wrong > 0, "{mistake:?} was not found");
    }
}
