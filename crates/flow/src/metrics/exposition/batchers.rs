//! Batchers on the page.

use std::fmt;

use super::Page;
use crate::batcher::BatcherStats;

pub(super) fn show(page: &mut Page<'_>, batchers: &[(&str, &BatcherStats)]) -> fmt::Result {
    if batchers.is_empty() {
        return Ok(());
    }
    let waiting = batchers.iter().map(|(name, stats)| ([("batcher", *name)], stats.waiting as f64));
    page.gauges("flow_batcher_waiting", "Items that wait to leave, by batcher", waiting)?;
    let running = batchers.iter().map(|(name, stats)| ([("batcher", *name)], stats.running as f64));
    page.gauges("flow_batcher_running", "Batches under way, by batcher", running)?;
    let mut counter = |name: &str, help: &str, value: fn(&BatcherStats) -> u64| {
        page.counters(
            name,
            help,
            batchers.iter().map(|(batcher, stats)| ([("batcher", *batcher)], value(stats))),
        )
    };
    counter("flow_batcher_batches", "Batches served, by batcher", |stats| stats.batches)?;
    counter("flow_batcher_items", "Items that were given an outcome, by batcher", |stats| stats.items)?;
    counter("flow_batcher_failed", "Items whose outcome was a failure, by batcher", |stats| stats.errors)?;
    let help = "Batches that were taken apart because they failed, by batcher";
    counter("flow_batcher_bisected", help, |stats| stats.bisected)?;
    let waits = batchers.iter().map(|(name, stats)| ([("batcher", *name)], &stats.waits));
    page.histograms("flow_batcher_wait_seconds", "How long items waited until they left, by batcher", waits)?;
    let runs = batchers.iter().map(|(name, stats)| ([("batcher", *name)], &stats.runs));
    page.histograms("flow_batcher_batch_seconds", "How long batches took, by batcher", runs)
}
