//! The files of a model: a folder on disk, a GGUF file, files compiled into the program, or what it has in memory.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};
use tensor::gguf::Gguf;
use tensor::safetensors::SafeTensors;
use tensor::stored::{FileBytes, Tensors};

use crate::{ModelError, gguf};

/// The longest text file that is read; the largest published tokenizer.json has about a tenth of it.
const TEXT_LIMIT: u64 = 256 << 20;

/// Where the files of a model come from.
#[derive(Clone)]
pub struct Repository {
    place: Place,
}

#[derive(Clone)]
enum Place {
    Folder(PathBuf),
    Gguf(Arc<Gguf>),
    Embedded { name: &'static str, files: &'static [(&'static str, &'static [u8])] },
    Memory(Arc<InMemory>),
}

/// A model that a program has in memory.
pub struct InMemory {
    /// What people call the model.
    pub name: String,
    /// What would be the text files of its folder, by their names: `config.json`, `tokenizer.json`, ….
    pub files: Vec<(String, Vec<u8>)>,
    /// Its tensors under the names that folders give them, one [`Tensors::single`] for each.
    pub tensors: Vec<Tensors>,
}

impl Repository {
    /// What a path leads to: a GGUF file if it is a file, and else a folder as [`Repository::folder`] takes it.
    ///
    /// # Errors
    /// When the file is no sound GGUF file, or the folder is none.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, ModelError> {
        let path = path.into();
        let is_file = path.is_file() || path.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf"));
        if is_file && !path.is_dir() { Self::of_gguf(Gguf::open(&path)?) } else { Self::folder(path) }
    }

    /// A GGUF file that has been read.
    ///
    /// # Errors
    /// When no family reads its architecture.
    pub fn of_gguf(file: Gguf) -> Result<Self, ModelError> {
        gguf::family(&file)?;
        Ok(Self { place: Place::Gguf(Arc::new(file)) })
    }

    /// A folder on disk: a model folder, a snapshot in a Hugging Face cache, or a cache entry `models--org--name`,
    /// which stands for the snapshot that its `refs/main` names (or its only one).
    ///
    /// # Errors
    /// When the path is no folder, or a cache entry does not say which snapshot is meant.
    pub fn folder(path: impl Into<PathBuf>) -> Result<Self, ModelError> {
        let path = path.into();
        if !path.is_dir() {
            return Err(ModelError::NotAFolder { path });
        }
        let folder = if path.join("snapshots").is_dir() && !path.join("config.json").exists() {
            snapshot(&path)?
        } else {
            path
        };
        Ok(Self { place: Place::Folder(folder) })
    }

    /// Files that are part of the program, as pairs of name and content. `name` is what people call the model.
    pub const fn embedded(name: &'static str, files: &'static [(&'static str, &'static [u8])]) -> Self {
        Self { place: Place::Embedded { name, files } }
    }

    /// A model that the program has in memory. Its tensors are read where they are while it is loaded, and again if it has
    /// to be loaded again: until the repository and the model's engine are gone they must not change.
    pub fn in_memory(model: InMemory) -> Self {
        Self { place: Place::Memory(Arc::new(model)) }
    }

    /// What people call the model: the embedded name, `org/name` of a cache entry, the name of a GGUF file without its
    /// ending, else the folder's own name.
    pub fn name(&self) -> String {
        match &self.place {
            Place::Embedded { name, .. } => (*name).to_owned(),
            Place::Memory(model) => model.name.clone(),
            Place::Gguf(file) => {
                file.path().file_stem().map_or_else(|| "model".into(), OsStr::to_string_lossy).into_owned()
            }
            Place::Folder(folder) => {
                let full = folder.canonicalize().unwrap_or_else(|_| folder.clone());
                let cached = full.ancestors().nth(2).and_then(Path::file_name).and_then(cache_name);
                let own =
                    || full.file_name().map_or_else(|| "model".into(), OsStr::to_string_lossy).into_owned();
                cached.unwrap_or_else(own)
            }
        }
    }

    /// What stands for the file in messages; a GGUF file stands for all of its parts.
    pub fn path(&self, file: &str) -> PathBuf {
        match &self.place {
            Place::Gguf(gguf) => gguf.path().to_owned(),
            Place::Folder(folder) => folder.join(file),
            Place::Embedded { name, .. } => Path::new("(embedded)").join(name).join(file),
            Place::Memory(model) => Path::new("(memory)").join(&model.name).join(file),
        }
    }

    /// Whether the file exists. A GGUF file contains no other files.
    pub fn contains(&self, file: &str) -> bool {
        match &self.place {
            Place::Gguf(_) => false,
            Place::Folder(folder) => folder.join(file).is_file(),
            Place::Embedded { .. } | Place::Memory(_) => self.find(file).is_some(),
        }
    }

    /// The content of a text file.
    ///
    /// # Errors
    /// When it is missing, unreadable, or too large to be what it claims.
    pub fn read(&self, file: &str) -> Result<Cow<'_, [u8]>, ModelError> {
        let path = self.path(file);
        if !self.contains(file) {
            return Err(self.missing(file));
        }
        match self.find(file) {
            Some(bytes) => Ok(Cow::Borrowed(bytes)),
            None => read_bounded(path).map(Cow::Owned),
        }
    }

    /// The parsed content of a JSON file.
    ///
    /// # Errors
    /// As `read`, and when it does not parse.
    pub fn json(&self, file: &str) -> Result<Value, ModelError> {
        let bytes = self.read(file)?;
        serde_json::from_slice(&bytes).map_err(|source| ModelError::Json { path: self.path(file), source })
    }

    /// The GGUF file that the model is, if it is one.
    pub(crate) fn gguf(&self) -> Option<&Gguf> {
        match &self.place {
            Place::Gguf(file) => Some(file),
            _ => None,
        }
    }

    /// A safetensors file, mapped where it is on disk.
    ///
    /// # Errors
    /// When it is missing or its header does not hold.
    pub(crate) fn tensors(&self, file: &str) -> Result<SafeTensors, ModelError> {
        let path = self.path(file);
        let compiled_in = match &self.place {
            Place::Embedded { files, .. } => among(files, file),
            _ => None,
        };
        let opened = match compiled_in {
            Some(bytes) => SafeTensors::parse(&path, FileBytes::Static(bytes)),
            None => SafeTensors::open(&path),
        };
        Ok(opened?)
    }

    /// The tensors of a model that is in memory.
    pub(crate) fn held(&self) -> Option<&[Tensors]> {
        match &self.place {
            Place::Memory(model) => Some(&model.tensors),
            _ => None,
        }
    }

    /// The error for a file that every model needs.
    pub(crate) fn missing(&self, file: &str) -> ModelError {
        let unsafe_weights = ["pytorch_model.bin", "pytorch_model.bin.index.json"];
        let convert = unsafe_weights
            .iter()
            .find(|found| file.ends_with(".safetensors") && self.contains(found))
            .map(|found| format!("it has {found}: convert it to safetensors"));
        let folder = self.path("");
        let name_it = || Some(format!("it has {0}: give that file itself", gguf_in(&folder)?));
        ModelError::MissingFile { file: file.to_owned(), advice: convert.or_else(name_it), folder }
    }

    /// A digest of all files of an embedded model; `None` for others.
    pub(crate) fn embedded_digest(&self) -> Option<String> {
        let Place::Embedded { files, .. } = self.place else { return None };
        let digest = files.iter().fold(Sha256::new(), |digest, (_, bytes)| {
            digest.chain_update((bytes.len() as u64).to_le_bytes()).chain_update(bytes)
        });
        Some(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn find(&self, file: &str) -> Option<&[u8]> {
        match &self.place {
            Place::Folder(_) | Place::Gguf(_) => None,
            Place::Embedded { files, .. } => among(files, file),
            Place::Memory(model) => {
                model.files.iter().find(|(name, _)| name == file).map(|(_, bytes)| bytes.as_slice())
            }
        }
    }
}

fn among(files: &'static [(&'static str, &'static [u8])], file: &str) -> Option<&'static [u8]> {
    files.iter().find(|(name, _)| *name == file).map(|(_, bytes)| *bytes)
}

/// Whether `file` names a file directly inside a folder, and nothing above, below or beside it.
pub(crate) fn is_plain_name(file: &str) -> bool {
    let mut components = Path::new(file).components();
    let single = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    single && !file.contains(['/', '\\', '\0'])
}

fn read_bounded(path: PathBuf) -> Result<Vec<u8>, ModelError> {
    let io = |source| ModelError::Io { path: path.clone(), source };
    let file = File::open(&path).map_err(io)?;
    let found = file.metadata().map_err(io)?.len();
    if found > TEXT_LIMIT {
        return Err(ModelError::TooLarge { path, limit: TEXT_LIMIT, found });
    }
    let mut bytes = Vec::with_capacity(found as usize);
    file.take(TEXT_LIMIT).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

/// The folder below `snapshots` that a cache entry means.
fn snapshot(entry: &Path) -> Result<PathBuf, ModelError> {
    let all = entry.join("snapshots");
    let current = std::fs::read_to_string(entry.join("refs").join("main")).unwrap_or_default();
    let current = current.trim();
    if is_plain_name(current) && all.join(current).is_dir() {
        return Ok(all.join(current));
    }
    let listing = std::fs::read_dir(&all).map_err(|source| ModelError::Io { path: all.clone(), source })?;
    let folders = listing.filter_map(Result::ok).filter(|entry| entry.path().is_dir());
    let mut snapshots: Vec<String> =
        folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    snapshots.sort();
    match snapshots.as_slice() {
        [only] => Ok(all.join(only)),
        _ => Err(ModelError::Snapshots { path: entry.to_owned(), snapshots }),
    }
}

/// The first GGUF file of a folder, by name.
fn gguf_in(folder: &Path) -> Option<String> {
    let names =
        std::fs::read_dir(folder).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.ends_with(".gguf")).min()
}

/// `models--org--name` → `org/name`.
fn cache_name(folder: &OsStr) -> Option<String> {
    Some(folder.to_str()?.strip_prefix("models--")?.replace("--", "/"))
}

#[cfg(test)]
mod tests;
