//! How many workers a queue needs, judged by how long its items wait.

use std::ops::RangeInclusive;
use std::time::Duration;

/// When workers are added and dismissed.
///
/// Items that wait longer than `target` bring more workers, at most twice as many at once. Fewer are kept once items
/// have waited less than half of it for a whole `calm`, and then as many as were busy on average, with a quarter more
/// in reserve: by Little's law that is what the load needs, so nobody has to be taken on again at once. Items that wait
/// although workers are idle do not wait for workers (they were put off, or are held back by a rate), and count as not
/// waiting. After each change the next one waits for `cooldown`, until what it brought can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scaling {
    /// So long items may wait.
    pub target: Duration,
    /// Time between two looks.
    pub every: Duration,
    /// Time after a change in which there is no other.
    pub cooldown: Duration,
    /// So long it must be calm before workers are dismissed.
    pub calm: Duration,
}

impl Scaling {
    /// Workers are added if items wait for longer than `target`. A look every half target, a cooldown of four, a calm
    /// of forty.
    pub fn to_keep_below(target: Duration) -> Self {
        Self { target, every: target / 2, cooldown: target * 4, calm: target * 40 }
    }
}

/// What there is to see at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    /// How long the item that waits longest has waited.
    pub(super) delay: Duration,
    /// Workers that work on an item.
    pub(super) busy: usize,
    /// Workers that there should be.
    pub(super) workers: usize,
}

/// Looks at a pool again and again, and says how many workers there should be.
#[derive(Debug)]
pub(super) struct Autoscaler {
    scaling: Scaling,
    range: RangeInclusive<usize>,
    changed: Option<Duration>,
    calm: Option<Calm>,
}

/// A time in which items have hardly waited.
#[derive(Clone, Copy, Debug)]
struct Calm {
    since: Duration,
    busy: usize,
    looks: usize,
}

impl Autoscaler {
    pub(super) fn new(scaling: Scaling, range: RangeInclusive<usize>) -> Self {
        Self { scaling, range, changed: None, calm: None }
    }

    /// How many workers there should be from now on, if that is another number than before.
    pub(super) fn look(&mut self, now: Duration, sight: Sight) -> Option<usize> {
        let Scaling { target, cooldown, calm: long_enough, .. } = self.scaling;
        let all_are_busy = sight.busy + sight.workers / 10 >= sight.workers;
        let delay = if all_are_busy { sight.delay } else { Duration::ZERO };
        if delay * 2 < target {
            let calm = self.calm.get_or_insert(Calm { since: now, busy: 0, looks: 0 });
            calm.busy += sight.busy;
            calm.looks += 1;
        } else {
            self.calm = None;
        }
        if self.changed.is_some_and(|changed| now.saturating_sub(changed) < cooldown) {
            return None;
        }
        let wanted = if delay > target {
            let ratio = delay.as_secs_f64() / target.as_secs_f64().max(1e-9);
            (sight.workers as f64 * ratio.min(2.0)).ceil() as usize
        } else {
            let calm = self.calm.filter(|calm| now.saturating_sub(calm.since) >= long_enough)?;
            let mean = calm.busy as f64 / calm.looks.max(1) as f64;
            sight.workers.min((mean * 1.25).ceil() as usize)
        };
        let wanted = wanted.clamp(*self.range.start(), *self.range.end());
        if wanted < sight.workers || delay > target {
            self.calm = None;
        }
        (wanted != sight.workers).then(|| {
            self.changed = Some(now);
            wanted
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Looks every 50 ms at what `sight` makes of the time and the number of workers; the changes with their times.
    fn changes(
        range: RangeInclusive<usize>,
        sight: impl Fn(u32, usize) -> (u32, usize),
    ) -> Vec<(u32, usize)> {
        let mut scaler = Autoscaler::new(Scaling::to_keep_below(100 * MS), range);
        let mut workers = 4;
        let mut changes = Vec::new();
        for at in (0..20_000).step_by(50) {
            let (delay, busy) = sight(at, workers);
            if let Some(wanted) = scaler.look(at * MS, Sight { delay: delay * MS, busy, workers }) {
                workers = wanted;
                changes.push((at, workers));
            }
        }
        changes
    }

    #[test]
    fn long_waits_bring_workers_and_calm_dismisses_them() {
        assert_eq!(changes(1..=16, |_, workers| (100, workers)), []);
        assert_eq!(changes(1..=16, |_, workers| (1000, workers)), [(0, 8), (400, 16)]);
        assert_eq!(changes(1..=16, |at, workers| (if at == 0 { 120 } else { 80 }, workers)), [(0, 5)]);
        assert_eq!(changes(1..=16, |_, _| (0, 0)), [(4000, 1)]);
        assert_eq!(changes(1..=16, |_, _| (0, 2)), [(4000, 3)]);
        assert_eq!(changes(2..=16, |_, _| (0, 0)), [(4000, 2)]);
    }

    #[test]
    fn between_half_the_target_and_the_target_nothing_changes() {
        assert_eq!(changes(1..=16, |at, workers| (50 + at % 51, workers)), []);
        // One longer wait in a calm begins the calm anew.
        let one_wait = |at: u32, workers: usize| if at == 3000 { (60, workers) } else { (0, 0) };
        assert_eq!(changes(1..=16, one_wait), [(7050, 1)]);
    }

    #[test]
    fn items_that_do_not_wait_for_workers_bring_none() {
        assert_eq!(changes(1..=16, |_, workers| (60_000, workers - 1)), [(4000, 4)][1..]);
        assert_eq!(changes(1..=16, |_, _| (60_000, 0)), [(4000, 1)]);
    }

    #[test]
    fn a_load_of_a_steady_size_is_met_once_and_for_all() {
        for load in 1..=14_usize {
            let needs = |at: u32, workers: usize| {
                // Too few workers let the queue grow; enough of them keep it short, with some noise.
                if workers <= load { (500, workers) } else { (at % 40, load) }
            };
            let changes = changes(1..=16, needs);
            let last = changes.last().map_or(4, |(_, workers)| *workers);
            assert!((load + 1..=load + load / 4 + 2).contains(&last), "{load}: {changes:?}");
            assert!(changes.len() <= 4 && changes.iter().all(|(at, _)| *at < 10_000), "{load}: {changes:?}");
        }
    }
}
