//! What is told of each model and of each device by itself. The sums stand beside it, under names without `model` or `device`.

use std::fmt;

use protocol::Phase;
use protocol::status::{self, DeviceStatus, Histogram, ModelFigures};

use super::page::{Label, Page};

/// The label of a model.
fn named(figures: &ModelFigures) -> Label<'_> {
    ("model_name", figures.id.as_str())
}

impl<'a> Page<'_, 'a> {
    pub(super) fn models(&mut self, models: &'a [status::ModelStatus]) -> fmt::Result {
        let each = |count: fn(&status::ModelStatus) -> u64| {
            models.iter().map(move |model| ([("model_name", model.id.as_str())], count(model)))
        };
        self.gauge_family(
            "model_requests_queued",
            "Requests that wait for a model",
            each(|model| model.queued),
        )?;
        let help = "Sequences or inputs of a model that run";
        self.gauge_family("model_sequences_running", help, each(|model| model.running))?;
        let help = "Whether a model takes requests";
        self.gauge_family("model_ready", help, each(|model| u64::from(model.phase == Phase::Ready)))?;
        let memory = models.iter().flat_map(|model| {
            let status::MemoryPlan { weights, kv, kv_buffers, images, workspace } = model.memory;
            let parts = [
                ("weights", weights),
                ("kv", kv),
                ("kv_buffers", kv_buffers),
                ("images", images),
                ("workspace", workspace),
            ];
            parts.map(|(part, bytes)| ([("model_name", model.id.as_str()), ("part", part)], bytes))
        });
        self.gauge_family("model_memory_bytes", "Memory that a model plans with", memory)
    }

    pub(super) fn devices(&mut self, devices: &'a [DeviceStatus]) -> fmt::Result {
        let each = |count: fn(&DeviceStatus) -> u64| {
            devices.iter().map(move |device| ([("device", device.name.as_str())], count(device)))
        };
        self.gauge_family(
            "device_threads",
            "Threads that compute on a device",
            each(|device| device.threads),
        )?;
        let help = "Models that have an engine on a device";
        self.gauge_family("device_models", help, each(|device| device.models))?;
        let help = "Requests that wait for a model on a device";
        self.gauge_family("device_requests_queued", help, each(|device| device.queued))?;
        let help = "Sequences or inputs that run on a device";
        self.gauge_family("device_sequences_running", help, each(|device| device.running))?;
        let help = "Memory that the models on a device plan with";
        self.gauge_family("device_memory_bytes", help, each(|device| device.memory_bytes))?;
        let busy = devices.iter().map(|device| ([("device", device.name.as_str())], device.busy_seconds));
        self.counter_family("device_busy_seconds", "Time in which a model computed on a device", busy)
    }

    /// The counters and distributions of each model.
    pub(super) fn figures(&mut self, figures: &'a [ModelFigures]) -> fmt::Result {
        let count = |count: fn(&ModelFigures) -> u64| {
            figures.iter().map(move |figures| ([named(figures)], count(figures)))
        };
        let help = "Requests that a model has accepted";
        self.counter_family("model_requests_accepted", help, count(|model| model.counters.accepted))?;
        let help = "Requests that a model has completed, by finish reason of their first choice";
        let completed = by_label(figures, "finish_reason", |model| &model.counters.completed);
        self.counter_family("model_requests_completed", help, completed)?;
        let help = "Requests of a model that failed, by reason";
        let failed = by_label(figures, "reason", |model| &model.counters.failed);
        self.counter_family("model_requests_failed", help, failed)?;
        let help = "Requests that a model has refused, by reason";
        let refused = by_label(figures, "reason", |model| &model.counters.refused);
        self.counter_family("model_requests_refused", help, refused)?;
        let help = "Prompt tokens that a model has computed";
        self.counter_family("model_prompt_tokens", help, count(|model| model.counters.prompt_tokens))?;
        let help = "Tokens that a model has sampled";
        self.counter_family("model_generated_tokens", help, count(|model| model.counters.generated_tokens))?;
        let help = "Steps or batches of a model";
        self.counter_family("model_steps", help, count(|model| model.counters.steps))?;
        let help = "How often a model did not come back from a step and was loaded again";
        self.counter_family("model_restarts", help, count(|model| model.counters.restarts))?;
        let times = |times: fn(&ModelFigures) -> &Histogram| {
            figures.iter().map(move |figures| ([named(figures)], times(figures)))
        };
        let help = "Time from admission to the first token, by model";
        let first = times(|model| &model.latency.time_to_first_token);
        self.histogram_family("model_time_to_first_token_seconds", help, first)?;
        let help = "Time between two tokens of a sequence, by model";
        let between = times(|model| &model.latency.inter_token);
        self.histogram_family("model_inter_token_latency_seconds", help, between)?;
        let help = "Time from admission to the end, by model";
        self.histogram_family("model_request_duration_seconds", help, times(|model| &model.latency.request))?;
        let help = "Time from admission to the first step that read the prompt, by model";
        self.histogram_family("model_queue_duration_seconds", help, times(|model| &model.latency.queue))?;
        let help = "Duration of a step or batch, by model";
        self.histogram_family("model_step_duration_seconds", help, times(|model| &model.latency.step))
    }
}

/// The counts of each model by a label of theirs.
pub(super) fn by_label<'a>(
    figures: &'a [ModelFigures],
    label: &'static str,
    counts: fn(&ModelFigures) -> &[(String, u64)],
) -> impl Iterator<Item = ([Label<'a>; 2], u64)> {
    figures.iter().flat_map(move |figures| {
        counts(figures).iter().map(move |(value, count)| ([named(figures), (label, value.as_str())], *count))
    })
}
