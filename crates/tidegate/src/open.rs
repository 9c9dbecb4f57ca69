//! From settings to a running engine.

mod devices;
mod found;
mod machine;
mod room;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use engine::simulation::{CostModel, Job, Outcome, replay};
use engine::{EngineError, EngineSettings, Router};
use models::quantise::QuantisedFolder;
use models::{InMemory, LoadOptions, LoadedModel, Repository, Unwatched, Watch};
use protocol::status::MemoryPlan;
use protocol::{Inference, ModelCard};
use tensor::{Isa, Kernels};

use crate::settings::{InferenceSettings, ModelChoice};
use crate::{OpenError, embedded, trace_file};
pub(crate) use devices::groups;
use found::{Found, repository};
use machine::{Machine, Stock};

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
    /// Instruction set, threads and devices: `avx512bf16, 2 threads`.
    pub compute: String,
    /// Threads that compute, on all devices together.
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
    let machine = Arc::new(Machine::new(settings, |kernels| kernels)?.recorded(recorder));
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
    Ok(Loaded { model, name, compute: machine.describe(), threads: machine.threads(), isa: machine.isa })
}

/// Runs recorded requests again on an engine with these settings, in no time: nothing is computed.
///
/// # Errors
/// When a setting cannot work.
pub fn simulate(jobs: &[Job], cost: CostModel, settings: EngineSettings) -> Result<Outcome, OpenError> {
    // Only the vocabulary of the embedded model is of use here; its weights are small.
    let options = LoadOptions { dtype: None, quantise: None, kv: None, max_batch_tokens: 1, max_outputs: 1 };
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
