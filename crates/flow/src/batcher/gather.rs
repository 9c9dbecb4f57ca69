//! Which items leave together, and when. Told the time; knows neither tasks nor what an item is.

use std::collections::btree_map::Entry as BTreeEntry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem::take;
use std::time::Duration;

use tokio::time::Instant;

use super::rules::{Batch, WhenIdle};

/// Timers are that coarse.
const TICK: Duration = Duration::from_millis(1);

/// Items of one lane go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lane {
    pub(super) key: u64,
    pub(super) bucket: usize,
}

/// An item that waits.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) item: T,
    pub(super) cost: u64,
    pub(super) arrived: Instant,
    pub(super) deadline: Option<Instant>,
}

/// Whether anybody has nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Executors {
    Idle,
    Busy,
}

#[derive(Debug)]
struct Line<T> {
    /// By id, which grows with arrival.
    entries: VecDeque<(u64, Entry<T>)>,
    cost: u64,
    deadlines: BTreeSet<(Instant, u64)>,
}

/// Items that wait to leave in batches.
#[derive(Debug)]
pub(super) struct Gather<T> {
    size: usize,
    within: Duration,
    most_cost: u64,
    when_idle: WhenIdle,
    lines: BTreeMap<Lane, Line<T>>,
    /// The memory of a line that became empty, for the next one.
    spare: VecDeque<(u64, Entry<T>)>,
    waiting: usize,
    next_id: u64,
    last_arrival: Option<Instant>,
    /// The time between two arrivals, smoothed over the last ones.
    gap: Option<Duration>,
    /// How long a batch takes, smoothed over the last ones.
    run: Duration,
}

