//! What the models of a process have in common, and how each of them gets its engines.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::trace::Recorder;
use engine::{
    DynamicSettings, EncoderEngine, Engine, EngineSettings, KvBudget, PidSettings, PrefixSharing, Replicas,
    Revive, Supply, VisionSettings,
};
use flow::metrics::System;
use models::cache::CacheError;
use models::{LoadOptions, LoadedEncoder, LoadedModel, Loading, ModelKind, PackedCache, Repository, Watch};
use protocol::status::MemoryPlan;
use protocol::{Inference, Refusal};
use tensor::{Isa, Kernels};

use super::Summary;
use super::devices::{self, Place};
use super::found::Found;
use super::room::{Fitting, Room};
use crate::OpenError;
use crate::kv_tier::{feature_tier, kv_tier};
use crate::settings::{BatchSettings, InferenceSettings, ModelChoice, Precision, Switch};

/// The share of available memory that keys and values may take where no size is set.
const KV_SHARE: u64 = 2;
/// The least memory for keys and values that is planned where no size is set, so that a machine that calls itself full
/// still answers: most of it is never touched, and so never taken.
const KV_LEAST: u64 = 64 << 20;

/// The most tokens that a step tries where speculation is on, beside those that it samples anyway.
const DRAFTS: usize = 16;

/// How a machine reads a model of one kind: with which kernels, and out of which cache.
type Read<M> =
    fn(&Machine, &Repository, (&Arc<dyn Kernels>, Option<&PackedCache>), &dyn Watch) -> Result<M, OpenError>;

/// How a model is given other kernels with the same weights, if it can be.
type Twin<M> = fn(&M, Arc<dyn Kernels>) -> Option<M>;

/// What the models of one process have in common.
pub(super) struct Machine {
    settings: InferenceSettings,
    pub(super) isa: Isa,
    /// Every model has a replica on each; at least one.
    places: Vec<Place>,
    /// Takes down what the first model that generates does: requests of several would not be told apart.
    recorder: Mutex<Option<Recorder>>,
    /// Where packed weights are kept between starts.
    cache: Option<PackedCache>,
    /// Memory for all of them together.
    room: Room,
}

impl Machine {
    pub(super) fn new(
        settings: &InferenceSettings,
        around: impl FnOnce(Arc<dyn Kernels>) -> Arc<dyn Kernels>,
    ) -> Result<Self, OpenError> {
        let isa = settings.compute.isa.unwrap_or_else(Isa::best).require()?;
        let memory = &settings.memory;
        let room = Room::new(memory.model_memory.map(|limit| limit.0));
        Ok(Self {
            isa,
            places: devices::places(&settings.compute, isa, around)?,
            recorder: Mutex::default(),
            cache: settings.cache.packed(),
            room: match memory.watermarks() {
                Some(marks) => room.within(System::here(), marks.hard),
                None => room,
            },
            settings: settings.clone(),
        })
    }

    /// The same, which takes down what its first model that generates does.
    pub(super) fn recorded(self, recorder: Option<Recorder>) -> Self {
        Self { recorder: Mutex::new(recorder), ..self }
    }

    /// Threads that compute, on all devices together.
    pub(super) fn threads(&self) -> usize {
        self.places.iter().map(|place| place.turns.device().threads).sum()
    }

    /// What it computes with, in words.
    pub(super) fn describe(&self) -> String {
        let first = self.places[0].kernels.describe();
        match &*self.places {
            [_] => first,
            several => {
                let cores = several.iter().map(|place| place.turns.device().cores.to_string());
                format!(
                    "{first} on each of {} devices ({})",
                    several.len(),
                    cores.collect::<Vec<_>>().join("; ")
                )
            }
        }
    }

    /// Loads one model and starts its engines.
    pub(super) fn open(
        self: &Arc<Self>,
        Found { repository, name, source }: Found,
        watch: &dyn Watch,
    ) -> Result<(Arc<dyn Inference>, Summary), OpenError> {
        let started = Instant::now();
        let (inference, memory) = match models::kind(&repository)? {
            ModelKind::CausalLm => self.generator(&repository, &name, watch)?,
            ModelKind::Encoder => self.encoder(&repository, &name, watch)?,
        };
        self.room.take(&name, memory, &inference)?;
        let summary = Summary {
            card: inference.models().swap_remove(0),
            source,
            compute: self.describe(),
            threads: self.threads(),
            memory,
            max_sequences: self.settings.batch.max_sequences.get(),
            max_batch_tokens: self.settings.batch.max_batch_tokens.get(),
            max_queue: self.settings.queue.max_queue.get(),
            took: started.elapsed(),
        };
        Ok((inference, summary))
    }

