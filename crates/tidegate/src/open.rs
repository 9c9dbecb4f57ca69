//! From settings to a running engine.

mod room;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use engine::simulation::{CostModel, Job, Outcome, replay};
use engine::trace::Recorder;
use engine::{
    DynamicSettings, EncoderEngine, Engine, EngineError, EngineSettings, KvBudget, MemoryPlan, PidSettings,
    PrefixSharing, Revive, Router, Supply, Turns,
};
use flow::metrics::System;
use models::cache::CacheError;
use models::quantise::QuantisedFolder;
use models::{
    InMemory, LoadOptions, LoadedModel, Loading, ModelKind, PackedCache, Repository, Unwatched, Watch,
};
use protocol::{Inference, ModelCard, Refusal};
use tensor::gguf::MAGIC;
use tensor::{Isa, Kernels};

use crate::kv_tier::kv_tier;
use crate::settings::{BatchSettings, InferenceSettings, ModelChoice, Precision, Switch};
use crate::{OpenError, embedded, trace_file};
use room::{Fitting, Room};

/// The share of available memory that keys and values may take where no size is set.
const KV_SHARE: u64 = 2;
/// The least memory for keys and values that is planned where no size is set, so that a machine that calls itself full
/// still answers: most of it is never touched, and so never taken.
const KV_LEAST: u64 = 64 << 20;

/// The most tokens that a step tries where speculation is on, beside those that it samples anyway.
const DRAFTS: usize = 16;

/// From how much likeness on (0 to 1, by Jaro and Winkler) a name is taken for a slip of another one.
const LEAST_ALIKE: f64 = 0.85;

/// A running engine, or several behind one door, and what they were built from.
pub struct Opened {
    /// Takes requests, and loads and unloads models when told to. Dropping the last handle stops the engines.
    pub inference: Arc<dyn Inference>,
    /// What was built of the first model.
    pub summary: Summary,
    /// What was built of the others.
    pub beside: Vec<Summary>,
}

/// What was built from the settings.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The model as requests see it.
    pub card: ModelCard,
    /// Where the model came from.
    pub source: Source,
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

/// Where a model came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The program itself.
    Embedded,
    /// A folder or a file.
    Path(PathBuf),
    /// The memory of the program that opened it.
    Memory,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("embedded"),
            Self::Path(path) => path.display().fmt(f),
            Self::Memory => f.write_str("in memory"),
        }
    }
}

impl Summary {
    /// The choice by which the model can be loaded again under its name, if there is one.
    fn origin(&self) -> Option<String> {
        let path = match &self.source {
            Source::Embedded => "chat".into(),
            Source::Path(path) => path.clone(),
            Source::Memory => return None,
        };
        let choice = ModelChoice { name: Some(self.card.id.clone()), path };
        // A name with a slash would be read as part of the path.
        Some(choice.to_string()).filter(|written| written.parse() == Ok(choice))
    }
}

/// What the models of one process have in common.
struct Machine {
    settings: InferenceSettings,
    kernels: Arc<dyn Kernels>,
    isa: Isa,
    threads: usize,
    /// The models compute in turns on the same threads.
    turns: Turns,
    /// Takes down what the first model that generates does: requests of several would not be told apart.
    recorder: Mutex<Option<Recorder>>,
    /// Where packed weights are kept between starts.
    cache: Option<PackedCache>,
    /// Memory for all of them together.
    room: Room,
}

/// Loads the models that the settings name, or the embedded one, and starts an engine on each.
///
/// # Errors
/// When a model's files are wrong, two models have the same name, the instruction set does not run here, or an engine
/// cannot start.
pub fn open(settings: &InferenceSettings) -> Result<Opened, OpenError> {
    open_watched(settings, &Unwatched)
}

/// As [`open`]; `watch` hears how far the loading of each model is, and may stop it.
///
/// # Errors
/// As `open`, and [`models::ModelError::Stopped`].
pub fn open_watched(settings: &InferenceSettings, watch: &dyn Watch) -> Result<Opened, OpenError> {
    let chosen = &settings.model.model;
    let first = Found::of(chosen.first(), settings.model.model_name.as_deref())?;
    start(settings, first, chosen.get(1..).unwrap_or_default(), watch)
}

