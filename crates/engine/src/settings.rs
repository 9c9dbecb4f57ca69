//! What an engine is told when it starts, and the memory that this costs.

use std::fmt;
use std::time::Duration;

use flow::queue::Rate;
use flow::queue::policy::PolicySettings;
use models::vision::TowerShape;
use models::{LoadedModel, ModelShape, Pooling};
use protocol::status::MemoryStatus;
use tensor::PAGE_TOKENS;

use crate::pid::PidSettings;
use crate::tier::KvTier;
use crate::trace::Recorder;
use crate::vision::VisionSettings;
use crate::{EngineError, Revive};

/// How an engine works.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineSettings {
    /// The name that requests use for the model.
    pub name: String,
    /// Tokens of one step: the decoding sequences take one each, prompts share the rest. At least `max_sequences`, at
    /// most the [`models::LoadOptions::max_batch_tokens`] that the model was loaded with.
    pub max_batch_tokens: usize,
    /// Sequences that run at once.
    pub max_sequences: usize,
    /// Tokens of one step that may be tried because the text so far has gone on with them before; 0 tries none. Together
    /// with `max_sequences` at most the [`models::LoadOptions::max_outputs`] that the model was loaded with.
    pub drafts: usize,
    /// Requests that may wait, those whose prompt is being prepared included.
    pub queue_requests: usize,
    /// Prompt tokens that may wait. One request alone in the queue may exceed it.
    pub queue_tokens: usize,
    /// Bytes that the prompts of waiting requests may take, counted before they are read. One request alone may exceed it.
    pub queue_bytes: usize,
    /// How fast requests are accepted, all tenants together; `None` is without limit.
    pub rate: Option<Rate>,
    /// In which order waiting requests are served; its owners are the tenants, and a cost is counted in tokens.
    pub policy: PolicySettings,
    /// Memory for keys and values.
    pub kv: KvBudget,
    /// How long streams may wait for their next token while prompts are read.
    pub pid: PidSettings,
    /// Takes down what the engine does, to be replayed later.
    pub recorder: Option<Recorder>,
    /// Whether requests share the keys and values of equal beginnings.
    pub prefix: PrefixSharing,
    /// How hidden states become the vector of a text, where the model's files do not say.
    pub pooling: Pooling,
    /// How pictures are read, where the model sees.
    pub vision: VisionSettings,
    /// Where keys and values go that memory has no room for, and where those of an earlier run are.
    pub tier: Option<KvTier>,
    /// The longest prompt and output together; the model's positions and the KV memory limit it too.
    pub max_context: Option<usize>,
    /// A form of the output that is not compiled after so long is refused.
    pub form_timeout: Duration,
    /// With work to do and no step finished for so long, the engine calls itself unhealthy.
    pub stall_after: Duration,
    /// A model that has not come back from a step for so long is left behind and loaded again, if it is known how: far
    /// longer than a step can take. Nothing that waits or runs is lost; a request whose step does not end twice, alone,
    /// fails. `None` waits for ever.
    pub restart_after: Option<Duration>,
    /// How the model is loaded again.
    pub revive: Option<Revive<LoadedModel>>,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            max_batch_tokens: 512,
            max_sequences: 64,
            drafts: 0,
            queue_requests: 512,
            queue_tokens: 1 << 20,
            queue_bytes: 256 << 20,
            rate: None,
            policy: PolicySettings::default(),
            kv: KvBudget::Bytes(1 << 30),
            pid: PidSettings::default(),
            recorder: None,
            prefix: PrefixSharing::default(),
            pooling: Pooling::Last,
            vision: VisionSettings::default(),
            tier: None,
            max_context: None,
            form_timeout: Duration::from_secs(10),
            stall_after: Duration::from_secs(30),
            restart_after: Some(Duration::from_secs(600)),
            revive: None,
        }
    }
}

/// How much memory keys and values may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvBudget {
    /// At most so many bytes, and no more than `max_sequences` full contexts can use.
    Bytes(usize),
    /// Exactly so many pages of [`PAGE_TOKENS`] tokens.
    Pages(usize),
}

/// Who shares the keys and values of equal beginnings of prompts. They take no memory of their own: pages that nobody
/// needs keep what they hold until their memory is needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrefixSharing {
    /// The requests of a tenant.
    #[default]
    Tenant,
    /// The continuations of one request, and nobody else.
    Request,
}

