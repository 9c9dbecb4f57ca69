//! What can go wrong when a model is loaded or its text is processed.

use std::path::PathBuf;

use crate::ModelKind;
use crate::cache::CacheError;

/// Says the file, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A tensor file is missing or broken, or memory was refused.
    #[error(transparent)]
    Tensor(#[from] tensor::TensorError),
    /// There is nowhere to read weights from that do not fit into their memory.
    #[error(
        "weights that are larger than their memory (--weight-memory) are read from the cache of packed weights, and there \
         is none: leave out --no-cache, or say where it may be with --cache-dir"
    )]
    NoCache,
    /// Packed weights cannot be kept, and have to be.
    #[error(
        "{0}; weights that are larger than their memory (--weight-memory) are read from there: --cache-dir chooses \
         another folder, --cache-size allows more"
    )]
    Unkept(#[source] Box<CacheError>),
    /// A model is quantised already, and shall be another way.
    #[error(
        "{} is quantised already ({found}): leave out --dtype, or give the original model",
        path.display()
    )]
    QuantisedAlready {
        /// The model.
        path: PathBuf,
        /// What it is.
        found: String,
    },
    /// There is something where a folder is to be written.
    #[error(
        "{} is there already{}",
        path.display(),
        if *is_model { "; --force replaces it" } else { " and is no model folder; give another name" }
    )]
    InTheWay {
        /// Which path.
        path: PathBuf,
        /// Whether it is a model folder.
        is_model: bool,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}; nothing was left behind", path.display())]
    Unwritable {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// It cannot be known how pictures become patches.
    #[error("{}: {source}", path.display())]
    Recipe {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: images::RecipeError,
    },
    /// The patches that are made of pictures are not those that the tower reads.
    #[error("{}: '{key}' is {found}, but config.json has {expected}", path.display())]
    Patches {
        /// The file.
        path: PathBuf,
        /// Which setting.
        key: &'static str,
        /// What the tower reads.
        expected: usize,
        /// What would be made.
        found: usize,
    },
    /// Whoever watched the loading asked it to stop.
    #[error("loading was stopped")]
    Stopped,
    /// Some other file of the folder is unreadable.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file is larger than any honest file of its kind.
    #[error("{} has {found} bytes, but at most {limit} were expected; it is not what its name says", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// The most bytes that are read.
        limit: u64,
        /// Its length.
        found: u64,
    },
    /// The folder lacks a file that every model needs.
    #[error(
        "{} has no {file}; a model folder needs config.json, tokenizer.json and model.safetensors (or \
         model.safetensors.index.json with all files it lists){}",
        folder.display(),
        advice.as_deref().map_or_else(String::new, |advice| format!("; {advice}"))
    )]
    MissingFile {
        /// Where it was looked for.
        folder: PathBuf,
        /// Which file.
        file: String,
        /// What to do, where the folder gives a hint.
        advice: Option<String>,
    },
    /// A path is no folder.
    #[error(
        "{} is not a folder; expected a model folder, a Hugging Face cache entry (models--…) or a .gguf file",
        path.display()
    )]
    NotAFolder {
        /// Which path.
        path: PathBuf,
    },
    /// A cache entry holds several snapshots and none is marked as current.
    #[error("{} holds {} snapshots and no refs/main; name one of them: {}", path.display(), snapshots.len(), snapshots.join(", "))]
    Snapshots {
        /// The cache entry.
        path: PathBuf,
        /// Names of the folders below `snapshots`.
        snapshots: Vec<String>,
    },
    /// A JSON file does not parse.
    #[error("{} is not valid JSON: {source}", path.display())]
    Json {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A value in a JSON file is missing, of the wrong type, or out of bounds.
    #[error("{}: '{key}': expected {expected}, found {found}", path.display())]
    Field {
        /// Which file.
        path: PathBuf,
        /// The key, with dots between levels.
        key: String,
        /// What would be right.
        expected: String,
        /// What is there.
        found: String,
    },
    /// No family reads this architecture.
    #[error("{}: {key} '{found}' is not supported; known are {}", path.display(), known.join(", "))]
    UnknownArchitecture {
        /// Which file.
        path: PathBuf,
        /// What the file calls it.
        key: &'static str,
        /// Its value.
        found: String,
        /// The values that are read.
        known: Vec<&'static str>,
    },
    /// The model is of another kind than the one asked for.
    #[error("{} is a model that {is}, not one that {asked}", path.display())]
    OtherKind {
        /// The file that says so.
        path: PathBuf,
        /// What the model does.
        is: ModelKind,
        /// What it was asked to do.
        asked: ModelKind,
    },
    /// The arithmetic type asked for is none that kernels exist for.
    #[error("weights can be held as f32 or bf16, not as {found}")]
    Dtype {
        /// The type asked for.
        found: tensor::Dtype,
    },
    /// A tensor that the architecture needs is nowhere.
    #[error("{} has no tensor '{name}'{}", path.display(), similar(.near))]
    MissingTensor {
        /// The file that lists the tensors.
        path: PathBuf,
        /// Which tensor.
        name: String,
        /// Names that exist and look most alike.
        near: Vec<String>,
    },
    /// A tensor has another shape than the settings imply.
    #[error("{}: tensor '{name}': {settings} implies the shape {expected:?}, found {found:?}", path.display())]
    TensorShape {
        /// The file that holds the tensor.
        path: PathBuf,
        /// Where the settings stand: `config.json`, `its metadata`.
        settings: &'static str,
        /// Which tensor.
        name: String,
        /// The shape that the settings imply.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor holds something else than numbers that are read.
    #[error("{}: tensor '{name}': expected one of {expected}, found {found}", path.display())]
    TensorDtype {
        /// The file that holds the tensor.
        path: PathBuf,
        /// The types that are read from such files.
        expected: String,
        /// Which tensor.
        name: String,
        /// The type as the file writes it.
        found: String,
    },
    /// An index names a file that could lie outside the folder.
    #[error("{}: expected the name of a file in the same folder, found '{found}'", path.display())]
    ShardName {
        /// The index.
        path: PathBuf,
        /// The name.
        found: String,
    },
    /// An index names a file that is not there.
    #[error("{} is missing, but {} lists it for tensor '{tensor}'; fetch the file or the whole folder again", shard.display(), path.display())]
    MissingShard {
        /// The index.
        path: PathBuf,
        /// The file that is missing.
        shard: PathBuf,
        /// A tensor that should be in it.
        tensor: String,
    },
    /// An index says that a tensor is in a file which has no such tensor.
    #[error("{} has no tensor '{tensor}', but {} says it has", shard.display(), path.display())]
    NotInShard {
        /// The index.
        path: PathBuf,
        /// The file that was looked into.
        shard: PathBuf,
        /// Which tensor.
        tensor: String,
    },
    /// What a file has of a tokenizer is not a byte-level BPE tokenizer.
    #[error("{}: {reason}", path.display())]
    Tokenizer {
        /// Which file.
        path: PathBuf,
        /// What was expected and what was found.
        reason: String,
    },
    /// The tokenizer knows ids that the model has no embedding for.
    #[error("{} has ids up to {largest}, but the model's vocabulary is {vocabulary}; tokenizer and weights belong to different models", path.display())]
    Vocabulary {
        /// The tokenizer's file.
        path: PathBuf,
        /// The tokenizer's largest id.
        largest: u32,
        /// The model's vocabulary.
        vocabulary: usize,
    },
    /// The tokenizer failed on a text.
    #[error("the text cannot be tokenised: {reason}")]
    Encode {
        /// What the tokenizer said.
        reason: String,
    },
    /// A chat template does not parse.
    #[error("{}: the chat template does not parse: {reason}", path.display())]
    Template {
        /// The file that holds the template.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// A chat template refused or failed on a conversation.
    #[error("the chat template refused the conversation: {reason}")]
    Render {
        /// What the template said.
        reason: String,
    },
}

fn similar(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; the most similar names are {}", near.join(", ")) }
}
