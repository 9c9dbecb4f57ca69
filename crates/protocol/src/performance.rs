//! An engine's figures as one document, under the names that people who do not read Prometheus look for.

use serde::{Deserialize, Serialize};

use crate::Status;
use crate::status::{Counters, DeviceStatus, Latencies, ModelFigures};

/// How an engine has done since its start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Performance {
    /// How much is done in a time.
    pub throughput: Throughput,
    /// How long requests take, from admission to the end.
    pub latency: Latency,
    /// What of the machine is used.
    pub resource_usage: ResourceUsage,
    /// The steps of the engine.
    pub batch_stats: BatchStatistics,
    /// What need not be computed again.
    pub cache_stats: CacheStatistics,
    /// Each model by itself.
    #[serde(default)]
    pub models: Vec<ModelPerformance>,
    /// What they compute on.
    #[serde(default)]
    pub devices: Vec<DevicePerformance>,
}

/// How one model has done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelPerformance {
    /// The name that requests use.
    pub model: String,
    /// How much it does in a time.
    pub throughput: Throughput,
    /// How long its requests take.
    pub latency: Latency,
    /// Its steps or batches.
    pub batch_stats: BatchStatistics,
}

/// What is used of one device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DevicePerformance {
    /// Its name: `cpu0`.
    pub device: String,
    /// Share of the time since the start in which a model computed on it.
    pub utilization: f64,
    /// Memory in MB that the models on it plan with.
    pub memory_mb: f64,
    /// Requests that wait for it.
    pub queued: u64,
    /// Sequences or inputs that run on it.
    pub running: u64,
}

/// How much is done in a time, on average since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Throughput {
    /// Requests that were completed.
    pub requests_per_second: f64,
    /// Steps.
    pub batches_per_second: f64,
    /// Tokens in a step.
    pub average_batch_size: f64,
    /// Tokens that were read.
    pub prompt_tokens_per_second: f64,
    /// Tokens that were written.
    pub generated_tokens_per_second: f64,
}

/// Milliseconds; quantiles are as exact as the bounds of the histogram are near each other. 0 before there was any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The mean.
    pub mean_ms: f64,
    /// The median.
    pub p50_ms: f64,
    /// 95 of 100 take no longer.
    pub p95_ms: f64,
    /// 99 of 100 take no longer.
    pub p99_ms: f64,
}

/// What of the machine is used. What the machine lacks, or does not tell, is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ResourceUsage {
    /// Share of a GPU's time.
    pub gpu_utilization: Option<f64>,
    /// Memory of a GPU in MB.
    pub gpu_memory_mb: Option<f64>,
    /// Share of the processors' time since the start.
    pub cpu_utilization: Option<f64>,
    /// Memory of the process in MB.
    pub memory_mb: Option<f64>,
}

/// The steps of the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BatchStatistics {
    /// All of them.
    pub total_batches: u64,
    /// What a step takes.
    pub average_processing_time_ms: f64,
    /// Tokens in a step.
    pub average_batch_size: f64,
}

/// Prompt tokens that were looked up in the prefix cache and requests for which a kept answer was looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CacheStatistics {
    /// Share of the prompt tokens that the prefix cache held; 0 before any was looked up.
    pub hit_rate: f64,
    /// Prompt tokens that it held.
    pub total_hits: u64,
    /// Prompt tokens that it did not hold.
    pub total_misses: u64,
    /// Pages that are kept for whoever comes.
    pub cache_size: u64,
    /// Share of the requests that a kept answer was there for; 0 before any was looked for.
    pub result_hit_rate: f64,
    /// Answers that are kept.
    pub results: u64,
}

impl Performance {
    /// Makes the document of a snapshot that was taken `seconds` after the start.
    pub fn new(status: &Status, resource_usage: ResourceUsage, seconds: f64) -> Self {
        let Status { counters, latency, load, reuse, .. } = status;
        Self {
            throughput: Throughput::new(counters, latency, seconds),
            latency: Latency::new(latency),
            resource_usage,
            batch_stats: BatchStatistics::new(counters, latency),
            cache_stats: CacheStatistics {
                hit_rate: ratio(counters.prefix_hits as f64, counters.prefix_queries as f64),
                total_hits: counters.prefix_hits,
                total_misses: counters.prefix_queries.saturating_sub(counters.prefix_hits),
                cache_size: load.kv_pages_cached,
                result_hit_rate: ratio((reuse.same + reuse.similar) as f64, reuse.asked as f64),
                results: reuse.kept,
            },
            models: status.figures.iter().map(|figures| ModelPerformance::new(figures, seconds)).collect(),
            devices: status.devices.iter().map(|device| DevicePerformance::new(device, seconds)).collect(),
        }
    }
}