/// As [`open`] for a model that is in memory already; the models that the settings name, if any, are loaded beside it.
///
/// # Errors
/// As `open`.
pub fn open_in_memory(settings: &InferenceSettings, model: InMemory) -> Result<Opened, OpenError> {
    let repository = Repository::in_memory(model);
    let name = settings.model.model_name.clone().unwrap_or_else(|| repository.name());
    let first = Found { repository, name, source: Source::Memory };
    start(settings, first, &settings.model.model, &Unwatched)
}

/// Starts an engine on a model, and on those beside it.
fn start(
    settings: &InferenceSettings,
    first: Found,
    others: &[ModelChoice],
    watch: &dyn Watch,
) -> Result<Opened, OpenError> {
    let recorder = settings.batch.trace.as_deref().map(trace_file::recorder).transpose()?;
    let machine = Machine { recorder: Mutex::new(recorder), ..Machine::new(settings, |kernels| kernels)? };
    let machine = Arc::new(machine);
    let (first, summary) = machine.open(first, watch)?;
    let (mut members, mut beside) = (vec![(first, summary.origin())], Vec::<Summary>::new());
    for choice in others {
        let (member, next) = machine.open(Found::of(Some(choice), None)?, watch)?;
        if beside.iter().chain([&summary]).any(|other| other.card.id == next.card.id) {
            return Err(OpenError::SameName { name: next.card.id });
        }
        members.push((member, next.origin()));
        beside.push(next);
    }
    let inference = Arc::new(Router::with_supply(members, Arc::new(Stock(machine))));
    let idle = settings.memory.idle_unload.0;
    if !idle.is_zero() {
        inference.rest_after(idle).map_err(EngineError::Thread)?;
    }
    Ok(Opened { inference, summary, beside })
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

/// Loads the first model that the settings name, or the embedded one, on the kernels that `around` makes of those that
/// the settings name.
///
/// # Errors
/// When the model's files are wrong, it does not generate text, or the instruction set does not run here.
pub fn load(
    settings: &InferenceSettings,
    around: impl FnOnce(Arc<dyn Kernels>) -> Arc<dyn Kernels>,
) -> Result<Loaded, OpenError> {
    let machine = Machine::new(settings, around)?;
    let Found { repository, name, .. } =
        Found::of(settings.model.model.first(), settings.model.model_name.as_deref())?;
    let model = machine.read(&repository, &Unwatched)?;
    Ok(Loaded {
        model,
        name,
        compute: machine.kernels.describe(),
        threads: machine.threads,
        isa: machine.isa,
    })
}

/// The files of a model, and its name.
struct Found {
    repository: Repository,
    name: String,
    source: Source,
}

impl Found {
    /// What a choice means; `name` counts more than the name in it.
    fn of(choice: Option<&ModelChoice>, name: Option<&str>) -> Result<Self, OpenError> {
        let named = name.or(choice.and_then(|choice| choice.name.as_deref()));
        let path = choice.filter(|choice| !choice.is_embedded()).map(|choice| choice.path.clone());
        let repository = repository(path.as_deref())?;
        let source = path.map_or(Source::Embedded, Source::Path);
        let name = named.map_or_else(|| repository.name(), str::to_owned);
        Ok(Self { repository, name, source })
    }
}

impl Machine {
    fn new(
        settings: &InferenceSettings,
        around: impl FnOnce(Arc<dyn Kernels>) -> Arc<dyn Kernels>,
    ) -> Result<Self, OpenError> {
        let isa = settings.compute.isa.unwrap_or_else(Isa::best).require()?;
        let processors = || available_parallelism().map_or(1, usize::from);
        let threads = settings.compute.threads.map_or_else(processors, usize::from);
        Ok(Self {
            kernels: around(tensor::kernels(isa, threads)),
            isa,
            threads,
            turns: Turns::default(),
            recorder: Mutex::default(),
            cache: settings.cache.packed(),
            room: Room::new(settings.memory.model_memory.map(|limit| limit.0)),
            settings: settings.clone(),
        })
    }

    /// Loads one model and starts its engine.
    fn open(
        self: &Arc<Self>,
        Found { repository, name, source }: Found,
        watch: &dyn Watch,
    ) -> Result<(Arc<dyn Inference>, Summary), OpenError> {
        let started = Instant::now();
        let (inference, memory) = match models::kind(&repository)? {
            ModelKind::CausalLm => self.generator(&repository, &name, watch)?,
            ModelKind::Encoder => self.encoder(&repository, &name)?,
        };
        self.room.take(&name, memory, &inference)?;
        let summary = Summary {
            card: inference.models().swap_remove(0),
            source,
            compute: self.kernels.describe(),
            threads: self.threads,
            memory,
            max_sequences: self.settings.batch.max_sequences.get(),
            max_batch_tokens: self.settings.batch.max_batch_tokens.get(),
            max_queue: self.settings.queue.max_queue.get(),
            took: started.elapsed(),
        };
        Ok((inference, summary))
    }

    /// Reads a model that generates text.
    fn read(&self, repository: &Repository, watch: &dyn Watch) -> Result<LoadedModel, OpenError> {
        self.read_onto(repository, Arc::clone(&self.kernels), watch)
    }

    fn read_onto(
        &self,
        repository: &Repository,
        kernels: Arc<dyn Kernels>,
        watch: &dyn Watch,
    ) -> Result<LoadedModel, OpenError> {
        let allowed = self.settings.memory.weight_memory;
        let weight_memory = allowed.map(|size| usize::try_from(size.0).unwrap_or(usize::MAX));
        let loading = Loading { watch, cache: self.cache.as_ref(), weight_memory };
        Ok(models::load_with(repository, &self.options(), kernels, loading)?)
    }

    /// How a model is loaded again that does not come back: its compute threads may not come back either.
    fn revive(self: &Arc<Self>, repository: &Repository) -> Revive {
        let (machine, repository) = (Arc::clone(self), repository.clone());
        Revive::new(move || {
            let read = || {
                let kernels = tensor::kernels(machine.isa, machine.threads);
                machine.read_onto(&repository, kernels, &Patient)
            };
            read().map_err(|error: OpenError| error.to_string())
        })
    }

    fn generator(
        self: &Arc<Self>,
        repository: &Repository,
        name: &str,
        watch: &dyn Watch,
    ) -> Result<(Arc<dyn Inference>, MemoryPlan), OpenError> {
        let fitting = Fitting::new(&self.room, self.options().quantise, watch);
        let model = self.read(repository, &fitting).map_err(|error| fitting.explain(name, error))?;
        let recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner).take();
        let tier = kv_tier((&self.settings.memory, recorder.as_ref()), &model, (name, self.isa))?;
        let settings = engine_settings(&self.settings, name.to_owned());
        let revive = Some(self.revive(repository));
        let mut settings = EngineSettings { recorder, tier, revive, ..settings };
        if self.settings.memory.kv_memory.is_none() {
            settings.kv = self.room.keys_and_values(name, &settings, &model)?;
        }
        let engine = Engine::start_beside(model, settings, &self.turns)?;
        let memory = engine.memory();
        Ok((engine, memory))
    }

    fn encoder(
        &self,
        repository: &Repository,
        name: &str,
    ) -> Result<(Arc<dyn Inference>, MemoryPlan), OpenError> {
        let model = models::load_encoder(repository, &self.options(), Arc::clone(&self.kernels))?;
        let queue = &self.settings.queue;
        let settings = DynamicSettings {
            queue_requests: queue.max_queue.get(),
            queue_cost: queue.max_queue_tokens.get() as u64,
            policy: queue.policy(),
            ..DynamicSettings::default()
        };
        let engine = EncoderEngine::start(model, name.to_owned(), settings, &self.turns)?;
        let memory = engine.memory();
        Ok((engine, memory))
    }

    fn options(&self) -> LoadOptions {
        LoadOptions {
            dtype: self.settings.model.dtype.map(Precision::activations),
            quantise: self.settings.model.dtype.and_then(Precision::quantisation),
            max_batch_tokens: self.settings.batch.max_batch_tokens.get(),
            max_outputs: self.settings.batch.max_sequences.get() + drafts(&self.settings.batch),
        }
    }
}

