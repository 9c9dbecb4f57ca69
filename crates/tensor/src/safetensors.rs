//! Memory-mapped safetensors files: a view per tensor, no copies.
//!
//! A file is 8 bytes of header length (little-endian), a JSON header that names each tensor's element type, shape and
//! byte range, and the elements. Files come from strangers, so the header is believed about nothing: `header.rs`
//! checks every number against the length of the file before a view can exist.

mod defect;
mod header;

#[cfg(test)]
mod tests;

use std::path::Path;

use crate::TensorError;
use crate::stored::{FileBytes, TensorView, Tensors};

pub use defect::Defect;

/// A parsed safetensors file.
pub struct SafeTensors {
    tensors: Tensors,
}

impl SafeTensors {
    /// Maps and checks a file. Every offset and shape of the header is checked before anything is allocated for it.
    /// What [`FileBytes::map`] says about mapped files holds.
    ///
    /// # Errors
    /// Says the file, what was expected and what was found.
    pub fn open(path: &Path) -> Result<Self, TensorError> {
        Self::parse(path, FileBytes::map(path)?)
    }

    /// Parses bytes that are in memory; `name` stands for the path in errors.
    ///
    /// # Errors
    /// As `open`.
    pub fn parse(name: &Path, file: FileBytes) -> Result<Self, TensorError> {
        let entries = header::read(file.as_ref())
            .map_err(|defect| TensorError::Malformed { path: name.to_owned(), defect })?;
        Ok(Self { tensors: Tensors::new(file, entries) })
    }

    /// The tensor of that name, if the file has it with a floating-point type that the kernels read.
    pub fn tensor(&self, name: &str) -> Option<TensorView> {
        self.tensors.tensor(name)
    }

    /// Names of all tensors, sorted, with their dtype as the file writes it (`F32`, `I64`, …) and shape.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &'static str, &[usize])> {
        self.tensors.entries()
    }

    /// The tensors alone.
    pub fn into_tensors(self) -> Tensors {
        self.tensors
    }
}