impl EngineSettings {
    /// Refuses settings that cannot work for a model of this shape.
    pub(crate) fn check(&self, shape: ModelShape) -> Result<(), EngineError> {
        let wrong =
            |setting, expected: String, found: usize| Err(EngineError::Setting { setting, expected, found });
        if self.max_sequences == 0 {
            return wrong("max_sequences", "at least 1".to_owned(), 0);
        }
        if self.max_batch_tokens < self.max_sequences {
            let least = self.max_sequences;
            return wrong(
                "max_batch_tokens",
                format!("at least max_sequences ({least})"),
                self.max_batch_tokens,
            );
        }
        if self.queue_requests == 0 {
            return wrong("queue_requests", "at least 1".to_owned(), 0);
        }
        if self.kv_pages(shape) == 0 {
            let page = shape.kv.page_bytes();
            return wrong("kv", format!("room for at least one page ({page} bytes)"), self.kv_bytes());
        }
        match self.max_context {
            Some(context @ 0..=1) => wrong("max_context", "at least 2".to_owned(), context),
            _ => Ok(()),
        }
    }

    /// What an engine with these settings plans with for a model.
    pub fn plan(&self, loaded: &LoadedModel) -> MemoryPlan {
        let tower = loaded.vision.as_ref().map(|vision| vision.tower.shape());
        let plan = MemoryPlan::new(self, (loaded.model.shape(), tower));
        let allowed = loaded.streamed.as_ref().map(|streamed| streamed.statistics().budget);
        MemoryPlan { weights: allowed.unwrap_or(plan.weights), ..plan }
    }

    /// Pages of keys and values.
    pub(crate) fn kv_pages(&self, shape: ModelShape) -> usize {
        match self.kv {
            KvBudget::Pages(pages) => pages,
            KvBudget::Bytes(bytes) => {
                let longest = self.max_context.unwrap_or(usize::MAX).min(shape.max_positions);
                (bytes / shape.kv.page_bytes())
                    .min(longest.div_ceil(PAGE_TOKENS).saturating_mul(self.max_sequences))
            }
        }
    }

    /// Prompt and output together hold at most this many tokens.
    pub(crate) fn context(&self, shape: ModelShape) -> usize {
        let pages = self.kv_pages(shape).saturating_mul(PAGE_TOKENS);
        self.max_context.unwrap_or(usize::MAX).min(shape.max_positions).min(pages)
    }

    fn kv_bytes(&self) -> usize {
        match self.kv {
            KvBudget::Bytes(bytes) => bytes,
            KvBudget::Pages(pages) => pages,
        }
    }
}

/// Rows of the vocabulary's width that the sampler holds: a copy of the logits and the lists it ranks and filters.
const SAMPLER_ROWS: usize = 8;

/// The bytes that an engine plans with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Packed weights.
    pub weights: usize,
    /// Keys and values.
    pub kv: usize,
    /// Keys and values on their way to the disk and back.
    pub buffers: usize,
    /// Pictures that wait, and what was made of others, where the model sees.
    pub images: usize,
    /// Activations and logits of a full step, and the sampler's copies.
    pub workspace: usize,
}

impl MemoryPlan {
    /// The plan for a model of this shape.
    fn new(settings: &EngineSettings, (shape, tower): (ModelShape, Option<TowerShape>)) -> Self {
        let row = shape.vocabulary * size_of::<f32>();
        let vision = &settings.vision;
        let (seeing, images, sight) = tower.map_or((0, 0, 0), |tower| {
            let images = vision.patch_bytes + vision.feature_bytes;
            (tower.weight_bytes, images, tower.workspace_bytes)
        });
        let tier = settings.tier.as_ref();
        Self {
            weights: shape.weight_bytes + seeing,
            kv: settings.kv_pages(shape) * shape.kv.page_bytes(),
            buffers: tier.map_or(0, |tier| tier.statistics().host_budget),
            images,
            workspace: shape.workspace_bytes + row * SAMPLER_ROWS + sight,
        }
    }

    /// The plan of a model that keeps nothing between batches.
    pub(crate) fn without_kv(weights: usize, workspace: usize) -> Self {
        Self { weights, kv: 0, buffers: 0, images: 0, workspace }
    }

    /// That of two engines together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            weights: self.weights + other.weights,
            kv: self.kv + other.kv,
            buffers: self.buffers + other.buffers,
            images: self.images + other.images,
            workspace: self.workspace + other.workspace,
        }
    }

    /// All of it.
    pub fn total(&self) -> usize {
        self.weights + self.kv + self.buffers + self.images + self.workspace
    }

    /// As it is reported.
    pub fn status(&self) -> MemoryStatus {
        let Self { weights, kv, buffers, images, workspace } = *self;
        let [weights, kv, kv_buffers, images, workspace] =
            [weights, kv, buffers, images, workspace].map(|bytes| bytes as u64);
        MemoryStatus { weights, kv, kv_buffers, images, workspace }
    }
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
        write!(
            f,
            "weights {:.1} MiB + KV {:.1} MiB + workspace {:.1} MiB = {:.1} MiB",
            mib(self.weights),
            mib(self.kv + self.buffers),
            mib(self.workspace + self.images),
            mib(self.total())
        )
    }
}
