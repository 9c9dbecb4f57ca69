//! How a model is had once more that does not come back.

use std::fmt;
use std::sync::Arc;

/// Loads a model once more, on threads of its own.
pub struct Revive<M>(Arc<dyn Fn() -> Result<M, String> + Send + Sync>);

impl<M> Revive<M> {
    /// `load` gives the same model as was started with: of the same files, and as it was told then.
    pub fn new(load: impl Fn() -> Result<M, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(load))
    }

    /// The model once more; an error is for people.
    pub(crate) fn load(&self) -> Result<M, String> {
        (self.0)()
    }
}

impl<M> Clone for Revive<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M> fmt::Debug for Revive<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revive").finish_non_exhaustive()
    }
}

impl<M> PartialEq for Revive<M> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
