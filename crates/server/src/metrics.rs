//! Every metric of the server: its name, its meaning and where its value comes from.
//!
//! What the engine counts is read from [`Inference::status`] at each scrape, so nothing is counted twice and a hung
//! engine cannot delay a scrape. The server itself counts HTTP only; what the system says of the process is read from
//! it as well.

mod models;
mod page;
mod vllm;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use flow::metrics::System;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use protocol::status::{self, Health, Phase, Status};
use protocol::{Inference, ModelCard, Relief};

use crate::failure::CLIENT_GONE;
use crate::quota::{Accounts, Totals};
use crate::settings::Aliases;
use page::{Page, to_prometheus};
use vllm::Vllm;

/// Upper bounds in seconds: from a refusal, which takes microseconds, to a long generation.
const HTTP_SECONDS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// The server's own counters and the registry that renders them beside the engine's.
pub(crate) struct Metrics {
    registry: Registry,
    /// The same under the names of another server.
    aliases: Option<Registry>,
    requests: Family<Outcome, Counter>,
    seconds: Family<Route, Histogram>,
    in_flight: Gauge,
    received_bytes: Counter,
    sent_bytes: Counter,
    fetches: Family<Fetch, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Fetch {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    route: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: &'static str,
}

impl Metrics {
    pub(crate) fn new(
        inference: Arc<dyn Inference>,
        accounts: Arc<Accounts>,
        aliases: Option<Aliases>,
    ) -> Self {
        let requests = Family::default();
        let seconds = Family::new_with_constructor((|| Histogram::new(HTTP_SECONDS)) as fn() -> Histogram);
        let (in_flight, received_bytes, sent_bytes) =
            (Gauge::default(), Counter::default(), Counter::default());
        let mut registry = Registry::with_prefix("tidegate");
        registry.register(
            "http_requests",
            "HTTP requests that have ended, by route and class of status; 499 is a client that went away",
            requests.clone(),
        );
        registry.register_with_unit(
            "http_request_duration",
            "Time from the head of a request to the last byte of its response",
            Unit::Seconds,
            seconds.clone(),
        );
        registry.register("http_requests_in_flight", "HTTP requests that have not ended", in_flight.clone());
        registry.register_with_unit(
            "http_request_body",
            "Request bodies, as far as they were read",
            Unit::Bytes,
            received_bytes.clone(),
        );
        registry.register_with_unit(
            "http_response_body",
            "Response bodies, as far as they were sent",
            Unit::Bytes,
            sent_bytes.clone(),
        );
        let fetches = Family::<Fetch, Counter>::default();
        fetches.get_or_create(&Fetch { outcome: "fetched" }).inc_by(0);
        registry.register(
            "image_fetches",
            "Images that were fetched for clients, by outcome; refused ones cost no connection",
            fetches.clone(),
        );
        let aliases = aliases.map(|Aliases::Vllm| {
            let mut aliases = Registry::default();
            aliases.register_collector(Box::new(Vllm(inference.clone())));
            aliases
        });
        registry.register_collector(Box::new(Engine(inference)));
        registry.register_collector(Box::new(Tenants(accounts)));
        registry.register_collector(Box::new(System::here()));
        Self { registry, aliases, requests, seconds, in_flight, received_bytes, sent_bytes, fetches }
    }

    pub(crate) fn begun(&self) {
        self.in_flight.inc();
    }

    pub(crate) fn in_flight(&self) -> usize {
        usize::try_from(self.in_flight.get()).unwrap_or(0)
    }

    pub(crate) fn ended(&self, route: &'static str, status: u16, took: Duration) {
        self.in_flight.dec();
        self.requests.get_or_create(&Outcome { route, status: class(status) }).inc();
        self.seconds.get_or_create(&Route { route }).observe(took.as_secs_f64());
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.received_bytes.inc_by(bytes as u64);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.sent_bytes.inc_by(bytes as u64);
    }

    /// A picture was fetched, or why it was not.
    pub(crate) fn fetched(&self, outcome: &'static str) {
        self.fetches.get_or_create(&Fetch { outcome }).inc();
    }

    /// Everything in the OpenMetrics text format.
    pub(crate) fn open_metrics(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        for registry in [&self.registry].into_iter().chain(&self.aliases) {
            encode_registry(&mut text, registry)?;
        }
        encode_eof(&mut text)?;
        Ok(text)
    }

    /// Everything in the older Prometheus text format.
    pub(crate) fn prometheus(&self) -> Result<String, fmt::Error> {
        Ok(to_prometheus(&self.open_metrics()?))
    }
}

fn class(status: u16) -> &'static str {
    match status {
        CLIENT_GONE => "499",
        100..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        _ => "5xx",
    }
}

