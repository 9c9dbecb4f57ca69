//! What waits for a thread: bounded in items and bytes, ordered by urgency, and nobody starves.

use std::collections::BTreeMap;
use std::fmt;

use super::Outcome;
use crate::header::Limits;

/// How urgent a picture is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Urgency {
    /// Before the others.
    High,
    /// Someone waits.
    #[default]
    Normal,
    /// Nobody waits.
    Low,
}

impl Urgency {
    /// How many later arrivals of the greatest urgency go first: counted in items, so that no clock is needed and
    /// everyone's turn comes.
    fn allowance(self) -> u64 {
        match self {
            Self::High => 0,
            Self::Normal => 64,
            Self::Low => 512,
        }
    }
}

/// Work for a thread.
pub(super) struct Job {
    pub(super) bytes: usize,
    pub(super) run: Box<dyn FnOnce(&Limits) -> Outcome + Send>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// The place of a job: when its turn comes, and which arrival it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket {
    turn: u64,
    arrival: u64,
}

/// Jobs by the order of their turns.
#[derive(Debug)]
pub(super) struct Queue {
    jobs: BTreeMap<Ticket, Job>,
    bytes: usize,
    arrivals: u64,
    max_jobs: usize,
    max_bytes: usize,
}

impl Queue {
    pub(super) fn new(max_jobs: usize, max_bytes: usize) -> Self {
        Self { jobs: BTreeMap::new(), bytes: 0, arrivals: 0, max_jobs, max_bytes }
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// `None` if there is no room. Something larger than all room is let into an empty queue: its own limits bound it.
    pub(super) fn push(&mut self, job: Job, urgency: Urgency) -> Option<Ticket> {
        let room = self.jobs.len() < self.max_jobs && self.bytes.saturating_add(job.bytes) <= self.max_bytes;
        if !room && !self.jobs.is_empty() {
            return None;
        }
        let ticket = Ticket { turn: self.arrivals + urgency.allowance(), arrival: self.arrivals };
        self.arrivals += 1;
        self.bytes += job.bytes;
        self.jobs.insert(ticket, job);
        Some(ticket)
    }

    pub(super) fn pop(&mut self) -> Option<Job> {
        let (_, job) = self.jobs.pop_first()?;
        self.bytes -= job.bytes;
        Some(job)
    }

    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Job> {
        let job = self.jobs.remove(&ticket)?;
        self.bytes -= job.bytes;
        Some(job)
    }

    pub(super) fn clear(&mut self) -> BTreeMap<Ticket, Job> {
        self.bytes = 0;
        std::mem::take(&mut self.jobs)
    }
}
