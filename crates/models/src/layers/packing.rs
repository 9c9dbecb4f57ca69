//! Where layers come from and go to as a model is loaded: packed here, or kept from an earlier start.

use std::cell::RefCell;
use std::path::PathBuf;

use tensor::packed::archive::{Archive, Defect, Residence};
use tensor::packed::streamed::{StreamedWeights, Streaming};
use tensor::stored::TensorView;
use tensor::{Kernels, Linear, Packer, Scheme};

use super::weights::{Found, Stored};

use crate::ModelError;
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
    streaming: Option<Streams>,
    listed: Option<RefCell<Vec<Listed>>>,
}

/// Layers that stay in the cache, of which memory holds only some.
struct Streams {
    /// The file that they will be in.
    path: PathBuf,
    budget: usize,
    noted: RefCell<Streaming>,
}

impl<'a> Packing<'a> {
    /// Looks into the cache, if there is one, and begins to keep what is not found there. `key` is `None` of a model that
    /// is no file.
    pub(crate) fn new(
        loading: Loading<'a>,
        key: Option<Key>,
        kernels: &dyn Kernels,
    ) -> Result<Self, ModelError> {
        let mut packing =
            Self { loading, kept: None, keeping: RefCell::default(), streaming: None, listed: None };
        let Some(key) = key else { return Ok(packing) };
        let Some(cache) = loading.cache else {
            return if loading.weight_memory.is_some() { Err(ModelError::NoCache) } else { Ok(packing) };
        };
        packing.streaming = loading.weight_memory.map(|budget| {
            let (path, noted) = (cache.path(&key), RefCell::default());
            Streams { path, budget, noted }
        });
        let residence = if packing.streams() { Residence::Disk } else { Residence::Mapped };
        packing.kept = packing.reported(cache.open(&key, kernels.pool(), residence)).flatten();
        if packing.kept.is_none() {
            packing.keeping = RefCell::new(packing.needed(cache.begin(&key))?);
        }
        Ok(packing)
    }

    /// Packs nothing and lists what would be quantised.
    pub(crate) fn listing() -> Self {
        let listed = Some(RefCell::default());
        let loading = Loading::default();
        Self { loading, kept: None, keeping: RefCell::default(), streaming: None, listed }
    }

    /// Whether it only lists.
    pub(super) fn lists(&self) -> bool {
        self.listed.is_some()
    }

    /// Whether weights are read whenever they are needed, because memory is short.
    pub(super) fn streams(&self) -> bool {
        self.streaming.is_some()
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
    pub(crate) fn layer(
        &self,
        name: &str,
        mut packer: Packer,
        kernels: &dyn Kernels,
    ) -> Result<Linear, ModelError> {
        if let Some(Streams { noted, .. }) = &self.streaming {
            return self.streamed(name, packer, (kernels, &mut noted.borrow_mut()));
        }
        if let Some(layer) = self.kept.as_ref().and_then(|kept| packer.kept(kept, name)) {
            return Ok(layer);
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
        Ok(layer)
    }

    fn streamed(
        &self,
        name: &str,
        mut packer: Packer,
        (kernels, noted): (&dyn Kernels, &mut Streaming),
    ) -> Result<Linear, ModelError> {
        if let Some(layer) = self.kept.as_ref().and_then(|kept| packer.streamed(kept, name, noted)) {
            return Ok(layer);
        }
        match &mut *self.keeping.borrow_mut() {
            Some(keeping) => keeping
                .streamed(name, packer, kernels.pool(), noted)
                .map_err(|error| ModelError::Unkept(Box::new(error))),
            // The file has its key and lacks a layer.
            None => Err(ModelError::Unkept(Box::new(CacheError::Stale {
                path: self.streaming.as_ref().map(|streams| streams.path.clone()).unwrap_or_default(),
                defect: Defect::Layer { layer: name.to_owned() },
            }))),
        }
    }

    /// Puts what was packed into the cache, now that all of it is there; and opens it there again if that is where weights
    /// are to be read from.
    pub(crate) fn finish(self) -> Result<Option<StreamedWeights>, ModelError> {
        if let Some(keeping) = self.keeping.take() {
            self.needed(keeping.finish())?;
        }
        let Some(Streams { path, budget, noted }) = self.streaming else { return Ok(None) };
        Ok(Some(noted.into_inner().open(&path, budget)?))
    }

    fn reported<T>(&self, result: Result<T, CacheError>) -> Option<T> {
        result.map_err(|error| self.loading.watch.cache_failed(&error)).ok()
    }

    /// As `reported`, but for an error where nothing goes without the cache.
    fn needed<T>(&self, result: Result<T, CacheError>) -> Result<Option<T>, ModelError> {
        match result {
            Err(error) if self.streams() => Err(ModelError::Unkept(Box::new(error))),
            result => Ok(self.reported(result)),
        }
    }
}