/// What the engine says of itself to those who may not know everything: a model on its way in goes by the path that an
/// administrator gave, which is nobody else's business.
fn told(inference: &dyn Inference) -> Status {
    let mut status = inference.status();
    status.models.retain(|model| model.phase != Phase::Starting);
    status
}

/// The engine's side, read when asked.
struct Engine(Arc<dyn Inference>);

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Engine").finish_non_exhaustive()
    }
}

impl Collector for Engine {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (status, models) = (told(&*self.0), self.0.models());
        let mut page = Page::new(encoder);
        page.identity(&models)?;
        page.state(&status)?;
        page.load(&status.load)?;
        page.models(&status.models)?;
        page.devices(&status.devices)?;
        page.pid(&status.pid)?;
        page.pressure(&status.pressure)?;
        page.sleep(&status.sleep)?;
        page.weights(&status.weights)?;
        page.tier(&status.tier)?;
        page.reuse(&status.reuse)?;
        status.vision.iter().try_for_each(|vision| page.vision(vision))?;
        page.counters(&status.counters)?;
        page.latencies(&status.latency)?;
        page.figures(&status.figures)
    }
}

/// What tenants take, read when asked.
struct Tenants(Arc<Accounts>);

impl fmt::Debug for Tenants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tenants").finish_non_exhaustive()
    }
}

impl Collector for Tenants {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let tenants = self.0.totals();
        let mut page = Page::new(encoder);
        let tokens = tenants.iter().flat_map(|(tenant, totals)| {
            [("prompt", totals.read), ("generated", totals.written)]
                .map(|(kind, count)| ([("tenant", tenant.as_str()), ("kind", kind)], count))
        });
        let help = "Tokens of a tenant's requests that have ended, by whether they were read or written";
        page.counter_family("tenant_tokens", help, tokens)?;
        let limited = tenants.iter().flat_map(|(tenant, totals)| {
            let Totals { over_requests, over_tokens, over_at_once, .. } = *totals;
            [("requests", over_requests), ("tokens", over_tokens), ("concurrency", over_at_once)]
                .map(|(limit, count)| ([("tenant", tenant.as_str()), ("limit", limit)], count))
        });
        let help = "Requests that were turned away because their tenant had taken what it may, by limit";
        page.counter_family("tenant_requests_limited", help, limited)
    }
}

/// Share of the KV pages that is in use.
fn pages_used(load: &status::Load) -> f64 {
    load.kv_pages_used as f64 / load.kv_pages_total.max(1) as f64
}

