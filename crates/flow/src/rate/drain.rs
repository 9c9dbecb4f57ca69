//! How fast a backlog shrinks, measured.

use std::time::Duration;

/// Slots of the window. The oldest one leaves as a whole, so the window is up to one slot shorter than it says.
const SLOTS: usize = 12;
/// Sooner than that, a client would only come back to the same queue.
const SHORTEST: Duration = Duration::from_secs(1);
/// Longer than that, client libraries do not wait at all.
const LONGEST: Duration = Duration::from_secs(120);

/// Completions per second of busy time, over a sliding window.
///
/// Time without backlog says nothing about the rate at which a backlog would shrink: a service that did its only
/// request of the hour in one second drains one per second, not one per hour. So the owner says when there is nothing
/// to do, and that time does not count. Every time is given since a moment that the owner chose.
#[derive(Clone, Debug)]
pub struct DrainRate {
    slot_width: Duration,
    slots: [Slot; SLOTS],
    /// Number of the slot that is being filled, counted from the start of time.
    current: u128,
    /// Up to when busy time has been counted.
    counted: Duration,
    /// The last rate that was known, for when the window has emptied.
    last_known: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    completions: u64,
    busy: Duration,
}

impl DrainRate {
    /// A measurement over the last `window`, which begins at `now` with nothing known.
    pub fn new(window: Duration, now: Duration) -> Self {
        let slot_width = (window / SLOTS as u32).max(Duration::from_nanos(1));
        let current = now.as_nanos() / slot_width.as_nanos();
        Self { slot_width, slots: [Slot::default(); SLOTS], current, counted: now, last_known: None }
    }

    /// Notes that `completions` left since the last call, and that there was work all that time.
    pub fn record(&mut self, completions: u64, now: Duration) {
        let busy = now.saturating_sub(self.counted);
        self.idle(now);
        let slot = &mut self.slots[place(self.current)];
        slot.completions = slot.completions.saturating_add(completions);
        slot.busy = slot.busy.saturating_add(busy);
    }

    /// Notes that there was nothing to do since the last call.
    pub fn idle(&mut self, now: Duration) {
        self.slide(now);
        self.counted = self.counted.max(now);
    }

    /// Completions per second of busy time in the window, or the last that were known; `None` before the first.
    pub fn per_second(&mut self, now: Duration) -> Option<f64> {
        self.slide(now);
        self.measure()
    }

    /// How long a backlog will need to leave, in whole seconds from 1 to 120.
    pub fn retry_after(&mut self, backlog: u64, now: Duration) -> Duration {
        let seconds = self.per_second(now).map_or(0.0, |rate| (backlog as f64 / rate).ceil());
        Duration::from_secs_f64(seconds.min(LONGEST.as_secs_f64())).max(SHORTEST)
    }

    /// Moves the window so that it ends at `now`.
    fn slide(&mut self, now: Duration) {
        let newest = (now.as_nanos() / self.slot_width.as_nanos()).max(self.current);
        if newest > self.current {
            self.last_known = self.measure();
        }
        for fresh in self.current + 1..=newest.min(self.current + SLOTS as u128) {
            self.slots[place(fresh)] = Slot::default();
        }
        self.current = newest;
    }

    fn measure(&self) -> Option<f64> {
        let completions: u64 = self.slots.iter().map(|slot| slot.completions).sum();
        let busy: Duration = self.slots.iter().map(|slot| slot.busy).sum();
        if completions > 0 && !busy.is_zero() {
            Some(completions as f64 / busy.as_secs_f64())
        } else {
            self.last_known
        }
    }
}

/// Where in the ring a slot stands.
fn place(slot: u128) -> usize {
    (slot % SLOTS as u128) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(12);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_backlog_is_divided_by_the_rate_of_busy_time() {
        let mut rate = DrainRate::new(WINDOW, at(100));
        assert_eq!(rate.per_second(at(100)), None);
        assert_eq!(rate.retry_after(1_000_000, at(100)), SHORTEST);
        for second in 101..=110 {
            rate.record(2, at(second));
        }
        assert_eq!(rate.per_second(at(110)), Some(2.0));
        assert_eq!(rate.retry_after(7, at(110)), at(4));
        assert_eq!(rate.retry_after(1, at(110)), SHORTEST);
        assert_eq!(rate.retry_after(1000, at(110)), LONGEST);
        rate.idle(at(115));
        assert_eq!(rate.per_second(at(115)), Some(2.0), "rest is not slowness");
        rate.record(1, at(119));
        assert_eq!(rate.per_second(at(119)), Some(1.0), "7 in the 7 busy seconds of the last 12");
    }

    #[test]
    fn what_was_known_outlives_the_window() {
        let mut rate = DrainRate::new(WINDOW, Duration::ZERO);
        rate.record(6, at(2));
        rate.idle(at(1_000_000));
        assert_eq!(rate.per_second(at(1_000_000)), Some(3.0));
        rate.record(1, at(1_000_001));
        assert_eq!(rate.per_second(at(1_000_001)), Some(1.0));
    }

    #[test]
    fn time_that_goes_back_or_ends_breaks_nothing() {
        let mut rate = DrainRate::new(Duration::ZERO, at(10));
        rate.record(1, at(5));
        rate.record(1, at(11));
        rate.record(u64::MAX / 2, Duration::MAX);
        assert!(rate.retry_after(u64::MAX, Duration::MAX) <= LONGEST);
    }
}
