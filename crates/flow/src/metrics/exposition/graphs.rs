//! Graphs on the page.

use std::fmt;

use super::Page;
use crate::graph::GraphStats;

pub(super) fn show(page: &mut Page<'_>, graphs: &[(&str, &GraphStats)]) -> fmt::Result {
    if graphs.is_empty() {
        return Ok(());
    }
    let mut counter = |name: &str, help: &str, value: fn(&GraphStats) -> u64| {
        page.counters(name, help, graphs.iter().map(|(graph, stats)| ([("graph", *graph)], value(stats))))
    };
    counter("flow_graph_runs", "Runs of nodes that were begun, by graph", |stats| stats.runs)?;
    let help = "Times that somebody joined a run instead of beginning one, by graph";
    counter("flow_graph_joined", help, |stats| stats.joined)?;
    counter("flow_graph_failures", "Runs that came to no result, by graph", |stats| stats.failures)?;
    counter("flow_graph_cancelled", "Runs that nobody waited for any more, by graph", |stats| {
        stats.cancelled
    })?;
    counter("flow_graph_memo_hits", "Values that were there when needed, by graph", |stats| stats.memo.hits)?;
    let help = "Values that had to be computed, by graph";
    counter("flow_graph_memo_misses", help, |stats| stats.memo.misses)?;
    let help = "Values that left to make room for others, by graph";
    counter("flow_graph_memo_evictions", help, |stats| stats.memo.evictions)?;
    let workers = graphs.iter().map(|(graph, stats)| ([("graph", *graph)], stats.workers as f64));
    page.gauges("flow_graph_workers", "Workers that run nodes, by graph", workers)?;
    let bytes = graphs.iter().map(|(graph, stats)| ([("graph", *graph)], stats.memo.bytes as f64));
    page.gauges("flow_graph_memo_bytes", "Bytes of values that are kept, by graph", bytes)
}
