//! The tensors of a model, whether in one file or in many behind an index.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;
use tensor::Dtype;
use tensor::safetensors::SafeTensors;
use tensor::stored::TensorView;

use crate::repository::is_plain_name;
use crate::{ModelError, Repository};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Tensors by name, each checked against the shape that the caller expects.
pub struct Checkpoint {
    /// The file that lists the tensors, for messages.
    listing: PathBuf,
    shards: Vec<Shard>,
    /// The shard that the index assigns to each tensor; empty for a single file.
    index: BTreeMap<String, usize>,
    elements: Cell<u64>,
}

struct Shard {
    path: PathBuf,
    tensors: SafeTensors,
}

impl Checkpoint {
    /// Opens `model.safetensors`, or else the index and every file that it lists.
    ///
    /// # Errors
    /// When a file is missing, broken, or named so that it could lie outside the folder.
    pub fn open(repository: &Repository) -> Result<Self, ModelError> {
        if repository.contains(SINGLE) {
            let path = repository.path(SINGLE);
            let shard = Shard { path: path.clone(), tensors: repository.tensors(SINGLE)? };
            return Ok(Self {
                listing: path,
                shards: vec![shard],
                index: BTreeMap::new(),
                elements: Cell::new(0),
            });
        }
        if !repository.contains(INDEX) {
            return Err(repository.missing(SINGLE));
        }
        Self::open_sharded(repository)
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
        Ok(Self { listing, shards, index, elements: Cell::new(0) })
    }

    /// The tensor of that name, which must have that shape.
    ///
    /// # Errors
    /// Names the file, what was expected and what was found.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView, ModelError> {
        let shard = self.shard(name).ok_or_else(|| self.missing(name))?;
        let Some(view) = shard.tensors.tensor(name) else {
            return Err(self.unreadable(shard, name));
        };
        if view.shape() != shape {
            return Err(ModelError::TensorShape {
                path: shard.path.clone(),
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
        self.shard(name).is_some()
    }

    /// The first of `prefixes` under which a tensor called `probe` is listed, or else the first of all.
    pub fn prefix<'p>(&self, prefixes: &[&'p str], probe: &str) -> &'p str {
        let listed = prefixes.iter().find(|prefix| self.contains(&format!("{prefix}{probe}")));
        listed.or(prefixes.first()).copied().unwrap_or_default()
    }

    /// The widest element type among the stored matrices, for checkpoints whose config.json does not say.
    pub fn dtype(&self) -> Dtype {
        let matrices = self.shards.iter().flat_map(|shard| shard.tensors.entries());
        let kinds = matrices.filter(|(_, _, shape)| shape.len() == 2).map(|(_, dtype, _)| dtype);
        kinds.fold(Dtype::Bf16, |widest, dtype| match dtype {
            "BF16" => widest,
            "F16" if widest == Dtype::Bf16 => Dtype::F16,
            "F16" => widest,
            _ => Dtype::F32,
        })
    }

    /// Elements of all tensors handed out so far.
    pub fn elements_read(&self) -> u64 {
        self.elements.get()
    }

    /// The file that the index names for a tensor, or else any that has it.
    fn shard(&self, name: &str) -> Option<&Shard> {
        match self.index.get(name) {
            Some(number) => self.shards.get(*number),
            None => self.shards.iter().find(|shard| shard.entry(name).is_some()),
        }
    }

    /// Why `shard` gives no view of `name`: it has another type, or it is not there although the index says so.
    fn unreadable(&self, shard: &Shard, name: &str) -> ModelError {
        match shard.entry(name) {
            Some(found) => ModelError::TensorDtype {
                path: shard.path.clone(),
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

impl Shard {
    /// The element type of a tensor as the file writes it.
    fn entry(&self, name: &str) -> Option<&str> {
        self.tensors.entries().find(|(found, ..)| *found == name).map(|(_, dtype, _)| dtype)
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
    Ok(Shard { path, tensors: repository.tensors(file)? })
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