impl ModelPerformance {
    fn new(figures: &ModelFigures, seconds: f64) -> Self {
        let ModelFigures { id, counters, latency, .. } = figures;
        Self {
            model: id.clone(),
            throughput: Throughput::new(counters, latency, seconds),
            latency: Latency::new(latency),
            batch_stats: BatchStatistics::new(counters, latency),
        }
    }
}

impl DevicePerformance {
    fn new(device: &DeviceStatus, seconds: f64) -> Self {
        Self {
            device: device.name.clone(),
            utilization: ratio(device.busy_seconds, seconds).min(1.0),
            memory_mb: device.memory_bytes as f64 / 1e6,
            queued: device.queued,
            running: device.running,
        }
    }
}

impl Throughput {
    fn new(counters: &Counters, latency: &Latencies, seconds: f64) -> Self {
        let per_second = |count: u64| ratio(count as f64, seconds);
        Self {
            requests_per_second: per_second(counters.completed.iter().map(|(_, count)| count).sum()),
            batches_per_second: per_second(counters.steps),
            average_batch_size: latency.step_tokens.mean(),
            prompt_tokens_per_second: per_second(counters.prompt_tokens),
            generated_tokens_per_second: per_second(counters.generated_tokens),
        }
    }
}

impl Latency {
    fn new(latency: &Latencies) -> Self {
        let quantile = |share| 1e3 * latency.request.quantile(share).unwrap_or(0.0);
        Self {
            mean_ms: 1e3 * latency.request.mean(),
            p50_ms: quantile(0.5),
            p95_ms: quantile(0.95),
            p99_ms: quantile(0.99),
        }
    }
}

impl BatchStatistics {
    fn new(counters: &Counters, latency: &Latencies) -> Self {
        Self {
            total_batches: counters.steps,
            average_processing_time_ms: 1e3 * latency.step.mean(),
            average_batch_size: latency.step_tokens.mean(),
        }
    }
}

/// 0 where there is nothing to divide by.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Histogram;

    #[test]
    fn figures_are_what_the_counters_say() {
        let mut status = Status::default();
        status.counters.completed = vec![("stop".to_owned(), 30), ("length".to_owned(), 10)];
        (status.counters.steps, status.counters.generated_tokens) = (200, 1000);
        (status.counters.prefix_queries, status.counters.prefix_hits) = (400, 300);
        status.latency.step_tokens = Histogram { bounds: vec![8.0], counts: vec![200, 0], sum: 1600.0 };
        status.latency.step = Histogram { bounds: vec![0.1], counts: vec![200, 0], sum: 2.0 };
        let (counters, latency) = (status.counters.clone(), status.latency.clone());
        status.figures =
            vec![ModelFigures { id: "tide".to_owned(), counters, latency, ..Default::default() }];
        let device = DeviceStatus { busy_seconds: 5.0, memory_bytes: 2_000_000, ..Default::default() };
        status.devices = vec![device];
        let told = Performance::new(&status, ResourceUsage::default(), 20.0);
        assert_eq!((told.devices[0].utilization, told.devices[0].memory_mb), (0.25, 2.0));
        let model = &told.models[0];
        assert_eq!((model.throughput, model.batch_stats), (told.throughput, told.batch_stats));
        assert_eq!(told.throughput.requests_per_second, 2.0);
        assert_eq!(told.throughput.batches_per_second, 10.0);
        assert_eq!(told.throughput.generated_tokens_per_second, 50.0);
        assert_eq!(told.throughput.average_batch_size, 8.0);
        assert_eq!(told.batch_stats.average_processing_time_ms, 10.0);
        assert_eq!((told.cache_stats.hit_rate, told.cache_stats.total_misses), (0.75, 100));
        let idle = Performance::new(&Status::default(), ResourceUsage::default(), 0.0);
        assert_eq!(idle, Performance::default());
    }
}
