//! Which files a choice of a model means.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use models::Repository;
use tensor::gguf::MAGIC;

use super::Source;
use crate::settings::ModelChoice;
use crate::{OpenError, embedded};

/// From how much likeness on (0 to 1, by Jaro and Winkler) a name is taken for a slip of another one.
const LEAST_ALIKE: f64 = 0.85;

/// The files of a model, and its name.
pub(super) struct Found {
    pub(super) repository: Repository,
    pub(super) name: String,
    pub(super) source: Source,
}

impl Found {
    /// What a choice means; `name` counts more than the name in it.
    pub(super) fn of(choice: Option<&ModelChoice>, name: Option<&str>) -> Result<Self, OpenError> {
        let named = name.or(choice.and_then(|choice| choice.name.as_deref()));
        let path = choice.filter(|choice| !choice.is_embedded()).map(|choice| choice.path.clone());
        let repository = repository(path.as_deref())?;
        let source = path.map_or(Source::Embedded, Source::Path);
        let name = named.map_or_else(|| repository.name(), str::to_owned);
        Ok(Self { repository, name, source })
    }
}

pub(super) fn repository(model: Option<&Path>) -> Result<Repository, OpenError> {
    let Some(path) = model else { return Ok(embedded::TINY) };
    match format(path) {
        Some(format) => Err(OpenError::Format { path: path.to_owned(), format }),
        None if path.exists() => Ok(Repository::open(path)?),
        None => Err(OpenError::Missing { path: path.to_owned(), near: nearest(path) }),
    }
}

/// What a single file holds, if it is one of the model formats that people have and that is not read.
fn format(path: &Path) -> Option<&'static str> {
    let mut magic = [0; 4];
    File::open(path).ok()?.read_exact(&mut magic).ok()?;
    match path.extension().and_then(|extension| extension.to_str()) {
        _ if magic == MAGIC => None,
        Some("safetensors") => Some("safetensors"),
        Some("json") => Some("JSON"),
        Some("bin" | "pt" | "pth") => Some("PyTorch"),
        Some("onnx") => Some("ONNX"),
        _ => None,
    }
}

/// The folder or GGUF file beside a path that is not there whose name is most like the one that was given.
fn nearest(path: &Path) -> Option<PathBuf> {
    let asked = path.file_name()?.to_str()?;
    let beside = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let entries = std::fs::read_dir(beside.unwrap_or(Path::new("."))).ok()?;
    let models = entries.filter_map(Result::ok).filter(|entry| {
        let path = entry.path();
        path.is_dir() || path.extension().is_some_and(|end| end == "gguf")
    });
    let names = models.filter_map(|entry| entry.file_name().into_string().ok());
    let (alike, name) =
        names.map(|name| (strsim::jaro_winkler(asked, &name), name)).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (alike >= LEAST_ALIKE).then(|| path.with_file_name(name))
}