impl<T> Gather<T> {
    pub(super) fn new<I>(rules: &Batch<I>) -> Self {
        Self {
            size: rules.size,
            within: rules.within,
            most_cost: rules.most_cost,
            when_idle: rules.when_idle,
            lines: BTreeMap::new(),
            spare: VecDeque::new(),
            waiting: 0,
            next_id: 0,
            last_arrival: None,
            gap: None,
            run: Duration::ZERO,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    /// Adds an item, and gives its name.
    pub(super) fn push(&mut self, lane: Lane, entry: Entry<T>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.waiting += 1;
        if let Some(last) = self.last_arrival.replace(entry.arrived) {
            self.gap = Some(smoothed(self.gap, entry.arrived.saturating_duration_since(last)));
        }
        let spare = &mut self.spare;
        let empty = || Line { entries: take(spare), cost: 0, deadlines: BTreeSet::new() };
        let line = self.lines.entry(lane).or_insert_with(empty);
        line.cost = line.cost.saturating_add(entry.cost);
        line.deadlines.extend(entry.deadline.map(|deadline| (deadline, id)));
        line.entries.push_back((id, entry));
        id
    }

    /// Takes one item out, if it still waits.
    pub(super) fn remove(&mut self, lane: Lane, id: u64) -> Option<Entry<T>> {
        let line = self.lines.get_mut(&lane)?;
        let place = line.entries.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        let (_, entry) = line.entries.remove(place)?;
        line.forget(id, &entry);
        self.waiting -= 1;
        self.drop_empty(lane);
        Some(entry)
    }

    /// Forgets a line in which nothing waits.
    fn drop_empty(&mut self, lane: Lane) {
        if let BTreeEntry::Occupied(line) = self.lines.entry(lane)
            && line.get().entries.is_empty()
        {
            self.spare = line.remove().entries;
        }
    }

    /// Nobody comes any more, so an idle executor has nothing to wait for.
    pub(super) fn hurry(&mut self) {
        self.when_idle = WhenIdle::Leave;
    }

    /// Takes out everything.
    pub(super) fn clear(&mut self) -> Vec<Entry<T>> {
        self.waiting = 0;
        let lines = take(&mut self.lines).into_values();
        lines.flat_map(|line| line.entries).map(|(_, entry)| entry).collect()
    }

    /// Notes how long a batch took.
    pub(super) fn ran(&mut self, took: Duration) {
        self.run = smoothed((!self.run.is_zero()).then_some(self.run), took);
    }

    /// The next batch that leaves now, if one does: one that is full or due, or, with an idle executor, the one whose
    /// oldest item waits longest.
    pub(super) fn leave(&mut self, now: Instant, executors: Executors) -> Option<Vec<Entry<T>>> {
        let leaves = |line: &Line<T>| self.leaves_at(line, executors).is_some_and(|at| at <= now);
        let ready = self.lines.iter().filter(|(_, line)| leaves(line));
        let (lane, _) = ready.min_by_key(|(_, line)| line.oldest())?;
        let lane = *lane;
        Some(self.cut_off(lane))
    }

    /// When the next batch leaves if nothing else happens.
    pub(super) fn next_leave(&self, executors: Executors) -> Option<Instant> {
        self.lines.values().filter_map(|line| self.leaves_at(line, executors)).min()
    }

    fn leaves_at(&self, line: &Line<T>, executors: Executors) -> Option<Instant> {
        let arrived = line.oldest()?;
        if line.entries.len() >= self.size || line.cost >= self.most_cost {
            return Some(arrived);
        }
        let due = arrived + self.within;
        // The earliest deadline needs the time that a batch takes, and somewhat more than the last ones took.
        let needed = self.run + self.run / 8 + TICK;
        let first = line.deadlines.first();
        let urgent = first.map(|(deadline, _)| deadline.checked_sub(needed).unwrap_or(arrived));
        let due = urgent.map_or(due, |urgent| due.min(urgent));
        match (executors, self.when_idle) {
            (Executors::Busy, _) | (Executors::Idle, WhenIdle::Wait) => Some(due),
            (Executors::Idle, WhenIdle::Leave) => Some(arrived),
            (Executors::Idle, WhenIdle::Adapt) => Some(self.full_at(arrived).min(due)),
        }
    }

    /// When a batch should be full that began at `arrived`; at once if that would take longer than it may wait.
    fn full_at(&self, arrived: Instant) -> Instant {
        let fill = self.gap.and_then(|gap| gap.checked_mul(self.size as u32 - 1));
        arrived + fill.filter(|fill| *fill <= self.within).unwrap_or_default()
    }

    /// The longest start of a line that is a batch.
    fn cut_off(&mut self, lane: Lane) -> Vec<Entry<T>> {
        let Some(line) = self.lines.get_mut(&lane) else { return Vec::new() };
        let (mut batch, mut cost) = (Vec::with_capacity(self.size.min(line.entries.len())), 0u64);
        while let Some((id, first)) = line.entries.front()
            && batch.len() < self.size
            && (batch.is_empty() || cost.saturating_add(first.cost) <= self.most_cost)
        {
            let id = *id;
            cost = cost.saturating_add(first.cost);
            if let Some((_, entry)) = line.entries.pop_front() {
                line.forget(id, &entry);
                batch.push(entry);
            }
        }
        self.waiting -= batch.len();
        self.drop_empty(lane);
        batch
    }
}

impl<T> Line<T> {
    fn oldest(&self) -> Option<Instant> {
        self.entries.front().map(|(_, entry)| entry.arrived)
    }

    /// Takes from the sums what an entry that has left added to them.
    fn forget(&mut self, id: u64, entry: &Entry<T>) {
        self.cost = self.cost.saturating_sub(entry.cost);
        if let Some(deadline) = entry.deadline {
            self.deadlines.remove(&(deadline, id));
        }
    }
}

/// An eighth of the way from what was known to what is new. In nanoseconds, where that is a shift.
fn smoothed(known: Option<Duration>, new: Duration) -> Duration {
    known.map_or(new, |known| Duration::from_nanos(((known.as_nanos() * 7 + new.as_nanos()) / 8) as u64))
}
