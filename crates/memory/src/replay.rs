//! What each policy would have found in memory of a certain size: a recorded trace of uses run again.
//!
//! Beside the policies stands the optimum that knows the future (Belady, "A study of replacement algorithms for a
//! virtual-storage computer", IBM Systems Journal 1966): what is used again last goes first, and what is used again later
//! than all the rest is not taken up. Among objects of one size nothing can find more; among objects of several it is a
//! mark to look at, since the true optimum cannot be had in reasonable time.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use crate::eviction::Facts;
use crate::{Key, PolicyChoice};

/// One use of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// Which one.
    pub key: Key,
    /// Its length.
    pub bytes: usize,
}

/// What was found of the objects that were used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Uses in all.
    pub uses: u64,
    /// Uses of what was there.
    pub hits: u64,
    /// Bytes of all uses.
    pub bytes: u64,
    /// Bytes of what was there.
    pub hit_bytes: u64,
}

impl Found {
    /// Notes a use of what was there.
    pub fn hit(&mut self, used: Use) {
        self.hits += 1;
        self.hit_bytes += used.bytes as u64;
        self.miss(used);
    }

    /// Notes a use of what was not.
    pub fn miss(&mut self, used: Use) {
        self.uses += 1;
        self.bytes += used.bytes as u64;
    }

    /// The share of the uses that found something; 0 without any.
    pub fn hit_rate(&self) -> f64 {
        self.hits as f64 / self.uses.max(1) as f64
    }

    /// The share of the bytes that were there; 0 without any.
    pub fn byte_hit_rate(&self) -> f64 {
        self.hit_bytes as f64 / self.bytes.max(1) as f64
    }
}

/// What a policy finds with so many bytes of memory: what is not there is taken up, unless it is larger than all of it.
/// To bring an object back costs as much as it is long.
pub fn replay(policy: &PolicyChoice, uses: &[Use], budget: usize) -> Found {
    let mut policy = policy.make();
    let mut present: HashMap<Key, usize> = HashMap::new();
    let (mut taken, mut found) = (0, Found::default());
    for used in uses {
        if present.contains_key(&used.key) {
            policy.touch(used.key);
            found.hit(*used);
            continue;
        }
        found.miss(*used);
        if used.bytes > budget {
            continue;
        }
        while taken + used.bytes > budget
            && let Some(victim) = policy.victim(&mut |_| true)
        {
            policy.remove(victim);
            taken -= present.remove(&victim).unwrap_or(0);
        }
        taken += used.bytes;
        present.insert(used.key, used.bytes);
        policy.insert(used.key, Facts { bytes: used.bytes, cost: used.bytes as f64 });
    }
    found
}

/// What who knows the future finds with so many bytes.
pub fn optimum(uses: &[Use], budget: usize) -> Found {
    let again = next_uses(uses);
    // By next use, the last one last. Every use has one next use, so the numbers name objects.
    let mut order: BTreeSet<(usize, Key, usize)> = BTreeSet::new();
    let mut present: HashMap<Key, (usize, usize)> = HashMap::new();
    let (mut taken, mut found) = (0, Found::default());
    for (used, again) in uses.iter().zip(again) {
        match present.remove(&used.key) {
            Some((at, bytes)) => {
                found.hit(*used);
                order.remove(&(at, used.key, bytes));
                taken -= bytes;
            }
            None => found.miss(*used),
        }
        if again == usize::MAX || used.bytes > budget {
            continue;
        }
        order.insert((again, used.key, used.bytes));
        present.insert(used.key, (again, used.bytes));
        taken += used.bytes;
        while taken > budget
            && let Some((_, key, bytes)) = order.pop_last()
        {
            present.remove(&key);
            taken -= bytes;
        }
    }
    found
}

/// By use: when the same object is used again.
fn next_uses(uses: &[Use]) -> Vec<usize> {
    let mut next = HashMap::new();
    let mut again: Vec<usize> =
        (0..uses.len()).rev().map(|at| next.insert(uses[at].key, at).unwrap_or(usize::MAX)).collect();
    again.reverse();
    again
}

/// Bytes of all objects of a trace, each counted once: with so many nothing ever has to go.
pub fn distinct_bytes(uses: &[Use]) -> usize {
    let sizes: HashMap<Key, usize> = uses.iter().map(|used| (used.key, used.bytes)).collect();
    sizes.values().sum()
}

/// Takes down the uses of a ladder's objects, on the threads that use them: it must not wait for anything.
#[derive(Clone)]
pub struct Recorder(Arc<dyn Fn(Use) + Send + Sync>);

impl Recorder {
    /// Hands every use to `take`.
    pub fn new(take: impl Fn(Use) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    pub(crate) fn record(&self, used: Use) {
        (self.0)(used);
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Recorder").finish_non_exhaustive()
    }
}
