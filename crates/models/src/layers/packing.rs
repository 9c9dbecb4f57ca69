//! Where layers come from and go to as a model is loaded: packed here, or kept from an earlier start.

use std::cell::RefCell;

use tensor::stored::TensorView;
use tensor::{Archive, Kernels, Linear, Packer, Scheme};

use super::weights::{Found, Stored};

use crate::cache::{CacheError, Keeping, Key};
use crate::loaded::Holding;
use crate::progress::Loading;

/// A matrix that would be quantised.
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) weight: TensorView,
    pub(crate) stored: Stored,
    pub(crate) scheme: Scheme,
}

/// Packs layers, or takes them from the cache, and keeps what it has packed. Or lists what would be quantised.
pub struct Packing<'a> {
    loading: Loading<'a>,
    kept: Option<Archive>,
    keeping: RefCell<Option<Keeping>>,
    listed: Option<RefCell<Vec<Listed>>>,
}

impl<'a> Packing<'a> {
    /// Looks into the cache, if there is one, and begins to keep what is not found there. `key` is `None` of a model that
    /// is no file.
    pub(crate) fn new(loading: Loading<'a>, key: Option<Key>, kernels: &dyn Kernels) -> Self {
        let mut packing = Self { loading, kept: None, keeping: RefCell::default(), listed: None };
        if let (Some(cache), Some(key)) = (loading.cache, key) {
            packing.kept = packing.reported(cache.open(&key, kernels.pool())).flatten();
            if packing.kept.is_none() {
                packing.keeping = RefCell::new(packing.reported(cache.begin(&key)));
            }
        }
        packing
    }

    /// Packs nothing and lists what would be quantised.
    pub(crate) fn listing() -> Self {
        let listed = Some(RefCell::default());
        Self { loading: Loading::default(), kept: None, keeping: RefCell::default(), listed }
    }

    /// Whether it only lists.
    pub(super) fn lists(&self) -> bool {
        self.listed.is_some()
    }

    /// Lists a matrix if it would be quantised.
    pub(super) fn list(&self, found: &Found, stored: Stored, holding: Holding) {
        if let (Some(listed), Holding::Quantised(scheme)) = (&self.listed, holding) {
            let (name, weight) = (found.name.clone(), found.weight.clone());
            listed.borrow_mut().push(Listed { name, weight, stored, scheme });
        }
    }

    /// What was listed.
    pub(crate) fn into_list(self) -> Vec<Listed> {
        self.listed.map(RefCell::into_inner).unwrap_or_default()
    }

    /// The layer that `packer` makes; `name` tells it from the others of the model.
    pub(crate) fn layer(&self, name: &str, mut packer: Packer, kernels: &dyn Kernels) -> Linear {
        if let Some(layer) = self.kept.as_ref().and_then(|kept| packer.kept(kept, name)) {
            return layer;
        }
        let layer = match kernels.pool() {
            Some(pool) => packer.finish_on(pool),
            None => packer.finish(),
        };
        let mut keeping = self.keeping.borrow_mut();
        let kept = keeping.as_mut().map(|keeping| keeping.layer(name, &layer));
        if kept.is_some_and(|kept| self.reported(kept).is_none()) {
            *keeping = None;
        }
        layer
    }

    /// Puts what was packed into the cache, now that all of it is there.
    pub(crate) fn finish(self) {
        if let Some(keeping) = self.keeping.take() {
            self.reported(keeping.finish());
        }
    }

    fn reported<T>(&self, result: Result<T, CacheError>) -> Option<T> {
        result.map_err(|error| self.loading.watch.cache_failed(&error)).ok()
    }
}
