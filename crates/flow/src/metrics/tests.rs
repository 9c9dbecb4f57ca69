//! Tracks, counts and levels, and the page that shows them.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::time::advance;

use super::{Metrics, System};
use crate::batcher::{Batch, Batcher};
use crate::graph::Graph;
use crate::pipeline::Pipeline;
use crate::queue::{Capacity, Queue, Ticket};
use crate::work::Classed;

#[tokio::test(start_paused = true)]
async fn a_track_measures_from_start_to_drop() {
    let metrics = Metrics::new();
    for millis in [10, 20, 30] {
        let timing = metrics.track("embed");
        advance(Duration::from_millis(millis)).await;
        drop(timing);
    }
    let timing = metrics.tracked("embed").start();
    advance(Duration::from_millis(40)).await;
    timing.fail();
    let running = metrics.track("embed");
    let track = &metrics.snapshot().tracks["embed"];
    assert_eq!((track.latency.count(), track.failed, track.in_flight), (4, 1, 1));
    assert_eq!(
        (track.latency.sum(), track.latency.max()),
        (Duration::from_millis(100), Duration::from_millis(40))
    );
    drop(running);
    assert_eq!(metrics.snapshot().tracks["embed"].in_flight, 0);
}

#[test]
fn clones_share_counts_and_levels() {
    let metrics = Metrics::new();
    let other = metrics.clone();
    metrics.counter("documents").add(2);
    other.counter("documents").add(3);
    metrics.gauge("depth").set(7);
    other.gauge("depth").add(-2);
    let snapshot = metrics.snapshot();
    assert_eq!((snapshot.counters["documents"], snapshot.gauges["depth"]), (5, 5));
    assert_eq!((other.counter("documents").total(), other.gauge("depth").value()), (5, 5));
}

#[test]
fn a_set_that_is_off_records_nothing() {
    let metrics = Metrics::off();
    metrics.track("embed").fail();
    metrics.counter("documents").add(1);
    metrics.gauge("depth").set(1);
    assert_eq!(metrics.snapshot(), super::MetricsSnapshot::default());
}

fn page_of(collector: impl Collector) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(collector));
    let mut page = String::new();
    encode(&mut page, &registry).unwrap();
    page
}

/// The samples of a page by series, and the types by family.
fn parsed(page: &str) -> (BTreeMap<String, f64>, BTreeMap<String, String>) {
    let (mut samples, mut types) = (BTreeMap::new(), BTreeMap::new());
    for line in page.lines().filter(|line| *line != "# EOF") {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').unwrap();
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
        } else if !line.starts_with("# HELP ") {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
            assert!(samples.insert(series.to_owned(), value).is_none(), "{series} twice");
        }
    }
    (samples, types)
}

#[test]
fn the_page_parses_and_agrees_with_the_snapshot() {
    let metrics = Metrics::new();
    for (track, millis) in [("a", 1), ("a", 30), ("a", 2_000_000), ("b \"quoted\"\n", 5)] {
        let measured = super::named(&metrics.registry.as_ref().unwrap().tracks, track);
        measured.begun.add(1);
        measured.latency.record(Duration::from_millis(millis));
    }
    metrics.track("a").fail();
    metrics.counter("documents").add(4);
    metrics.gauge("depth").set(-3);
    let (samples, types) = parsed(&page_of(metrics.clone()));
    assert_eq!(types["flow_track_duration_seconds"], "histogram");
    assert_eq!(samples["flow_track_failed_total{track=\"a\"}"], 1.0);
    assert_eq!(samples["flow_events_total{name=\"documents\"}"], 4.0);
    assert_eq!(samples["flow_level{name=\"depth\"}"], -3.0);
    assert_eq!(samples["flow_track_in_flight{track=\"a\"}"], 0.0);
    assert_eq!(samples["flow_track_duration_seconds_count{track=\"b \\\"quoted\\\"\\n\"}"], 1.0);
    let count = samples["flow_track_duration_seconds_count{track=\"a\"}"];
    let mut buckets: Vec<(f64, f64)> = samples
        .iter()
        .filter_map(|(series, value)| {
            let labels = series.strip_prefix("flow_track_duration_seconds_bucket{")?;
            let bound = labels.contains("track=\"a\"").then(|| labels.split('"').nth(1))??;
            Some((bound.replace("+Inf", "inf").parse().unwrap(), *value))
        })
        .collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{buckets:?}");
    assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)));
    let up_to = |bound: f64| buckets.iter().find(|bucket| bucket.0 == bound).unwrap().1;
    assert_eq!((count, up_to(0.001), up_to(0.0005), up_to(0.05), up_to(1000.0)), (4.0, 2.0, 1.0, 3.0, 3.0));
}

