//! The names under which dashboards and autoscalers for vLLM look, with the labels that they filter by, for each model.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use protocol::Inference;
use protocol::status::{Histogram, ModelFigures, ModelStatus};

use super::page::{Label, Page};
use super::{pages_used, told};

/// What the engine counts, under those names.
pub(super) struct Vllm(pub(super) Arc<dyn Inference>);

impl fmt::Debug for Vllm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Vllm").finish_non_exhaustive()
    }
}

/// The labels of a model: vLLM has one engine or more for it, which count by themselves there.
fn labels(id: &str) -> [Label<'_>; 2] {
    [("model_name", id), ("engine", "0")]
}

/// A name, which of our metrics it is, and its value of a model.
type Of<T> = (&'static str, &'static str, fn(&ModelFigures) -> T);

type Times = fn(&ModelFigures) -> &Histogram;

impl Collector for Vllm {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let status = told(&*self.0);
        let each = |count: fn(&ModelStatus) -> u64| {
            status.models.iter().map(move |model| (labels(&model.id), count(model)))
        };
        let mut page = Page::new(encoder);
        let help = "tidegate_model_sequences_running";
        page.gauge_family("vllm:num_requests_running", help, each(|model| model.running))?;
        let help = "tidegate_model_requests_queued";
        page.gauge_family("vllm:num_requests_waiting", help, each(|model| model.queued))?;
        page.vllm_counters(&status.figures)?;
        page.vllm_times(&status.figures)
    }
}

impl<'a> Page<'_, 'a> {
    fn vllm_counters(&mut self, figures: &'a [ModelFigures]) -> fmt::Result {
        let used = figures.iter().map(|model| (labels(&model.id), pages_used(&model.load)));
        self.gauge_family("vllm:kv_cache_usage_perc", "tidegate_kv_cache_usage_ratio", used)?;
        let counters: [Of<u64>; 7] = [
            ("vllm:prefix_cache_queries", "tidegate_prefix_cache_queries_total", |model| {
                model.counters.prefix_queries
            }),
            ("vllm:prefix_cache_hits", "tidegate_prefix_cache_hits_total", |model| {
                model.counters.prefix_hits
            }),
            ("vllm:num_preemptions", "tidegate_preemptions_total", |model| model.counters.preemptions),
            ("vllm:prompt_tokens", "tidegate_model_prompt_tokens_total", |model| {
                model.counters.prompt_tokens
            }),
            ("vllm:generation_tokens", "tidegate_model_generated_tokens_total", |model| {
                model.counters.generated_tokens
            }),
            ("vllm:spec_decode_num_draft_tokens", "tidegate_draft_tokens_total", |model| {
                model.counters.drafted
            }),
            ("vllm:spec_decode_num_accepted_tokens", "tidegate_draft_tokens_accepted_total", |model| {
                model.counters.draft_hits
            }),
        ];
        for (name, help, count) in counters {
            let counts = figures.iter().map(|model| (labels(&model.id), count(model)));
            self.counter_family(name, help, counts)?;
        }
        let completed = figures.iter().flat_map(|model| {
            let [name, engine] = labels(&model.id);
            let reasons = model.counters.completed.iter();
            reasons.map(move |(reason, count)| ([name, engine, ("finished_reason", reason.as_str())], *count))
        });
        self.counter_family("vllm:request_success", "tidegate_model_requests_completed_total", completed)
    }

    fn vllm_times(&mut self, figures: &'a [ModelFigures]) -> fmt::Result {
        let times: [(&str, &str, Times); 5] = [
            ("vllm:time_to_first_token_seconds", "tidegate_model_time_to_first_token_seconds", |model| {
                &model.latency.time_to_first_token
            }),
            ("vllm:inter_token_latency_seconds", "tidegate_model_inter_token_latency_seconds", |model| {
                &model.latency.inter_token
            }),
            ("vllm:e2e_request_latency_seconds", "tidegate_model_request_duration_seconds", |model| {
                &model.latency.request
            }),
            ("vllm:request_queue_time_seconds", "tidegate_model_queue_duration_seconds", |model| {
                &model.latency.queue
            }),
            ("vllm:iteration_tokens_total", "tidegate_step_tokens", |model| &model.latency.step_tokens),
        ];
        for (name, help, values) in times {
            let values = figures.iter().map(|model| (labels(&model.id), values(model)));
            self.histogram_family(name, help, values)?;
        }
        Ok(())
    }
}
