//! From settings to a running engine.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use engine::{Engine, EngineSettings, KvBudget, MemoryPlan};
use flow::metrics::System;
use models::{LoadOptions, LoadedModel, Repository};
use protocol::{Inference, ModelCard};
use tensor::gguf::MAGIC;
use tensor::{Isa, Kernels};

use crate::settings::{InferenceSettings, Precision};
use crate::{OpenError, embedded};

/// The share of available memory that keys and values may take where no size is set.
const KV_SHARE: u64 = 2;
/// The least memory for keys and values that is planned where no size is set, so that a machine that calls itself full
/// still answers: most of it is never touched, and so never taken.
const KV_LEAST: u64 = 64 << 20;

/// From how much likeness on (0 to 1, by Jaro and Winkler) a name is taken for a slip of another one.
const LEAST_ALIKE: f64 = 0.85;

/// A running engine and what it was built from.
pub struct Opened {
    /// Takes requests. Dropping the last handle stops the engine.
    pub inference: Arc<dyn Inference>,
    /// What was built.
    pub summary: Summary,
}

/// What was built from the settings.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The model as requests see it.
    pub card: ModelCard,
    /// The folder or file that the model came from; `None` is the embedded one.
    pub source: Option<PathBuf>,
    /// Instruction set and threads: `avx512bf16, 2 threads`.
    pub compute: String,
    /// Threads that compute.
    pub threads: usize,
    /// Bytes that the engine plans with.
    pub memory: MemoryPlan,
    /// Most sequences that run at once.
    pub max_sequences: usize,
    /// Most tokens of one step.
    pub max_batch_tokens: usize,
    /// Most requests that wait.
    pub max_queue: usize,
    /// From the call to readiness.
    pub took: Duration,
}

/// Loads the model that the settings name, or the embedded one, and starts an engine on it.
///
/// # Errors
/// When the model's files are wrong, the instruction set does not run here, or the engine cannot start.
pub fn open(settings: &InferenceSettings) -> Result<Opened, OpenError> {
    let started = Instant::now();
    let Loaded { model, name, compute, threads, .. } = load(settings, |kernels| kernels)?;
    let engine = Engine::start(model, engine_settings(settings, name))?;
    let memory = engine.memory();
    let inference: Arc<dyn Inference> = engine;
    let summary = Summary {
        card: inference.models().swap_remove(0),
        source: settings.model.model.clone(),
        compute,
        threads,
        memory,
        max_sequences: settings.batch.max_sequences.get(),
        max_batch_tokens: settings.batch.max_batch_tokens.get(),
        max_queue: settings.queue.max_queue.get(),
        took: started.elapsed(),
    };
    Ok(Opened { inference, summary })
}

/// A model without an engine.
pub struct Loaded {
    /// The model, its tokenizer and its defaults.
    pub model: LoadedModel,
    /// The name under which requests would ask for it.
    pub name: String,
    /// Instruction set and threads: `avx512bf16, 2 threads`.
    pub compute: String,
    /// Threads that compute.
    pub threads: usize,
    /// The instruction set.
    pub isa: Isa,
}

/// Loads the model that the settings name, or the embedded one, on the kernels that `around` makes of those that the
/// settings name.
///
/// # Errors
/// When the model's files are wrong, or the instruction set does not run here.
pub fn load(
    settings: &InferenceSettings,
    around: impl FnOnce(Arc<dyn Kernels>) -> Arc<dyn Kernels>,
) -> Result<Loaded, OpenError> {
    let repository = repository(settings.model.model.as_deref())?;
    let isa = settings.compute.isa.unwrap_or_else(Isa::best).require()?;
    let processors = || available_parallelism().map_or(1, usize::from);
    let threads = settings.compute.threads.map_or_else(processors, usize::from);
    let kernels = around(tensor::kernels(isa, threads));
    let compute = kernels.describe();
    let options = LoadOptions {
        dtype: settings.model.dtype.map(Precision::activations),
        quantise: settings.model.dtype.and_then(Precision::quantisation),
        max_batch_tokens: settings.batch.max_batch_tokens.get(),
        max_outputs: settings.batch.max_sequences.get(),
    };
    let model = models::load(&repository, &options, kernels)?;
    let name = settings.model.model_name.clone().unwrap_or_else(|| repository.name());
    Ok(Loaded { model, name, compute, threads, isa })
}

fn repository(model: Option<&Path>) -> Result<Repository, OpenError> {
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

fn engine_settings(settings: &InferenceSettings, name: String) -> EngineSettings {
    let kv = settings.memory.kv_memory.map_or_else(automatic_kv, |size| size.0);
    EngineSettings {
        name,
        max_batch_tokens: settings.batch.max_batch_tokens.get(),
        max_sequences: settings.batch.max_sequences.get(),
        queue_requests: settings.queue.max_queue.get(),
        queue_tokens: settings.queue.max_queue_tokens.get(),
        rate: settings.queue.rate_limit.map(Into::into),
        tenant_rate: settings.queue.tenant_rate_limit.map(Into::into),
        policy: settings.queue.policy(),
        kv: KvBudget::Bytes(usize::try_from(kv).unwrap_or(usize::MAX)),
        max_context: settings.model.context.map(|context| context as usize),
        ..EngineSettings::default()
    }
}

/// The engine takes no more of it than its sequences can fill.
fn automatic_kv() -> u64 {
    System::here().memory().room().map_or(1 << 30, |available| (available / KV_SHARE).max(KV_LEAST))
}