#[tokio::test(start_paused = true)]
async fn what_is_watched_is_in_the_snapshot_and_on_the_page_by_its_name() {
    let metrics = Metrics::new();
    let orders = Queue::<u32>::new(Capacity::items(9));
    let refunds = Queue::new(Capacity::items(1));
    for _ in 0..2 {
        drop(refunds.try_put(1_u32, Ticket::default().cost(5)));
    }
    let pipeline =
        Pipeline::builder().stage("double", |x: u32| async move { Ok::<_, Classed>(2 * x) }).build();
    let batcher = Batcher::new(Batch::default(), |items: Vec<u32>| async move {
        Ok::<Vec<Result<u32, Classed>>, _>(items.into_iter().map(Ok).collect())
    });
    let graph = Graph::builder().build().unwrap();
    assert_eq!((pipeline.submit(2).await.unwrap(), batcher.submit(3).await.unwrap()), (4, 3));
    metrics.watch("orders", orders);
    metrics.watch("refunds", refunds);
    metrics.watch("double", pipeline);
    metrics.watch("embed", batcher);
    metrics.watch("plan", graph);
    let snapshot = metrics.snapshot();
    assert_eq!(snapshot.queues["refunds"].totals.rejected.items, 1);
    assert_eq!(snapshot.pipelines["double"].stage("double").unwrap().completed, 1);
    assert_eq!((snapshot.batchers["embed"].items, snapshot.graphs["plan"].runs), (1, 0));
    let (samples, types) = parsed(&page_of(metrics.clone()));
    for (series, value) in [
        ("flow_queue_depth{queue=\"orders\"}", 0.0),
        ("flow_queue_depth{queue=\"refunds\"}", 1.0),
        ("flow_queue_cost{queue=\"refunds\"}", 5.0),
        ("flow_queue_items_total{queue=\"refunds\",event=\"accepted\"}", 1.0),
        ("flow_queue_rejected_total{queue=\"refunds\",reason=\"items\"}", 1.0),
        ("flow_queue_wait_seconds_count{queue=\"orders\"}", 0.0),
        ("flow_pipeline_outcomes_total{pipeline=\"double\",outcome=\"completed\"}", 1.0),
        ("flow_stage_items_total{pipeline=\"double\",stage=\"double\",event=\"completed\"}", 1.0),
        ("flow_stage_duration_seconds_count{pipeline=\"double\",stage=\"double\"}", 1.0),
        ("flow_batcher_items_total{batcher=\"embed\"}", 1.0),
        ("flow_batcher_batch_seconds_count{batcher=\"embed\"}", 1.0),
        ("flow_graph_runs_total{graph=\"plan\"}", 0.0),
    ] {
        assert_eq!(samples.get(series), Some(&value), "{series}");
    }
    assert_eq!(types["flow_queue_wait_seconds"], "histogram");
    metrics.unwatch("refunds");
    metrics.watch("orders", Queue::<u8>::new(Capacity::items(9)));
    let queues: Vec<_> = metrics.snapshot().queues.into_keys().collect();
    assert_eq!(queues, ["orders".into()]);
}

#[test]
fn the_system_has_its_place_on_the_page() {
    let recorded = System::at(concat!(env!("CARGO_MANIFEST_DIR"), "/test_data/system/v1"));
    let (samples, types) = parsed(&page_of(recorded));
    assert_eq!(types["process_cpu_seconds"], "counter");
    let expected = [
        ("process_resident_memory_bytes", 1600.0 * 1024.0),
        ("process_peak_resident_memory_bytes", 4096.0 * 1024.0),
        ("process_cpu_seconds_total", 12.64),
        ("process_threads", 17.0),
        ("process_open_fds", 3.0),
        ("memory_capacity_bytes", 2e9),
        ("memory_available_bytes", 1.6e9),
        ("memory_stalled_ratio", 0.025),
    ];
    assert_eq!(samples, expected.map(|(name, value)| (name.to_owned(), value)).into());
    assert_eq!(parsed(&page_of(System::at("/nowhere"))).0, BTreeMap::new());
}
