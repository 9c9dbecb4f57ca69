//! What the tower has made of pictures, kept for whoever shows the same picture again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use models::vision::Features;

use super::attic::FeatureTier;
use crate::prefix::Scope;

/// A picture of a scope. Scopes never meet: nobody can learn, not even by the clock, which pictures another one has shown.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Name {
    pub(crate) scope: Arc<Scope>,
    pub(crate) hash: [u8; 32],
}

/// Features by name, within a budget of bytes; what was used longest ago goes first, and nothing that a request holds. What
/// goes is kept below, if there is such a place.
#[derive(Debug)]
pub(crate) struct Shelf {
    budget: usize,
    bytes: usize,
    entries: HashMap<Name, Entry>,
    /// By the time of use, which only counts uses.
    order: BTreeMap<u64, Name>,
    uses: u64,
    below: Option<FeatureTier>,
}

#[derive(Debug)]
struct Entry {
    features: Arc<Features>,
    used: u64,
}

impl Shelf {
    /// An empty shelf.
    pub(crate) fn new(budget: usize, below: Option<FeatureTier>) -> Self {
        Self { budget, bytes: 0, entries: HashMap::new(), order: BTreeMap::new(), uses: 0, below }
    }

    /// The features of a picture, if they are there.
    pub(crate) fn find(&mut self, name: &Name) -> Option<Arc<Features>> {
        let entry = self.entries.get_mut(name)?;
        self.uses += 1;
        if let Some(name) = self.order.remove(&entry.used) {
            self.order.insert(self.uses, name);
        }
        entry.used = self.uses;
        Some(Arc::clone(&entry.features))
    }

    /// Keeps the features of a picture, and lets go of others until all fit.
    pub(crate) fn keep(&mut self, name: Name, features: Arc<Features>) {
        self.uses += 1;
        self.bytes += features.bytes();
        self.order.insert(self.uses, name.clone());
        if let Some(before) = self.entries.insert(name, Entry { features, used: self.uses }) {
            self.order.remove(&before.used);
            self.bytes -= before.features.bytes();
        }
        self.fit();
    }

    /// Lets go of what does not fit and nobody holds.
    pub(crate) fn fit(&mut self) {
        if self.bytes <= self.budget {
            return;
        }
        let Self { budget, bytes, entries, order, below, .. } = self;
        order.retain(|_, name| {
            let goes = *bytes > *budget
                && entries.get(name).is_some_and(|entry| Arc::strong_count(&entry.features) == 1);
            if goes && let Some(entry) = entries.remove(name) {
                *bytes -= entry.features.bytes();
                below.iter().for_each(|below| below.keep(name, &entry.features));
            }
            !goes
        });
    }

    /// Bytes of all features, held or not.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets all that no request holds, also below.
    pub(crate) fn clear(&mut self) {
        let below = self.below.take();
        self.empty();
        below.iter().for_each(FeatureTier::clear);
        self.below = below;
    }

    /// Lets go of all that no request holds.
    pub(crate) fn empty(&mut self) {
        let budget = std::mem::replace(&mut self.budget, 0);
        self.fit();
        self.budget = budget;
    }
}