impl<'a> Page<'_, 'a> {
    fn identity(&mut self, models: &'a [ModelCard]) -> fmt::Result {
        let built = [([("version", env!("CARGO_PKG_VERSION"))], 1)];
        self.gauge_family("build_info", "The release of the server that runs; always 1", built)?;
        let model = |ModelCard { id, family, dtype, .. }: &'a ModelCard| {
            ([("model_name", id.as_str()), ("family", family.as_str()), ("dtype", dtype.as_str())], 1)
        };
        self.gauge_family("model_info", "A model that can be asked for; always 1", models.iter().map(model))
    }

    fn state(&mut self, status: &Status) -> fmt::Result {
        let phases = [
            ("starting", Phase::Starting),
            ("ready", Phase::Ready),
            ("draining", Phase::Draining),
            ("stopped", Phase::Stopped),
        ];
        let phases = phases.map(|(name, phase)| ([("phase", name)], u64::from(status.phase == phase)));
        self.gauge_family("phase", "Where the engine is in its life: 1 for the phase it is in", phases)?;
        let states = [
            ("healthy", matches!(status.health, Health::Healthy)),
            ("degraded", matches!(status.health, Health::Degraded(_))),
            ("unhealthy", matches!(status.health, Health::Unhealthy(_))),
        ];
        let states = states.map(|(name, is)| ([("state", name)], u64::from(is)));
        self.gauge_family("health", "Whether work gets done: 1 for the state that holds", states)
    }

    fn load(&mut self, load: &status::Load) -> fmt::Result {
        self.gauge("requests_queued", "Requests that wait", load.queued as f64)?;
        self.gauge(
            "queue_oldest_age_seconds",
            "Age of the oldest waiting request",
            load.oldest_queued_seconds,
        )?;
        self.gauge("queue_capacity", "The most requests that may wait", load.queue_capacity as f64)?;
        self.gauge("sequences_running", "Sequences in the batch", load.running as f64)?;
        self.gauge("kv_pages_used", "KV pages in use", load.kv_pages_used as f64)?;
        let help = "KV pages that nobody uses and that keep what they hold until they are needed";
        self.gauge("kv_pages_cached", help, load.kv_pages_cached as f64)?;
        self.gauge("kv_pages", "KV pages in all", load.kv_pages_total as f64)?;
        self.gauge("kv_page_tokens", "Tokens that one KV page holds", load.kv_page_tokens as f64)?;
        self.gauge("kv_cache_usage_ratio", "Share of the KV pages that is in use", pages_used(load))
    }

    fn pressure(&mut self, pressure: &status::PressureStatus) -> fmt::Result {
        let status::PressureStatus { relief, used, stalled, threshold, raised } = *pressure;
        let help = "What is given up while memory is short: 1 for the last of it, in this order";
        let steps = Relief::ALL.map(|step| ([("given_up", step.name())], u64::from(step == relief)));
        self.gauge_family("memory_relief", help, steps)?;
        let help = "Share of the memory that is used, by whomever: of the machine's or the group's";
        self.gauge("memory_pressure_used_ratio", help, used)?;
        let help = "Share of the time in which work stood still for lack of memory";
        self.gauge("memory_pressure_stalled_ratio", help, stalled)?;
        let help = "Used share from which on something is given up; 0 where nobody looks";
        self.gauge("memory_pressure_threshold_ratio", help, threshold)?;
        let help = "How often something more was given up";
        self.counter("memory_relief_raised", help, raised)
    }

    fn sleep(&mut self, sleep: &status::SleepStatus) -> fmt::Result {
        let status::SleepStatus { asleep, idle, short, woken } = *sleep;
        let help = "Models that have given their memory back until they are asked for";
        self.gauge("models_asleep", help, asleep as f64)?;
        let help =
            "How often a model was put to sleep: nobody had asked for it for long, or memory was short";
        let causes = [("idle", idle), ("memory", short)].map(|(cause, count)| ([("cause", cause)], count));
        self.counter_family("models_put_to_sleep", help, causes)?;
        self.counter("models_woken", "How often a model that slept was loaded again", woken)
    }

    fn weights(&mut self, weights: &status::StreamedStatus) -> fmt::Result {
        let help =
            "Packed weights of the models whose weights are read whenever they are needed; 0 without such";
        self.gauge("weights_streamed_bytes", help, weights.bytes as f64)?;
        let help = "Memory for these weights";
        self.gauge("weights_streamed_limit_bytes", help, weights.limit_bytes as f64)?;
        let help = "Bytes of these weights that stay in memory";
        self.gauge("weights_streamed_held_bytes", help, weights.held_bytes as f64)?;
        self.counter("weights_read_bytes", "Bytes of weights that were read", weights.read_bytes)?;
        let help = "Time that steps waited for the weights that they needed next";
        self.counter("weights_wait_seconds", help, weights.waited_seconds)?;
        self.counter("weights_faults", "Reads of weights that failed", weights.faults)
    }

    fn tier(&mut self, tier: &status::TierStatus) -> fmt::Result {
        let status::TierPlace { pages, bytes, limit_bytes, written_bytes, read_bytes, faults } = tier.device;
        self.gauge("kv_device_pages", "KV pages in the memory of a device", pages as f64)?;
        self.gauge("kv_device_bytes", "Bytes that KV pages take of a device's memory", bytes as f64)?;
        let help = "Bytes that KV pages may take of a device's memory; 0 if none are kept there";
        self.gauge("kv_device_limit_bytes", help, limit_bytes as f64)?;
        self.counter("kv_device_written_bytes", "Bytes of KV pages copied to a device", written_bytes)?;
        self.counter("kv_device_read_bytes", "Bytes of KV pages copied from a device", read_bytes)?;
        let help = "Transfers of KV pages from and to a device that failed";
        self.counter("kv_device_faults", help, faults)?;
        self.gauge("kv_disk_pages", "KV pages on the disk", tier.disk.pages as f64)?;
        self.gauge("kv_disk_bytes", "Bytes that KV pages take on the disk", tier.disk.bytes as f64)?;
        let help = "Bytes that KV pages may take on the disk; 0 if none are kept there";
        self.gauge("kv_disk_limit_bytes", help, tier.disk.limit_bytes as f64)?;
        self.counter("kv_disk_pages_written", "KV pages given out of memory to be written", tier.written)?;
        let help = "KV pages that came back from the disk or a device, so that they were not computed";
        self.counter("kv_disk_pages_loaded", help, tier.loaded)?;
        let help = "KV pages found there and computed all the same, because that was faster";
        self.counter("kv_disk_pages_declined", help, tier.declined)?;
        let help = "Transfers of KV pages from and to the disk that failed";
        self.counter("kv_disk_faults", help, tier.disk.faults)
    }

    fn reuse(&mut self, reuse: &status::ReuseStatus) -> fmt::Result {
        let help = "Requests that joined the same request while it ran";
        self.counter("coalesced_requests", help, reuse.joined)?;
        let help = "Requests for which a kept answer was looked for";
        self.counter("result_cache_queries", help, reuse.asked)?;
        let help = "Requests that were answered from the same request's kept answer";
        self.counter("result_cache_hits", help, reuse.same)?;
        let help = "Requests that were answered from a similar request's kept answer, as they asked";
        self.counter("result_cache_similar_hits", help, reuse.similar)?;
        let help = "Memory that kept answers take";
        self.gauge("result_cache_bytes", help, reuse.kept_bytes as f64)?;
        let help = "Memory that kept answers may take; 0 while none are kept";
        self.gauge("result_cache_limit_bytes", help, reuse.kept_bytes_limit as f64)
    }

    fn vision(&mut self, vision: &'a status::VisionStatus) -> fmt::Result {
        self.gauge("images_preparing", "Images that are decoded, or wait for that", vision.preparing as f64)?;
        self.counter("images_prepared", "Images that were decoded and cut into patches", vision.prepared)?;
        let help = "Time that threads spent on decoding images";
        self.counter("image_prepare_seconds", help, vision.prepare_seconds)?;
        let help = "Images that could not be used, by what was wrong with them";
        self.counted("images_unusable", help, "reason", &vision.unusable)?;
        self.gauge(
            "vision_requests_waiting",
            "Requests that wait for the vision tower",
            vision.waiting as f64,
        )?;
        self.counter("images_encoded", "Images that the vision tower has read", vision.encoded)?;
        let help = "Patches that the vision tower has read";
        self.counter("image_patches_encoded", help, vision.encoded_patches)?;
        let help = "Time that the vision tower took";
        self.counter("vision_encode_seconds", help, vision.encode_seconds)?;
        let help = "Images that were looked up among those that were read before";
        self.counter("vision_cache_queries", help, vision.feature_queries)?;
        let help = "Images that need not be read again";
        self.counter("vision_cache_hits", help, vision.feature_hits)?;
        let help = "Memory that the features of images take";
        self.gauge("vision_cache_bytes", help, vision.feature_bytes as f64)
    }

    fn pid(&mut self, pid: &status::PidState) -> fmt::Result {
        let help = "Time between two tokens of a stream that steps aim at; 0 in throughput mode";
        self.gauge("pid_setpoint_seconds", help, pid.setpoint_seconds)?;
        let help = "Setpoint less measured time of the last step that the controller learned from";
        self.gauge("pid_error_seconds", help, pid.error_seconds)?;
        let help = "The most prompt tokens of a step while streams run";
        self.gauge("pid_output_tokens", help, pid.output_tokens as f64)
    }

    fn counters(&mut self, counters: &'a status::Counters) -> fmt::Result {
        self.counter("requests_accepted", "Requests accepted", counters.accepted)?;
        self.counted("requests_refused", "Requests refused, by reason", "reason", &counters.refused)?;
        let help = "Requests completed, by finish reason of their first choice";
        self.counted("requests_completed", help, "finish_reason", &counters.completed)?;
        self.counted("requests_failed", "Requests failed, by reason", "reason", &counters.failed)?;
        let help = "Requests cancelled, by the stage they were in";
        self.counted("requests_cancelled", help, "stage", &counters.cancelled)?;
        self.counter("prompt_tokens", "Prompt tokens computed", counters.prompt_tokens)?;
        self.counter("generated_tokens", "Tokens sampled", counters.generated_tokens)?;
        let help = "Tokens that were tried because the text had gone on with them before";
        self.counter("draft_tokens", help, counters.drafted)?;
        self.counter("draft_tokens_accepted", "Tried tokens that came true", counters.draft_hits)?;
        self.counter("engine_steps", "Engine steps", counters.steps)?;
        let help = "Models that did not come back from a step and were loaded again";
        self.counter("engine_restarts", help, counters.restarts)?;
        self.counter(
            "preemptions",
            "Sequences put back to the queue for lack of pages",
            counters.preemptions,
        )?;
        let help = "Prompt tokens that were looked up in the prefix cache";
        self.counter("prefix_cache_queries", help, counters.prefix_queries)?;
        let help = "Prompt tokens that the prefix cache held, so that they were not computed";
        self.counter("prefix_cache_hits", help, counters.prefix_hits)
    }

    fn latencies(&mut self, latency: &status::Latencies) -> fmt::Result {
        let first = "Time from admission to the first token";
        self.histogram("time_to_first_token_seconds", first, &latency.time_to_first_token)?;
        let between = "Time between two tokens of a sequence";
        self.histogram("inter_token_latency_seconds", between, &latency.inter_token)?;
        self.histogram("request_duration_seconds", "Time from admission to the end", &latency.request)?;
        let queued = "Time from admission to the first step that read the prompt";
        self.histogram("queue_duration_seconds", queued, &latency.queue)?;
        self.histogram("step_duration_seconds", "Duration of an engine step", &latency.step)?;
        self.histogram("step_tokens", "Tokens in an engine step", &latency.step_tokens)
    }
}

#[cfg(test)]
mod tests;
