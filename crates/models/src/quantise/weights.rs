//! The tensors of a quantised folder, as one safetensors file.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::{ControlFlow, Range};
use std::path::Path;

use serde_json::{Map, Value, json};
use tensor::quantised::SCALES;
use tensor::{Quantised, Scheme};

use super::output::unwritable;
use crate::checkpoint::Checkpoint;
use crate::layers::{Listed, Stored};
use crate::{ModelError, Watch};

/// Outputs that are quantised at a time.
const OUTPUTS: usize = 64;

/// A matrix to be quantised, with its shape as layers see it.
struct Matrix<'a> {
    listed: &'a Listed,
    outputs: usize,
    inputs: usize,
}

impl<'a> Matrix<'a> {
    fn new(listed: &'a Listed) -> Self {
        let (first, second) = (listed.weight.shape()[0], listed.weight.shape()[1]);
        match listed.stored {
            Stored::Rows => Self { listed, outputs: first, inputs: second },
            Stored::Columns => Self { listed, outputs: second, inputs: first },
        }
    }

    fn scheme(&self) -> Scheme {
        self.listed.scheme
    }

    fn part(&self, outputs: Range<usize>) -> Quantised {
        match self.listed.stored {
            Stored::Rows => Quantised::of_rows(self.scheme(), &self.listed.weight, outputs),
            Stored::Columns => Quantised::of_columns(self.scheme(), &self.listed.weight, outputs),
        }
    }
}

/// Writes the listed matrices quantised, and all other tensors of the checkpoint as they stand.
pub(super) fn write(
    path: &Path,
    checkpoint: &Checkpoint,
    listed: &[Listed],
    watch: &dyn Watch,
) -> Result<(), ModelError> {
    let matrices: Vec<Matrix<'_>> = listed.iter().map(Matrix::new).collect();
    let quantised: BTreeSet<&str> = listed.iter().map(|listed| listed.name.as_str()).collect();
    let mut copied = checkpoint.raw();
    copied.retain(|tensor| !quantised.contains(tensor.name));

    let mut header = Header::default();
    for tensor in &copied {
        header.add(tensor.name, tensor.kind, tensor.shape, tensor.bytes.len());
    }
    for matrix in &matrices {
        let (scheme, outputs, inputs) = (matrix.scheme(), matrix.outputs, matrix.inputs);
        let (row, groups) = (scheme.row_bytes(inputs), scheme.groups(inputs));
        let scales = format!("{}{SCALES}", matrix.listed.name);
        header.add(&matrix.listed.name, scheme.kind(), &[outputs, row], outputs * row);
        header.add(&scales, "F32", &[outputs, groups], outputs * groups * size_of::<f32>());
    }

    let unwritable = unwritable(path);
    let mut to = BufWriter::new(File::create(path).map_err(&unwritable)?);
    to.write_all(&header.bytes()).map_err(&unwritable)?;
    let mut told = Told { watch, done: 0, total: header.end as u64 };
    for tensor in copied {
        to.write_all(tensor.bytes).map_err(&unwritable)?;
        told.add(tensor.bytes.len())?;
    }
    for matrix in matrices {
        let mut scales = Vec::new();
        for first in (0..matrix.outputs).step_by(OUTPUTS) {
            let part = matrix.part(first..(first + OUTPUTS).min(matrix.outputs));
            let numbers = part.number_bytes();
            to.write_all(&numbers).map_err(&unwritable)?;
            scales.extend(part.scales.iter().flat_map(|scale| scale.to_le_bytes()));
            told.add(numbers.len())?;
        }
        to.write_all(&scales).map_err(&unwritable)?;
        told.add(scales.len())?;
        matrix.listed.weight.release();
    }
    let file = to.into_inner().map_err(|error| unwritable(error.into_error()))?;
    file.sync_all().map_err(&unwritable)
}

/// What the head of the file says.
#[derive(Default)]
struct Header {
    entries: Map<String, Value>,
    end: usize,
}

impl Header {
    /// Appends a tensor.
    fn add(&mut self, name: &str, kind: &str, shape: &[usize], bytes: usize) {
        let offsets = [self.end, self.end + bytes];
        self.end += bytes;
        self.entries
            .insert(name.to_owned(), json!({ "dtype": kind, "shape": shape, "data_offsets": offsets }));
    }

    /// Length and text, padded so that the data begins at a multiple of 64 bytes.
    fn bytes(&self) -> Vec<u8> {
        let mut text = Value::Object(self.entries.clone()).to_string();
        let padded = (text.len() + 8).next_multiple_of(64) - 8;
        text.extend(std::iter::repeat_n(' ', padded - text.len()));
        [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
    }
}

/// Tells how much has been written.
struct Told<'a> {
    watch: &'a dyn Watch,
    done: u64,
    total: u64,
}

impl Told<'_> {
    fn add(&mut self, bytes: usize) -> Result<(), ModelError> {
        self.done += bytes as u64;
        match self.watch.packed(self.done, self.total) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(ModelError::Stopped),
        }
    }
}
