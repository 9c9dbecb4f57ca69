//! How metrics are written: one description each, and its values with their labels.

use std::fmt;
use std::marker::PhantomData;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeMetric, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use protocol::status::Histogram;

/// A label and its value.
pub(super) type Label<'a> = (&'static str, &'a str);

/// The metrics being written.
pub(super) struct Page<'e, 'a> {
    encoder: DescriptorEncoder<'e>,
    labels: PhantomData<Label<'a>>,
}

impl<'e, 'a> Page<'e, 'a> {
    pub(super) fn new(encoder: DescriptorEncoder<'e>) -> Self {
        Self { encoder, labels: PhantomData }
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.family((name, help), MetricType::Gauge, [([], ConstGauge::new(value))])
    }

    pub(super) fn gauge_family<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = ([Label<'a>; N], impl EncodeGaugeValue)>,
    ) -> fmt::Result {
        let values = values.into_iter().map(|(labels, value)| (labels, ConstGauge::new(value)));
        self.family((name, help), MetricType::Gauge, values)
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: impl EncodeCounterValue) -> fmt::Result {
        self.family((name, help), MetricType::Counter, [([], ConstCounter::new(value))])
    }

    pub(super) fn counter_family<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = ([Label<'a>; N], impl EncodeCounterValue)>,
    ) -> fmt::Result {
        let values = values.into_iter().map(|(labels, count)| (labels, ConstCounter::new(count)));
        self.family((name, help), MetricType::Counter, values)
    }

    pub(super) fn counted(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: &'a [(String, u64)],
    ) -> fmt::Result {
        self.counter_family(
            name,
            help,
            values.iter().map(|(value, count)| ([(label, value.as_str())], *count)),
        )
    }

    pub(super) fn histogram_family<'h, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = ([Label<'a>; N], &'h Histogram)>,
    ) -> fmt::Result {
        let values = values.into_iter().map(|(labels, values)| (labels, Cumulative(values)));
        self.family((name, help), MetricType::Histogram, values)
    }

    pub(super) fn histogram(&mut self, name: &str, help: &str, values: &Histogram) -> fmt::Result {
        self.family((name, help), MetricType::Histogram, [([], Cumulative(values))])
    }

    fn family<const N: usize>(
        &mut self,
        (name, help): (&str, &str),
        kind: MetricType,
        values: impl IntoIterator<Item = ([Label<'a>; N], impl EncodeMetric)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in values {
            if labels.is_empty() {
                // What has no labels has one value.
                return value.encode(family);
            }
            value.encode(family.encode_family(&labels.as_slice())?)?;
        }
        Ok(())
    }
}

struct Cumulative<'a>(&'a Histogram);

impl EncodeMetric for Cumulative<'_> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let bounds = self.0.bounds.iter().copied().chain([f64::INFINITY]);
        let counts = self.0.counts.iter().copied().chain(std::iter::repeat(0));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        encoder.encode_histogram::<NoLabelSet>(self.0.sum, self.0.counts.iter().sum(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// OpenMetrics describes a counter without its suffix `_total` and an info without `_info`, which readers of the
/// older format would take for another metric that has no description.
pub(super) fn to_prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut lines = open_metrics.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) else {
            if !line.starts_with("# ") {
                text.push_str(line);
                text.push('\n');
            }
            continue;
        };
        let kind = lines.peek().and_then(|line| line.strip_prefix("# TYPE ")?.split(' ').nth(1));
        let (suffix, kind) = match kind {
            Some("counter") => ("_total", "counter"),
            Some("info") => ("_info", "gauge"),
            Some(kind) => ("", kind),
            None => ("", "untyped"),
        };
        text.push_str(&format!("# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n"));
    }
    text
}
