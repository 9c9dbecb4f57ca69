//! Who waits for a model to be loaded: hears how far it is and what is remarkable, and may stop it.

use std::cell::Cell;
use std::ops::ControlFlow;

use crate::cache::CacheError;
use crate::{ModelError, PackedCache};

/// Waits for a model.
pub trait Watch {
    /// Is called after every layer with the bytes of stored weights that have been packed and those of all, and says
    /// whether to go on.
    fn packed(&self, done: u64, total: u64) -> ControlFlow<()>;

    /// Is told what went wrong with the cache of packed weights. The model is loaded all the same.
    fn cache_failed(&self, error: &CacheError);
}

/// Waits in patience.
pub struct Unwatched;

impl Watch for Unwatched {
    fn packed(&self, _done: u64, _total: u64) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn cache_failed(&self, _error: &CacheError) {}
}

/// What surrounds the loading of a model.
#[derive(Clone, Copy)]
pub struct Loading<'a> {
    /// Who waits for it.
    pub watch: &'a dyn Watch,
    /// Where packed weights are kept between starts, if they are.
    pub cache: Option<&'a PackedCache>,
    /// Bytes of memory for the packed weights, which are read from the cache whenever they are needed if they take more;
    /// `None` is as many as they take. A model that is no file is in memory in any case.
    pub weight_memory: Option<usize>,
}

impl Default for Loading<'_> {
    fn default() -> Self {
        Self { watch: &Unwatched, cache: None, weight_memory: None }
    }
}

/// Counts the bytes of stored weights that have been packed.
pub struct Progress<'a> {
    watch: &'a dyn Watch,
    done: Cell<u64>,
    total: u64,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(watch: &'a dyn Watch, total: u64) -> Self {
        Self { watch, done: Cell::new(0), total }
    }

    /// Counts bytes that have been packed.
    ///
    /// # Errors
    /// When loading shall stop.
    pub(crate) fn add(&self, bytes: u64) -> Result<(), ModelError> {
        let done = self.done.get() + bytes;
        self.done.set(done);
        match self.watch.packed(done, self.total) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(ModelError::Stopped),
        }
    }
}
