//! Where objects stand, and what the policies and the counts are told about it.

use std::sync::Arc;

use super::entry::{Below, Entry};
use super::{Book, Rates};
use crate::eviction::Facts;
use crate::replay::Use;
use crate::rung::Blob;
use crate::{Key, PolicyChoice};

impl Book {
    pub(in super::super) fn set_policy(&mut self, choice: &PolicyChoice) {
        self.policy = choice.make();
        self.lower.iter_mut().for_each(|lower| lower.policy = choice.make());
        let mut keys: Vec<(u64, Key)> = self.entries.iter().map(|(key, entry)| (entry.used, *key)).collect();
        keys.sort_unstable();
        for (_, key) in keys {
            let entry = &self.entries[&key];
            let facts = Facts { bytes: entry.bytes, cost: self.cost(entry) };
            if entry.host.is_some() {
                self.policy.insert(key, facts);
            }
            if let (Below::Present, Some(lower)) = (entry.below, &mut self.lower) {
                lower.policy.insert(key, facts);
            }
        }
    }

    /// What it would cost to have an object again, in seconds: from below if it is there, or as its owner said.
    pub(super) fn cost(&self, entry: &Entry) -> f64 {
        match (entry.below, self.counts.rates) {
            (Below::Present | Below::Coming, Rates { up: Some(rate), .. }) => {
                entry.bytes as f64 / rate.max(1.0)
            }
            _ => entry.cost,
        }
    }

    pub(in super::super) fn touch(&mut self, key: Key) {
        let used = self.count();
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.used = used;
        if entry.host.is_some() {
            self.policy.touch(key);
        }
        if let (Below::Present, Some(lower)) = (entry.below, &mut self.lower) {
            lower.policy.touch(key);
        }
        if self.ahead.remove(&key) {
            self.counts.prefetches_used += 1;
        }
    }

    /// Takes down that an object is used.
    pub(super) fn record(&self, key: Key) {
        if let (Some(recorder), Some(entry)) = (&self.recorder, self.entries.get(&key)) {
            recorder.record(Use { key, bytes: entry.bytes });
        }
    }

    pub(super) fn is_dirty(&self, key: Key) -> bool {
        self.entries.get(&key).is_some_and(|entry| entry.host.is_some() && entry.below == Below::Absent)
    }

    /// Notes that an object is in memory.
    pub(super) fn set_host(&mut self, key: Key, blob: Arc<Blob>) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if entry.below != Below::Present {
            self.dirty += blob.bytes.footprint();
        }
        entry.host = Some(blob);
        self.hosted += 1;
        let facts = Facts { bytes: entry.bytes, cost: 0.0 };
        let cost = self.cost(&self.entries[&key]);
        self.policy.insert(key, Facts { cost, ..facts });
    }

    /// Notes that an object is in memory no more.
    pub(super) fn drop_host(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let Some(blob) = entry.host.take() else { return };
        self.hosted -= 1;
        if entry.below != Below::Present {
            self.dirty -= blob.bytes.footprint();
        }
        self.policy.remove(key);
        self.ahead.remove(&key);
    }

    /// Notes how an object stands on the rung below.
    pub(super) fn set_below(&mut self, key: Key, below: Below) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let (was, is) = (entry.below == Below::Present, below == Below::Present);
        entry.below = below;
        if was == is {
            return;
        }
        let footprint = entry.host.as_ref().map_or(0, |blob| blob.bytes.footprint());
        let bytes = entry.bytes;
        let cost = self.cost(&self.entries[&key]);
        let Some(lower) = &mut self.lower else { return };
        if is {
            self.dirty -= footprint;
            lower.objects += 1;
            lower.policy.insert(key, Facts { bytes, cost });
        } else {
            self.dirty += footprint;
            lower.objects -= 1;
            lower.policy.remove(key);
        }
    }
}

#[cfg(test)]
impl Book {
    /// Whether an object is in memory and whether it is below.
    pub(in super::super) fn place_of(&self, key: Key) -> (bool, bool) {
        let entry = self.entries.get(&key);
        entry.map_or((false, false), |entry| (entry.host.is_some(), entry.below == Below::Present))
    }

    /// Compares what is counted with what there is.
    pub(in super::super) fn check(&self) {
        let dirty = self.entries.values().filter(|entry| entry.below != Below::Present);
        let dirty = dirty.filter_map(|entry| entry.host.as_ref());
        assert_eq!(self.dirty, dirty.map(|blob| blob.bytes.footprint()).sum::<usize>());
        assert_eq!(self.hosted, self.entries.values().filter(|entry| entry.host.is_some()).count());
        for (key, entry) in &self.entries {
            assert!(entry.host.is_some() || entry.below != Below::Absent, "{key} is on no rung");
            assert!(entry.rising.is_none() || entry.below == Below::Present, "{key} rises from nowhere");
        }
        let lowering = self.jobs.values().filter_map(|job| match job {
            super::Job::Down(job) => Some(job.blob.bytes.footprint()),
            _ => None,
        });
        assert_eq!(self.lowering, lowering.sum::<usize>(), "while nothing runs");
    }
}
