//! What can go wrong between settings and a running engine.

use std::path::PathBuf;

/// Why a model could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The path names a file of a format that is not read.
    #[error(
        "{} is a {format} file; Tidegate reads GGUF files and Hugging Face folders (config.json, tokenizer.json, \
         *.safetensors): give the folder of the original model",
        path.display()
    )]
    Format {
        /// Which path.
        path: PathBuf,
        /// What it holds.
        format: &'static str,
    },
    /// There is nothing at the path.
    #[error(
        "there is no {}{}; give a model folder, a Hugging Face cache entry (models--…) or a .gguf file",
        path.display(),
        near.as_deref().map_or_else(String::new, |near| format!(" (but there is {})", near.display()))
    )]
    Missing {
        /// Which path.
        path: PathBuf,
        /// What is beside it under a name much like it.
        near: Option<PathBuf>,
    },
    /// Two models would be asked for by the same name.
    #[error("two models are called '{name}'; give one of them a name of its own: --model NAME=PATH")]
    SameName {
        /// The name.
        name: String,
    },
    /// The model does not fit beside those that are there.
    #[error(
        "'{name}' needs {} MiB, and {} of the {} MiB for models are taken{}; unload one or allow more with --model-memory",
        needed >> 20, taken >> 20, limit >> 20, holders(.by)
    )]
    NoRoom {
        /// The model.
        name: String,
        /// Bytes that it needs at least.
        needed: u64,
        /// Bytes that the others have.
        taken: u64,
        /// Bytes for all of them.
        limit: u64,
        /// Who has how many.
        by: Vec<(String, u64)>,
    },
    /// The processors cannot be divided as they were to be.
    #[error(
        "--devices {asked} does not fit: {found}; give a number up to that of the processors, numa, or lists without \
         overlap, such as 0-3/4-7"
    )]
    Devices {
        /// What was asked for.
        asked: String,
        /// What there is.
        found: String,
    },
    /// The model's files are missing or wrong.
    #[error(transparent)]
    Model(#[from] models::ModelError),
    /// The instruction set does not run here.
    #[error(transparent)]
    Tensor(#[from] tensor::TensorError),
    /// The engine did not start.
    #[error(transparent)]
    Engine(#[from] engine::EngineError),
    /// The file for a trace cannot be made.
    #[error("cannot record a trace in {}: {source}; give --trace a file in a folder that can be written", path.display())]
    Trace {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The folder for keys and values cannot be used.
    #[error("cannot keep keys and values in {}: {source}; give --kv-dir a folder that this process alone writes to", path.display())]
    KvDir {
        /// Which folder.
        path: PathBuf,
        /// Why not.
        source: Box<memory::ladder::OpenError>,
    },
    /// A place for keys and values that could hold none.
    #[error(
        "{option} must be room for at least two pages of keys and values of this model ({least} bytes), got {found}"
    )]
    KvRoom {
        /// The option that bounds the place.
        option: &'static str,
        /// Bytes of two pages.
        least: usize,
        /// Bytes that it may take.
        found: usize,
    },
    /// The device for keys and values cannot be used.
    #[error("cannot keep keys and values on the device '{device}': {source}")]
    KvDevice {
        /// Which device.
        device: memory::devices::DeviceChoice,
        /// Why not.
        source: Box<memory::ladder::OpenError>,
    },
    /// The folder for features of pictures cannot be used.
    #[error("cannot keep features of images in {}: {source}; give --vision-dir a folder that this process alone writes to", path.display())]
    VisionDir {
        /// Which folder.
        path: PathBuf,
        /// Why not.
        source: Box<memory::ladder::OpenError>,
    },
    /// A file with API keys cannot be read.
    #[error("cannot read the API keys in {}: {source}", path.display())]
    KeysFile {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file with API keys was given and holds none, which would leave the server open to all.
    #[error("{} holds no API key; write one a line, with a name before it if you like", path.display())]
    NoKeys {
        /// Which file.
        path: PathBuf,
    },
    /// An API key is written wrongly.
    #[error("an API key from {place} cannot be used: {source}")]
    Key {
        /// Where it stands.
        place: String,
        /// What is wrong with it.
        source: server::KeyError,
    },
}

fn holders(taken: &[(String, u64)]) -> String {
    let each = taken.iter().map(|(name, bytes)| format!("{name}: {} MiB", bytes >> 20)).collect::<Vec<_>>();
    if each.is_empty() { String::new() } else { format!(" ({})", each.join(", ")) }
}