    /// Reads a model that generates text.
    pub(super) fn read(&self, repository: &Repository, watch: &dyn Watch) -> Result<LoadedModel, OpenError> {
        self.read_onto(repository, (&self.places[0].kernels, self.cache.as_ref()), watch)
    }

    fn read_onto(
        &self,
        repository: &Repository,
        (kernels, cache): (&Arc<dyn Kernels>, Option<&PackedCache>),
        watch: &dyn Watch,
    ) -> Result<LoadedModel, OpenError> {
        let loading = self.loading(cache, watch);
        Ok(models::load_with(repository, &self.options(), Arc::clone(kernels), loading)?)
    }

    /// Reads a model that reads texts and generates none.
    fn read_encoder_onto(
        &self,
        repository: &Repository,
        (kernels, cache): (&Arc<dyn Kernels>, Option<&PackedCache>),
        watch: &dyn Watch,
    ) -> Result<LoadedEncoder, OpenError> {
        let loading = self.loading(cache, watch);
        Ok(models::load_encoder_with(repository, &self.options(), Arc::clone(kernels), loading)?)
    }

    fn loading<'a>(&self, cache: Option<&'a PackedCache>, watch: &'a dyn Watch) -> Loading<'a> {
        let allowed = self.settings.memory.weight_memory;
        let weight_memory = allowed.map(|size| usize::try_from(size.0).unwrap_or(usize::MAX));
        Loading { watch, cache, weight_memory }
    }

    /// How a model is loaded again that does not come back: its compute threads may not come back either.
    fn revive<M: 'static>(self: &Arc<Self>, repository: &Repository, at: usize, read: Read<M>) -> Revive<M> {
        let (machine, repository) = (Arc::clone(self), repository.clone());
        Revive::new(move || {
            let kernels = machine.places[at].fresh(machine.isa);
            let loaded = read(&machine, &repository, (&kernels, machine.cache.as_ref()), &Patient);
            loaded.map_err(|error| error.to_string())
        })
    }

    /// A model for each place. Those near the same memory have their weights in common; others have their own, packed by
    /// their own threads, so that they are in the memory nearest to these.
    fn replicas<M>(
        &self,
        repository: &Repository,
        first: M,
        (twin, read): (Twin<M>, Read<M>),
    ) -> Result<Vec<M>, OpenError> {
        let mut models = vec![first];
        for (at, Place { kernels, node, .. }) in self.places.iter().enumerate().skip(1) {
            let near = self.places[..at].iter().position(|other| other.node == *node);
            let twin = near.and_then(|near| twin(&models[near], Arc::clone(kernels)));
            // What is read from the cache whenever it is needed is wherever the system puts it.
            let cache = self
                .cache
                .as_ref()
                .filter(|_| near.is_some() || self.settings.memory.weight_memory.is_some());
            let model = match twin {
                Some(twin) => twin,
                None => read(self, repository, (kernels, cache), &Patient)?,
            };
            models.push(model);
        }
        Ok(models)
    }

    fn generator(
        self: &Arc<Self>,
        repository: &Repository,
        name: &str,
        watch: &dyn Watch,
    ) -> Result<(Arc<dyn Inference>, MemoryPlan), OpenError> {
        let fitting = Fitting::new(&self.room, self.options().quantise, watch);
        let model = self.read(repository, &fitting).map_err(|error| fitting.explain(name, error))?;
        let mut whole = engine_settings(&self.settings, name.to_owned());
        whole.rate = self.settings.queue.rate_limit.map(|rate| rate.part(self.places.len()).into());
        if self.settings.memory.kv_memory.is_none() {
            whole.kv = self.room.keys_and_values(name, &whole, &model)?;
        }
        let part = part_of(whole, self.places.len());
        let mut below = self.settings.memory.clone();
        below.kv_disk.0 /= self.places.len() as u64;
        below.kv_device_memory.0 /= self.places.len() as u64;
        let mut sight = self.settings.vision.clone();
        sight.vision_disk.0 /= self.places.len() as u64;
        let models = self.replicas(repository, model, (LoadedModel::twin, Self::read_onto))?;
        let (mut engines, mut memory) = (Vec::<Arc<dyn Inference>>::new(), MemoryPlan::default());
        for (at, model) in models.into_iter().enumerate() {
            // What several write down would not be told apart.
            let recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner).take();
            let tier = kv_tier((&below, recorder.as_ref()), &model, (&folder(name, at), self.isa))?;
            let revive = Some(self.revive(repository, at, Self::read_onto));
            let features = feature_tier(&sight, &model, &folder(name, at))?;
            let mut settings = EngineSettings { recorder, tier, revive, ..part.clone() };
            settings.vision.below = features;
            let engine = Engine::start_beside(model, settings, &self.places[at].turns)?;
            memory += engine.memory();
            engines.push(engine);
        }
        Ok((together(engines), memory))
    }

    fn encoder(
        self: &Arc<Self>,
        repository: &Repository,
        name: &str,
        watch: &dyn Watch,
    ) -> Result<(Arc<dyn Inference>, MemoryPlan), OpenError> {
        let (queue, parts) = (&self.settings.queue, self.places.len());
        let settings = DynamicSettings {
            queue_requests: queue.max_queue.get().div_ceil(parts),
            queue_cost: queue.max_queue_tokens.get().div_ceil(parts) as u64,
            policy: queue.policy(),
            restart_after: restart_after(&self.settings.batch),
            ..DynamicSettings::default()
        };
        let first = (&self.places[0].kernels, self.cache.as_ref());
        let model = self.read_encoder_onto(repository, first, watch)?;
        let models = self.replicas(repository, model, (LoadedEncoder::twin, Self::read_encoder_onto))?;
        let (mut engines, mut memory) = (Vec::<Arc<dyn Inference>>::new(), MemoryPlan::default());
        for (at, (model, place)) in models.into_iter().zip(&self.places).enumerate() {
            let (name, settings) = (name.to_owned(), settings.clone());
            let revive = Some(self.revive(repository, at, Self::read_encoder_onto));
            let engine = EncoderEngine::start(model, name, settings, &place.turns, revive)?;
            memory += engine.memory();
            engines.push(engine);
        }
        Ok((together(engines), memory))
    }

    fn options(&self) -> LoadOptions {
        LoadOptions {
            dtype: self.settings.model.dtype.map(Precision::activations),
            quantise: self.settings.model.dtype.and_then(Precision::quantisation),
            kv: self.settings.model.kv_dtype.map(Into::into),
            max_batch_tokens: self.settings.batch.max_batch_tokens.get(),
            max_outputs: self.settings.batch.max_sequences.get() + drafts(&self.settings.batch),
        }
    }
}