/// Models that are loaded while others serve.
struct Stock(Arc<Machine>);

impl Supply for Stock {
    fn open(&self, model: &str) -> Result<Arc<dyn Inference>, Refusal> {
        let Ok(choice) = model.parse::<ModelChoice>();
        let opened = Found::of(Some(&choice), None).and_then(|found| self.0.open(found, &Patient));
        opened.map(|(inference, _)| inference).map_err(|error| Refusal::InvalidParameter {
            param: "model".to_owned(),
            message: error.to_string(),
        })
    }
}

/// Waits for a model with nobody at a terminal.
struct Patient;

impl Watch for Patient {
    fn packed(&self, _done: u64, _total: u64) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn cache_failed(&self, error: &CacheError) {
        tracing::warn!("{error}");
    }
}

/// Runs recorded requests again on an engine with these settings, in no time: nothing is computed.
///
/// # Errors
/// When a setting cannot work.
pub fn simulate(jobs: &[Job], cost: CostModel, settings: EngineSettings) -> Result<Outcome, OpenError> {
    // Only the vocabulary of the embedded model is of use here; its weights are small.
    let options = LoadOptions { dtype: None, quantise: None, max_batch_tokens: 1, max_outputs: 1 };
    let loaded = models::load(&embedded::TINY, &options, tensor::kernels(Isa::best(), 1))?;
    Ok(replay(jobs, cost, loaded, settings)?)
}

