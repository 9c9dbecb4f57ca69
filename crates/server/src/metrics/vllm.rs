//! The names under which dashboards and autoscalers for vLLM look, with the labels that they filter by. What is not known
//! for each model by itself stands for all together under the name of the one that answers by default.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use protocol::Inference;
use protocol::status::{ModelStatus, Status};

use super::page::Page;
use super::{pages_used, told};

/// What the engine counts, under those names.
pub(super) struct Vllm(pub(super) Arc<dyn Inference>);

impl fmt::Debug for Vllm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Vllm").finish_non_exhaustive()
    }
}

impl Collector for Vllm {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (status, models) = (told(&*self.0), self.0.models());
        let name = models.first().map_or("", |card| card.id.as_str());
        let Status { load, counters, latency, .. } = &status;
        let each = |count: fn(&ModelStatus) -> u64| {
            let models = status.models.iter();
            models.map(move |model| ([("model_name", model.id.as_str()), ("engine", "0")], count(model)))
        };
        let mut page = Page::new(encoder);
        let help = "tidegate_model_sequences_running";
        page.gauge_family("vllm:num_requests_running", help, each(|model| model.running))?;
        let help = "tidegate_model_requests_queued";
        page.gauge_family("vllm:num_requests_waiting", help, each(|model| model.queued))?;
        let mut page = page.labelled(vec![("model_name", name), ("engine", "0")]);
        page.gauge("vllm:kv_cache_usage_perc", "tidegate_kv_cache_usage_ratio", pages_used(load))?;
        page.counter(
            "vllm:prefix_cache_queries",
            "tidegate_prefix_cache_queries_total",
            counters.prefix_queries,
        )?;
        page.counter("vllm:prefix_cache_hits", "tidegate_prefix_cache_hits_total", counters.prefix_hits)?;
        page.counter("vllm:num_preemptions", "tidegate_preemptions_total", counters.preemptions)?;
        page.counter("vllm:prompt_tokens", "tidegate_prompt_tokens_total", counters.prompt_tokens)?;
        page.counter("vllm:generation_tokens", "tidegate_generated_tokens_total", counters.generated_tokens)?;
        let help = "tidegate_requests_completed_total";
        page.counted("vllm:request_success", help, "finished_reason", &counters.completed)?;
        page.counter("vllm:spec_decode_num_draft_tokens", "tidegate_draft_tokens_total", counters.drafted)?;
        let help = "tidegate_draft_tokens_accepted_total";
        page.counter("vllm:spec_decode_num_accepted_tokens", help, counters.draft_hits)?;
        let (first, between) = ("vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds");
        page.histogram(first, "tidegate_time_to_first_token_seconds", &latency.time_to_first_token)?;
        page.histogram(between, "tidegate_inter_token_latency_seconds", &latency.inter_token)?;
        let help = "tidegate_request_duration_seconds";
        page.histogram("vllm:e2e_request_latency_seconds", help, &latency.request)?;
        page.histogram("vllm:request_queue_time_seconds", "tidegate_queue_duration_seconds", &latency.queue)?;
        page.histogram("vllm:iteration_tokens_total", "tidegate_step_tokens", &latency.step_tokens)
    }
}