/// One engine as it is, several as one.
fn together(mut engines: Vec<Arc<dyn Inference>>) -> Arc<dyn Inference> {
    match engines.len() {
        1 => engines.remove(0),
        _ => Arc::new(Replicas::new(engines)),
    }
}

/// The name under which a replica keeps what it keeps.
fn folder(name: &str, at: usize) -> String {
    if at == 0 { name.to_owned() } else { format!("{name}.{at}") }
}

/// Models that are loaded while others serve.
pub(super) struct Stock(pub(super) Arc<Machine>);

impl Supply for Stock {
    fn open(&self, model: &str) -> Result<Arc<dyn Inference>, Refusal> {
        let Ok(choice) = model.parse::<ModelChoice>();
        let opened = Found::of(Some(&choice), None).and_then(|found| self.0.open(found, &Patient));
        opened.map(|(inference, _)| inference).map_err(|error| Refusal::InvalidParameter {
            param: "model".to_owned(),
            message: error.to_string(),
        })
    }

    fn has_room(&self, memory: &MemoryPlan) -> bool {
        self.0.room.fits(memory)
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
        pooling: settings.model.pooling.into(),
        vision: settings.vision.vision(),
        form_timeout: settings.batch.form_timeout.0,
        max_context: settings.model.context.map(|context| context as usize),
        restart_after: restart_after(&settings.batch),
        ..EngineSettings::default()
    }
}

/// What each of so many replicas has of what a model has.
fn part_of(whole: EngineSettings, parts: usize) -> EngineSettings {
    let share = |amount: usize| amount.div_ceil(parts);
    let kv = match whole.kv {
        KvBudget::Bytes(bytes) => KvBudget::Bytes(bytes / parts),
        KvBudget::Pages(pages) => KvBudget::Pages(pages / parts),
    };
    let vision = VisionSettings {
        patch_bytes: share(whole.vision.patch_bytes),
        feature_bytes: share(whole.vision.feature_bytes),
        ..whole.vision
    };
    EngineSettings {
        kv,
        vision,
        queue_requests: share(whole.queue_requests),
        queue_tokens: share(whole.queue_tokens),
        queue_bytes: share(whole.queue_bytes),
        ..whole
    }
}

/// After so long a model does not come back; none where it is waited for without end.
fn restart_after(batch: &BatchSettings) -> Option<Duration> {
    Some(batch.restart_after.0).filter(|after| !after.is_zero())
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
