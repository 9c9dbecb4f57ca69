//! Layers that are read from a file of packed layers whenever they are needed, for models that are larger than memory.
//!
//! A [`Streaming`] notes where the strips of layers are while a model is loaded. What comes of it holds as many of them as a
//! budget allows, and reads the others ahead (see [`memory::Sweep`]). They have the bits that they have when all of them
//! are in memory: an output is one column of one panel, and no sum knows of its neighbours.

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use memory::files::Folder;
use memory::rung::{Blob, Part};
use memory::{Sweep, SweepStatistics};

use crate::TensorError;

/// The strips of a layer.
pub(super) struct StreamedLayer {
    weights: StreamedWeights,
    first: usize,
}

impl StreamedLayer {
    /// A strip, once it is in memory; panics if it cannot be read.
    pub(super) fn strip(&self, strip: usize) -> Arc<Blob> {
        let sweep =
            self.weights.sweep.get().unwrap_or_else(|| panic!("weights are opened before they are read"));
        let part = sweep.part(self.first + strip);
        part.unwrap_or_else(|error| panic!("cannot read the weights of the model: {error}"))
    }
}

/// Where the strips of a model are, in the order in which its layers are asked for.
#[derive(Default)]
pub struct Streaming {
    parts: Vec<Part>,
    weights: StreamedWeights,
}

/// The weights of a model of which memory holds only some. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct StreamedWeights {
    sweep: Arc<OnceLock<Sweep>>,
}

impl Streaming {
    /// Notes the strips of a layer.
    pub(super) fn layer(&mut self, strips: impl IntoIterator<Item = Part>) -> StreamedLayer {
        let first = self.parts.len();
        self.parts.extend(strips);
        StreamedLayer { weights: self.weights.clone(), first }
    }

    /// Opens the file for the layers that were noted, and reads those that are held for good. Memory for weights is
    /// `budget` bytes from now on.
    ///
    /// # Errors
    /// When the budget is too small, or the file cannot be read.
    pub fn open(self, file: &Path, budget: usize) -> Result<StreamedWeights, TensorError> {
        let unreadable = |source| TensorError::Io { path: file.to_owned(), source };
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let sweep = Sweep::open(Folder::holding(file).map_err(unreadable)?, name, self.parts, budget)
            .map_err(|source| TensorError::Streaming { path: file.to_owned(), source: Box::new(source) })?;
        // Nobody else has what it is noted in.
        let _ = self.weights.sweep.set(sweep);
        Ok(self.weights)
    }
}

impl StreamedWeights {
    /// What is in memory and what was read.
    pub fn statistics(&self) -> SweepStatistics {
        self.sweep.get().map(Sweep::statistics).unwrap_or_default()
    }
}
