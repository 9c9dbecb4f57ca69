//! The tensors of a model, whether in one file, in many behind an index, or in memory, under the names that folders give
//! them.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tensor::gguf::names_of_read_types;
use tensor::quantised::SCALES;
use tensor::stored::{BlockFormat, Encoding, RawTensor, TensorView, Tensors};
use tensor::{Dtype, Scheme};

use crate::layers::Stored;
use crate::repository::is_plain_name;
use crate::{Dialect, ModelError, Repository, gguf};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Tensors by name, each checked against the shape that the caller expects.
pub struct Checkpoint {
    /// The file that lists the tensors, for messages.
    listing: PathBuf,
    shards: Vec<Shard>,
    /// The shard that the index assigns to each tensor; empty for a single file.
    index: BTreeMap<String, usize>,
    /// What the file calls the tensors, if it is a GGUF file.
    dialect: Option<&'static Dialect>,
    /// How layers take their matrices from the files.
    matrices: Matrices,
    elements: Cell<u64>,
}

/// How layers take their matrices from the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Matrices {
    /// As single tensors.
    Whole,
    /// As numbers and scales, all of them `[out, in]`.
    Quantised,
}

struct Shard {
    path: PathBuf,
    tensors: Tensors,
}

impl Checkpoint {
    /// Opens `model.safetensors`, or else the index and every file that it lists; or the tensors of a GGUF file, or those
    /// that are in memory.
    ///
    /// # Errors
    /// When a file is missing, broken, or named so that it could lie outside the folder.
    pub fn open(repository: &Repository) -> Result<Self, ModelError> {
        if let Some(file) = repository.gguf() {
            let (_, dialect) = gguf::family(file)?;
            return Ok(Self::of(file.path().to_owned(), [file.tensors()], Some(dialect)));
        }
        if let Some(held) = repository.held() {
            return Ok(Self::of(repository.path(""), held, None));
        }
        if repository.contains(SINGLE) {
            let tensors = repository.tensors(SINGLE)?.into_tensors();
            return Ok(Self::of(repository.path(SINGLE), [&tensors], None));
        }
        if !repository.contains(INDEX) {
            return Err(repository.missing(SINGLE));
        }
        Self::open_sharded(repository)
    }

