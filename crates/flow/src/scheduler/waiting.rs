//! Who waits, and who is considered first.
//!
//! The more urgent level goes first; within a level the owner who has the least, by the largest of its shares of any
//! resource (dominant resource fairness: Ghodsi and others, NSDI 2011); within an owner the first come. Waiting raises
//! urgency by a level every `age_step`, until after `(level + 1) × age_step` only arrival counts: fairness between
//! owners, too, may not make anyone wait for ever.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::time::Duration;

use super::ledger::Demand;

/// Names a piece of work that waits or runs. Later ones have larger names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct JobId(pub(super) u64);

/// A piece of work that waits.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) demand: Demand,
    pub(super) owner: Arc<str>,
    pub(super) level: u8,
    pub(super) arrived: Duration,
}

/// Jobs of one owner and one level wait in one line.
type Line = (u8, Arc<str>);

#[derive(Debug, Default)]
pub(super) struct Waiting {
    jobs: BTreeMap<JobId, Job>,
    lines: BTreeMap<Line, BTreeSet<JobId>>,
}

impl Waiting {
    pub(super) fn insert(&mut self, id: JobId, job: Job) {
        self.lines.entry((job.level, Arc::clone(&job.owner))).or_default().insert(id);
        self.jobs.insert(id, job);
    }

    pub(super) fn remove(&mut self, id: JobId) -> Option<Job> {
        let job = self.jobs.remove(&id)?;
        let line = (job.level, Arc::clone(&job.owner));
        if let Some(ids) = self.lines.get_mut(&line) {
            ids.remove(&id);
            if ids.is_empty() {
                self.lines.remove(&line);
            }
        }
        Some(job)
    }

    pub(super) fn get(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (JobId, &Job)> {
        self.jobs.iter().map(|(id, job)| (*id, job))
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(super) fn owners(&self) -> impl Iterator<Item = &Arc<str>> {
        self.lines.keys().map(|(_, owner)| owner)
    }

    /// When the one that waits longest arrived.
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.jobs.first_key_value().map(|(_, job)| job.arrived)
    }
}

/// Smaller goes first. Shares are compared by their bits, which for numbers from zero on is their order.
type Rank = (u64, u64, JobId);

/// Walks those who wait in the order in which they are considered. Only as much is sorted as is walked.
pub(super) struct Order {
    now: Duration,
    age_step: Duration,
    heads: BinaryHeap<Reverse<(Rank, Line)>>,
    /// The one that was answered last; its line goes on behind it.
    last: Option<(Line, JobId)>,
}

impl Order {
    pub(super) fn of(
        waiting: &Waiting,
        now: Duration,
        age_step: Duration,
        share: impl Fn(&str) -> f64,
    ) -> Self {
        let mut order =
            Self { now, age_step, heads: BinaryHeap::with_capacity(waiting.lines.len()), last: None };
        for (line, ids) in &waiting.lines {
            if let Some(first) = ids.first() {
                order.push(waiting, line, *first, &share);
            }
        }
        order
    }

    /// The next one; what was taken out of `waiting` meanwhile does not matter.
    pub(super) fn next(&mut self, waiting: &Waiting, share: impl Fn(&str) -> f64) -> Option<JobId> {
        // Only now, because what became of the last one decides how large the share of its owner is.
        if let Some((line, last)) = self.last.take()
            && let Some(later) =
                waiting.lines.get(&line).and_then(|ids| ids.range((Excluded(last), Unbounded)).next())
        {
            self.push(waiting, &line, *later, share);
        }
        let Reverse(((_, _, id), line)) = self.heads.pop()?;
        self.last = Some((line, id));
        Some(id)
    }

    fn push(&mut self, waiting: &Waiting, line: &Line, id: JobId, share: impl Fn(&str) -> f64) {
        let Some(job) = waiting.get(id) else { return };
        let steps = self.now.saturating_sub(job.arrived).as_nanos() / self.age_step.as_nanos().max(1);
        let level = (u64::from(job.level) + 1).saturating_sub(u64::try_from(steps).unwrap_or(u64::MAX));
        let share = if level == 0 { 0 } else { share(&job.owner).to_bits() };
        self.heads.push(Reverse(((level, share, id), line.clone())));
    }
}
