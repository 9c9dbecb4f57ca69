//! How measurements, and what is watched beside them, appear on a page for Prometheus.

mod batchers;
mod graphs;
mod pipelines;
mod queues;
mod schedulers;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{HistogramSnapshot, Metrics, System};

/// Upper bounds in microseconds, from the length of a function call to that of a long job.
const BOUNDS: [u64; 26] = [
    1,
    2,
    5,
    10,
    25,
    50,
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    1_000_000_000,
];

/// The names that users gave are values of labels, so that any text is allowed.
impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let snapshot = self.snapshot();
        let mut page = Page::new(encoder);
        let tracks = || snapshot.tracks.iter().map(|(name, track)| ([("track", &**name)], track));
        let latencies = tracks().map(|(labels, track)| (labels, &track.latency));
        page.histograms("flow_track_duration_seconds", "Duration of tracked work, by track", latencies)?;
        let failed = tracks().map(|(labels, track)| (labels, track.failed));
        page.counters("flow_track_failed", "Tracked work that failed, by track", failed)?;
        let in_flight = tracks().map(|(labels, track)| (labels, track.in_flight as f64));
        page.gauges("flow_track_in_flight", "Tracked work that has not ended, by track", in_flight)?;
        let counters = snapshot.counters.iter().map(|(name, count)| ([("name", &**name)], *count));
        page.counters("flow_events", "What was counted, by name", counters)?;
        let gauges = snapshot.gauges.iter().map(|(name, level)| ([("name", &**name)], *level as f64));
        page.gauges("flow_level", "What rises and falls, by name", gauges)?;
        queues::show(&mut page, &listed(&snapshot.queues))?;
        pipelines::show(&mut page, &listed(&snapshot.pipelines))?;
        batchers::show(&mut page, &listed(&snapshot.batchers))?;
        graphs::show(&mut page, &listed(&snapshot.graphs))?;
        schedulers::show(&mut page, &listed(&snapshot.schedulers))
    }
}

fn listed<V>(things: &BTreeMap<Arc<str>, V>) -> Vec<(&str, &V)> {
    things.iter().map(|(name, value)| (&**name, value)).collect()
}

/// What the system does not say is left out.
impl Collector for System {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (process, memory) = (self.process(), self.memory());
        let bytes = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64);
        let mut page = Page::new(encoder);
        page.gauge("process_resident_memory_bytes", "Memory in use", bytes(process.resident_bytes))?;
        let help = "The most memory that was ever in use";
        page.gauge("process_peak_resident_memory_bytes", help, bytes(process.peak_resident_bytes))?;
        let cpu = process.user_time.zip(process.system_time).map(|(user, system)| user + system);
        page.counter("process_cpu_seconds", "Processor time used", cpu.map(|time| time.as_secs_f64()))?;
        page.gauge("process_threads", "Threads", process.threads.map(|threads| threads as f64))?;
        page.gauge(
            "process_open_fds",
            "Open file descriptors",
            process.open_files.map(|files| files as f64),
        )?;
        let help = "Memory that the process may have: the machine's, or what its control group allows";
        page.gauge("memory_capacity_bytes", help, bytes(memory.capacity()))?;
        let help = "Memory that can be taken without pushing anything out";
        page.gauge("memory_available_bytes", help, bytes(memory.room()))?;
        let help = "Share of the last ten seconds in which some work stood still for lack of memory";
        page.gauge("memory_stalled_ratio", help, memory.pressure.map(|stalls| stalls.some))
    }
}

/// The page being written.
struct Page<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl<'a> Page<'a> {
    fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self { encoder }
    }

    fn gauge(&mut self, name: &str, help: &str, value: Option<f64>) -> fmt::Result {
        let Some(value) = value else { return Ok(()) };
        let gauge = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(gauge)
    }

    fn counter(&mut self, name: &str, help: &str, value: Option<f64>) -> fmt::Result {
        let Some(value) = value else { return Ok(()) };
        let counter = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(counter)
    }

    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, count) in values {
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, level) in values {
            ConstGauge::new(level).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn histograms<'n, L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = (L, &'n HistogramSnapshot)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, values) in values {
            encode_histogram(family.encode_family(&labels)?, values)?;
        }
        Ok(())
    }
}

fn encode_histogram(mut encoder: MetricEncoder<'_>, values: &HistogramSnapshot) -> fmt::Result {
    let sum = values.sum().as_secs_f64();
    encoder.encode_histogram::<NoLabelSet>(sum, values.count(), &buckets(values), None)
}

/// Upper bounds in seconds and how many lie between each and the one before.
fn buckets(latency: &HistogramSnapshot) -> Vec<(f64, u64)> {
    let bounds = BOUNDS.map(Duration::from_micros);
    let upper = bounds.map(|bound| bound.as_secs_f64()).into_iter().chain([f64::INFINITY]);
    upper.zip(latency.counts_between(bounds)).collect()
}