    /// Tensors for which one path stands.
    fn of<'t>(
        path: PathBuf,
        tensors: impl IntoIterator<Item = &'t Tensors>,
        dialect: Option<&'static Dialect>,
    ) -> Self {
        let shard = |tensors: &Tensors| Shard { path: path.clone(), tensors: tensors.clone() };
        let shards = tensors.into_iter().map(shard).collect();
        let (index, matrices) = (BTreeMap::new(), Matrices::Whole);
        Self { listing: path, shards, index, dialect, matrices, elements: Cell::new(0) }
    }

    fn open_sharded(repository: &Repository) -> Result<Self, ModelError> {
        let listing = repository.path(INDEX);
        let field = |found: &Value| ModelError::Field {
            path: listing.clone(),
            key: "weight_map".to_owned(),
            expected: "an object of tensor names and file names".to_owned(),
            found: describe(found),
        };
        let json = repository.json(INDEX)?;
        let map = json.get("weight_map").unwrap_or(&Value::Null);
        let map = map.as_object().ok_or_else(|| field(map))?;

        let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
        let mut shards = Vec::new();
        let mut index = BTreeMap::new();
        for (name, file) in map {
            let file = file.as_str().ok_or_else(|| field(file))?;
            let number = match numbers.get(file) {
                Some(number) => *number,
                None => {
                    shards.push(open_shard(repository, name, file)?);
                    numbers.insert(file, shards.len() - 1);
                    shards.len() - 1
                }
            };
            index.insert(name.clone(), number);
        }
        let (dialect, matrices) = (None, Matrices::Whole);
        Ok(Self { listing, shards, index, dialect, matrices, elements: Cell::new(0) })
    }

    /// The same files as those of a folder whose matrices were quantised when it was written.
    pub(crate) fn quantised(self) -> Self {
        Self { matrices: Matrices::Quantised, ..self }
    }

    /// Whether matrices were quantised when the folder was written.
    pub(crate) fn is_quantised(&self) -> bool {
        self.matrices == Matrices::Quantised
    }

    /// The matrix `[outputs, inputs]` of that name, which was quantised by `scheme` when the folder was written.
    ///
    /// # Errors
    /// Names the file, what was expected and what was found.
    pub(crate) fn matrix(
        &self,
        name: &str,
        shape: [usize; 2],
        scheme: Scheme,
    ) -> Result<TensorView, ModelError> {
        let shard = self.shard(name).ok_or_else(|| self.missing(name))?;
        shard.tensors.quantised(name, shape, scheme).ok_or_else(|| ModelError::TensorDtype {
            path: shard.path.clone(),
            expected: format!("{scheme} of shape {shape:?} with '{name}{SCALES}' beside it"),
            name: name.to_owned(),
            found: shard.tensors.kind(name).unwrap_or("nothing").to_owned(),
        })
    }

    /// All tensors as they stand in the files; of several of the same name, the one that is read.
    pub(crate) fn raw(&self) -> Vec<RawTensor<'_>> {
        let shards =
            self.shards.iter().flat_map(|shard| shard.tensors.raw().map(move |tensor| (shard, tensor)));
        let is_read =
            |shard: &Shard, name: &str| self.shard(name).is_some_and(|read| std::ptr::eq(read, shard));
        shards.filter(|(shard, tensor)| is_read(shard, tensor.name)).map(|(_, tensor)| tensor).collect()
    }

    /// Counts the elements of a matrix that was not handed out by [`Self::tensor`].
    pub(crate) fn count(&self, shape: [usize; 2]) {
        self.elements.set(self.elements.get() + (shape[0] * shape[1]) as u64);
    }

    /// The tensor of that name, which must have that shape.
    ///
    /// # Errors
    /// Names the file, what was expected and what was found.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView, ModelError> {
        let name = &*self.stored_name(name);
        let shard = self.shard(name).ok_or_else(|| self.missing(name))?;
        let Some(view) = shard.tensors.tensor(name) else {
            return Err(self.unreadable(shard, name));
        };
        if view.shape() != shape {
            return Err(ModelError::TensorShape {
                path: shard.path.clone(),
                settings: if self.dialect.is_some() { "its metadata" } else { "config.json" },
                name: name.to_owned(),
                expected: shape.to_vec(),
                found: view.shape().to_vec(),
            });
        }
        self.elements.set(self.elements.get() + shape.iter().product::<usize>() as u64);
        Ok(view)
    }

    /// Whether a tensor of that name is listed.
    pub fn contains(&self, name: &str) -> bool {
        self.shard(&self.stored_name(name)).is_some()
    }

    /// How a matrix is stored that folders store as `in_folders`: GGUF files store all of them the same way.
    pub(crate) fn stored(&self, in_folders: Stored) -> Stored {
        if self.dialect.is_some() || self.is_quantised() { Stored::Rows } else { in_folders }
    }

    /// The first of `prefixes` under which a tensor called `probe` is listed, or else the first of all.
    pub fn prefix<'p>(&self, prefixes: &[&'p str], probe: &str) -> &'p str {
        let listed = prefixes.iter().find(|prefix| self.contains(&format!("{prefix}{probe}")));
        listed.or(prefixes.first()).copied().unwrap_or_default()
    }

    /// The type that suits the stored matrices, for checkpoints whose config.json does not say: the widest of them in
    /// folders. In GGUF files it is the type of the largest matrix, because converters widen small ones, and `Bf16` for
    /// quantised ones.
    pub fn dtype(&self) -> Dtype {
        let tensors = self.shards.iter().flat_map(|shard| shard.tensors.entries());
        let matrices = tensors.filter(|(_, _, shape)| shape.len() == 2);
        if self.dialect.is_some() {
            let largest = matrices.max_by_key(|(_, _, shape)| shape.iter().product::<usize>());
            return match largest {
                Some((_, "F32", _)) => Dtype::F32,
                Some((_, "F16", _)) => Dtype::F16,
                _ => Dtype::Bf16,
            };
        }
        matrices.fold(Dtype::Bf16, |widest, (_, dtype, _)| match dtype {
            "BF16" => widest,
            "F16" if widest == Dtype::Bf16 => Dtype::F16,
            "F16" => widest,
            _ => Dtype::F32,
        })
    }

    /// The block format in which most elements of matrices are stored, if any are stored in blocks.
    pub(crate) fn block_format(&self) -> Option<BlockFormat> {
        let matrices = self.shards.iter().flat_map(|shard| shard.tensors.encodings());
        let mut counts: BTreeMap<BlockFormat, usize> = BTreeMap::new();
        for (encoding, shape) in matrices {
            if let (Some(Encoding::Blocks(format)), [rows, columns]) = (encoding, shape) {
                *counts.entry(format).or_default() += rows * columns;
            }
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(format, _)| format)
    }

    /// The files that hold the tensors.
    pub(crate) fn files(&self) -> Vec<&Path> {
        self.shards.iter().map(|shard| shard.path.as_path()).collect()
    }

    /// Bytes of all tensors.
    pub(crate) fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.tensors.bytes()).sum()
    }

    /// Elements of all tensors handed out so far.
    pub fn elements_read(&self) -> u64 {
        self.elements.get()
    }

    /// What the file calls the tensor that folders call `name`.
    fn stored_name<'n>(&self, name: &'n str) -> Cow<'n, str> {
        let stored = self.dialect.and_then(|dialect| dialect.stored_name(name));
        stored.map_or(Cow::Borrowed(name), Cow::Owned)
    }

    /// The file that the index names for a tensor, or else any that has it.
    fn shard(&self, name: &str) -> Option<&Shard> {
        match self.index.get(name) {
            Some(number) => self.shards.get(*number),
            None => self.shards.iter().find(|shard| shard.tensors.kind(name).is_some()),
        }
    }

    /// Why `shard` gives no view of `name`: it has another type, or it is not there although the index says so.
    fn unreadable(&self, shard: &Shard, name: &str) -> ModelError {
        match shard.tensors.kind(name) {
            Some(found) => ModelError::TensorDtype {
                path: shard.path.clone(),
                expected: self.dialect.map_or_else(|| "F32, F16, BF16".to_owned(), |_| names_of_read_types()),
                name: name.to_owned(),
                found: found.to_owned(),
            },
            None => ModelError::NotInShard {
                path: self.listing.clone(),
                shard: shard.path.clone(),
                tensor: name.to_owned(),
            },
        }
    }

    fn missing(&self, name: &str) -> ModelError {
        let names = self.shards.iter().flat_map(|shard| shard.tensors.entries()).map(|(name, ..)| name);
        let near = nearest(name, names);
        ModelError::MissingTensor { path: self.listing.clone(), name: name.to_owned(), near }
    }
}

fn open_shard(repository: &Repository, tensor: &str, file: &str) -> Result<Shard, ModelError> {
    let listing = repository.path(INDEX);
    if !is_plain_name(file) {
        return Err(ModelError::ShardName { path: listing, found: file.to_owned() });
    }
    let path = repository.path(file);
    if !repository.contains(file) {
        return Err(ModelError::MissingShard { path: listing, shard: path, tensor: tensor.to_owned() });
    }
    Ok(Shard { path, tensors: repository.tensors(file)?.into_tensors() })
}

/// The three names that share most with `name` at both ends.
fn nearest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Vec<String> {
    let alike = |other: &str| {
        let head = name.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
        let tail = name.bytes().rev().zip(other.bytes().rev()).take_while(|(a, b)| a == b).count();
        head + tail
    };
    let mut ranked: Vec<(usize, &str)> = names.map(|other| (alike(other), other)).collect();
    ranked.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    ranked.into_iter().take(3).map(|(_, other)| other.chars().take(120).collect()).collect()
}

/// A JSON value for a message: short values as they are, long ones by their kind.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) => format!("'{}'", text.chars().take(60).collect::<String>()),
        other => other.to_string(),
    }
}
