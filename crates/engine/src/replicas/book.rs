//! Who has how much to do, and who shall take over what: decisions, without waiting for anything.

use std::collections::BTreeMap;
use std::task::Waker;

use super::beginnings::Beginnings;

/// A prompt's beginning is worth so many continuations more than another replica has to do.
const SLACK: u64 = 4;

/// The requests of all replicas.
pub(super) struct Book {
    loads: Vec<Load>,
    /// By ticket, so in the order in which they came.
    requests: BTreeMap<u64, Entry>,
    newest: u64,
    beginnings: Beginnings,
}

/// What one replica has to do, in continuations. What is on its way to it counts already.
#[derive(Clone, Copy, Default)]
struct Load {
    now: u64,
    /// All that it ever took.
    taken: u64,
}

struct Entry {
    at: usize,
    weight: u64,
    stage: Stage,
}

enum Stage {
    /// It has been started, or cannot be asked of another.
    Settled,
    /// Nothing has been computed for it; whoever reads it can be woken.
    Waiting(Option<Waker>),
    /// It shall be asked of another.
    Moving { to: usize },
}

impl Book {
    pub(super) fn new(replicas: usize) -> Self {
        Self {
            loads: vec![Load::default(); replicas],
            requests: BTreeMap::new(),
            newest: 0,
            beginnings: Beginnings::default(),
        }
    }

    /// Who shall take a request, of those that have not been tried: whoever has read its beginning, or has least to do, or
    /// had least to do so far.
    pub(super) fn choose(&self, marks: &[u64], tried: &[usize]) -> usize {
        let free = || (0..self.loads.len()).filter(|at| !tried.contains(at));
        let least = free().map(|at| self.loads[at].now).min().unwrap_or_default();
        let reader = self.beginnings.reader(marks).filter(|at| !tried.contains(at));
        let idlest =
            || free().min_by_key(|at| (self.loads[*at].now, self.loads[*at].taken)).unwrap_or_default();
        reader.filter(|at| self.loads[*at].now <= least + SLACK).unwrap_or_else(idlest)
    }

    /// Notes who has read the beginnings of a prompt.
    pub(super) fn read(&mut self, marks: &[u64], at: usize) {
        self.beginnings.note(marks, at);
    }

    /// Takes a request down, and tells its ticket.
    pub(super) fn enter(&mut self, at: usize, weight: u64) -> u64 {
        self.loads[at].now += weight;
        self.loads[at].taken += weight;
        self.newest += 1;
        self.requests.insert(self.newest, Entry { at, weight, stage: Stage::Settled });
        self.newest
    }

    /// Takes a request off, and tells whom to wake because they shall move.
    pub(super) fn leave(&mut self, ticket: u64) -> Vec<Waker> {
        self.settle(ticket);
        if let Some(Entry { at, weight, .. }) = self.requests.remove(&ticket) {
            self.loads[at].now -= weight;
        }
        self.level(SLACK)
    }

    /// Whether somebody else shall be asked for a request for which nothing has been computed; who reads it is woken when
    /// that changes.
    pub(super) fn wait(&mut self, ticket: u64, waker: &Waker) -> Option<usize> {
        match &mut self.requests.get_mut(&ticket)?.stage {
            Stage::Moving { to } => Some(*to),
            stage => {
                *stage = Stage::Waiting(Some(waker.clone()));
                None
            }
        }
    }

    /// A request stays where it is.
    pub(super) fn settle(&mut self, ticket: u64) {
        let Some(entry) = self.requests.get_mut(&ticket) else { return };
        if let Stage::Moving { to } = std::mem::replace(&mut entry.stage, Stage::Settled) {
            self.loads[to].now -= entry.weight;
            self.loads[entry.at].now += entry.weight;
        }
    }

    /// A request has got where it was to go.
    pub(super) fn arrive(&mut self, ticket: u64) {
        let Some(entry) = self.requests.get_mut(&ticket) else { return };
        if let Stage::Moving { to } = std::mem::replace(&mut entry.stage, Stage::Waiting(None)) {
            entry.at = to;
            self.loads[to].taken += entry.weight;
        }
    }

    /// Makes loads even as far as requests that wait can do that, and tells whom to wake.
    pub(super) fn rebalance(&mut self) -> Vec<Waker> {
        self.level(0)
    }

    /// Lets requests move to whoever has least to do, the oldest first, where the two are so far apart and nearer afterwards.
    fn level(&mut self, apart: u64) -> Vec<Waker> {
        let mut woken = Vec::new();
        let loads = || self.loads.iter().map(|load| load.now);
        // Mostly they are even, and then nobody is looked at, however many there are.
        if loads().max() <= loads().min().map(|least| least.saturating_add(apart)) {
            return woken;
        }
        for entry in self.requests.values_mut() {
            let Stage::Waiting(waker) = &mut entry.stage else { continue };
            let least = (0..self.loads.len()).min_by_key(|at| self.loads[*at].now).unwrap_or_default();
            let [from, to] = [entry.at, least].map(|at| self.loads[at].now);
            if from > to.saturating_add(apart.max(entry.weight)) {
                woken.extend(waker.take());
                self.loads[entry.at].now -= entry.weight;
                self.loads[least].now += entry.weight;
                entry.stage = Stage::Moving { to: least };
            }
        }
        woken
    }

    /// What each has to do.
    #[cfg(test)]
    pub(super) fn loads(&self) -> Vec<u64> {
        self.loads.iter().map(|load| load.now).collect()
    }
}
