//! How often a queue reads the clock: for every act, until reading it would cost more than it tells.
//!
//! While acts follow each other so fast that [`LAP`] of them fit into [`QUICK`], they share one reading, so what they
//! note is at most that many acts old. Whoever keeps the time of the queue comes by every [`TICK`] meanwhile, so that a
//! reading is not old either when the acts stop: the next one reads the clock itself.

use std::time::Duration;

use super::moment::Moment;

/// So many acts share a reading.
const LAP: u32 = 16;
/// A lap that takes longer is slow enough for the clock to be read every time.
const QUICK: Duration = Duration::from_micros(64);
/// How old a reading gets.
const TICK: Duration = Duration::from_millis(1);

/// The last reading, and whether it will do.
pub(super) struct Pace {
    last: Moment,
    /// So many acts may still share it.
    credit: u32,
    /// How far this lap is, and when it began, while every act reads the clock.
    run: u32,
    began: Moment,
    /// When the reading has to go, while acts share it.
    tick: Option<Moment>,
    is_used: bool,
}

impl Pace {
    pub(super) fn new() -> Self {
        let (last, began) = (Moment::START, Moment::START);
        Self { last, credit: 0, run: 0, began, tick: None, is_used: false }
    }

    /// The time of an act to which a little more or less makes no difference.
    #[inline]
    pub(super) fn read(&mut self, clock: impl Fn() -> Moment, keeper: Keeper) -> Moment {
        if self.credit > 0 {
            self.credit -= 1;
            return self.last;
        }
        self.look(clock(), keeper)
    }

    fn look(&mut self, now: Moment, keeper: Keeper) -> Moment {
        let lap = now.since(self.last);
        self.set(now);
        self.is_used = true;
        if self.tick.is_some() {
            if lap <= QUICK {
                self.credit = LAP - 1;
            } else {
                (self.tick, self.run) = (None, 0);
            }
            return self.last;
        }
        if self.run == 0 {
            self.began = self.last;
        }
        self.run = (self.run + 1) % LAP;
        if self.run == 0 && keeper == Keeper::Listens && self.last.since(self.began) <= QUICK {
            (self.credit, self.tick) = (LAP - 1, Some(self.last.after(TICK)));
        }
        self.last
    }

    /// It is exactly that time.
    #[inline]
    pub(super) fn set(&mut self, now: Moment) {
        self.last = self.last.max(now);
        self.credit = 0;
    }

    /// When whoever keeps the time is to come by.
    #[inline]
    pub(super) fn tick(&self) -> Moment {
        self.tick.unwrap_or(Moment::NEVER)
    }

    /// Whoever keeps the time comes by.
    pub(super) fn come_by(&mut self, now: Moment) {
        self.set(now);
        if self.tick.is_some_and(|tick| tick <= now) {
            self.tick = self.is_used.then(|| now.after(TICK));
            self.is_used = false;
        }
    }
}

/// Whether someone keeps the time, and will come by when asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeper {
    Listens,
    Away,
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Acts that follow each other after `gap`; how often they read the clock, and how old a reading became.
    fn readings(gap: Duration, keeper: Keeper) -> (u32, Duration) {
        let (mut pace, reads, mut oldest) = (Pace::new(), Cell::new(0), Duration::ZERO);
        for act in 1..=10_000 {
            let now = Moment::of(gap * act);
            if pace.tick() <= now {
                pace.come_by(now);
            }
            let told = pace.read(
                || {
                    reads.set(reads.get() + 1);
                    now
                },
                keeper,
            );
            oldest = oldest.max(now.since(told));
        }
        (reads.get(), oldest)
    }

    #[test]
    fn only_a_rush_shares_readings() {
        let micros = Duration::from_micros;
        assert_eq!(readings(micros(10), Keeper::Listens), (10_000, Duration::ZERO));
        assert_eq!(readings(micros(1), Keeper::Away), (10_000, Duration::ZERO));
        let (reads, oldest) = readings(micros(1), Keeper::Listens);
        assert!(reads < 10_000 / 15 + 50 && oldest == micros(15), "{reads} readings, {oldest:?} old");
    }

    #[test]
    fn when_a_rush_stops_the_next_act_reads_the_clock() {
        let (mut pace, start) = (Pace::new(), Moment::of(Duration::from_secs(1)));
        (0..100).for_each(|_| assert_eq!(pace.read(|| start, Keeper::Listens), start));
        assert_eq!(pace.read(|| start.after(TICK / 2), Keeper::Listens), start, "within a lap");
        pace.come_by(pace.tick());
        let later = start.after(Duration::from_secs(9));
        assert_eq!(pace.read(|| later, Keeper::Listens), later);
        assert_eq!(pace.tick(), Moment::NEVER, "the rush is over");
        pace.set(later.after(TICK));
        assert_eq!(pace.read(|| later, Keeper::Away), later.after(TICK), "time does not go back");
    }
}