/// Writes the model of a folder with quantised matrices: a folder that [`open`] reads as it stands.
///
/// # Errors
/// When the model's files are wrong or quantised already, when the new folder cannot be written or may not replace what is
/// there, and when `watch` stops it.
pub fn quantise(model: &Path, folder: QuantisedFolder<'_>, watch: &dyn Watch) -> Result<(), OpenError> {
    let repository = repository(Some(model))?;
    // Nothing is computed but the quantising itself.
    let kernels = tensor::kernels(Isa::Scalar, 1);
    Ok(models::quantise::quantise(&repository, folder, kernels, watch)?)
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
    let models = settings.model.model.len().max(1) as u64;
    let kv = settings.memory.kv_memory.map_or_else(|| automatic_kv() / models, |size| size.0);
    EngineSettings {
        name,
        max_batch_tokens: settings.batch.max_batch_tokens.get(),
        max_sequences: settings.batch.max_sequences.get(),
        drafts: drafts(&settings.batch),
        queue_requests: settings.queue.max_queue.get(),
        queue_tokens: settings.queue.max_queue_tokens.get(),
        queue_bytes: usize::try_from(settings.queue.max_queue_bytes.0).unwrap_or(usize::MAX),
        rate: settings.queue.rate_limit.map(Into::into),
        policy: settings.queue.policy(),
        kv: KvBudget::Bytes(usize::try_from(kv).unwrap_or(usize::MAX)),
        pid: PidSettings { target: settings.batch.target_itl.0, gains: settings.batch.itl_gains.0 },
        prefix: match settings.memory.prefix_cache {
            Switch::On => PrefixSharing::Tenant,
            Switch::Off => PrefixSharing::Request,
        },
        vision: settings.vision.vision(),
        form_timeout: settings.batch.form_timeout.0,
        max_context: settings.model.context.map(|context| context as usize),
        restart_after: Some(settings.batch.restart_after.0).filter(|after| !after.is_zero()),
        ..EngineSettings::default()
    }
}

/// Tokens that a step may try.
fn drafts(batch: &BatchSettings) -> usize {
    match batch.speculation {
        Switch::On => DRAFTS,
        Switch::Off => 0,
    }
}

/// The engine takes no more of it than its sequences can fill.
fn automatic_kv() -> u64 {
    System::here().memory().room().map_or(1 << 30, |available| (available / KV_SHARE).max(KV_LEAST))
}
