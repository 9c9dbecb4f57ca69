//! What an engine is told when it starts, and the memory that this costs.

use std::time::Duration;

use flow::queue::Rate;
use flow::queue::policy::PolicySettings;
use models::{LoadedModel, ModelShape, Pooling};
use protocol::status::MemoryPlan;
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
        let shape = loaded.model.shape();
        let streamed = loaded.streamed.as_ref().map(|streamed| streamed.statistics().budget);
        let mut plan = MemoryPlan {
            weights: streamed.unwrap_or(shape.weight_bytes) as u64,
            kv: (self.kv_pages(shape) * shape.kv.page_bytes()) as u64,
            kv_buffers: self.tier.as_ref().map_or(0, |tier| tier.statistics().host_budget) as u64,
            images: 0,
            workspace: (shape.workspace_bytes + shape.vocabulary * size_of::<f32>() * SAMPLER_ROWS) as u64,
        };
        if let Some(tower) = loaded.vision.as_ref().map(|vision| vision.tower.shape()) {
            // What is read whenever it is needed is the tower's too.
            plan.weights += if streamed.is_some() { 0 } else { tower.weight_bytes as u64 };
            plan.images = (self.vision.patch_bytes + self.vision.feature_bytes) as u64;
            plan.workspace += tower.workspace_bytes as u64;
        }
        plan
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
