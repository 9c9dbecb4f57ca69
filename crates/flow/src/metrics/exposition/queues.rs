//! Queues on the page.

use std::fmt;

use super::Page;
use crate::queue::Stats;

pub(super) fn show(page: &mut Page<'_>, queues: &[(&str, &Stats)]) -> fmt::Result {
    if queues.is_empty() {
        return Ok(());
    }
    let mut gauge = |name: &str, help: &str, value: fn(&Stats) -> f64| {
        page.gauges(name, help, queues.iter().map(|(queue, stats)| ([("queue", *queue)], value(stats))))
    };
    gauge("flow_queue_depth", "Items that wait, by queue", |stats| stats.depth as f64)?;
    gauge("flow_queue_cost", "Sum of the costs of the items that wait, by queue", |stats| stats.cost as f64)?;
    gauge("flow_queue_bytes", "Sum of the bytes of the items that wait, by queue", |stats| {
        stats.bytes as f64
    })?;
    let help = "Age of the item that arrived first, by queue";
    gauge("flow_queue_oldest_age_seconds", help, |stats| stats.oldest.unwrap_or_default().as_secs_f64())?;
    let help = "Items that are out and not acknowledged, by queue";
    gauge("flow_queue_in_flight", help, |stats| stats.in_flight as f64)?;
    let help = "Items among the dead letters, by queue";
    gauge("flow_queue_dead_letters", help, |stats| stats.dead_letters as f64)?;
    let help = "Items that leave per second while there are any, by queue";
    gauge("flow_queue_drain_rate", help, |stats| stats.per_second.unwrap_or_default())?;
    let events = queues.iter().flat_map(|(queue, stats)| {
        events(stats).map(|(event, count)| ([("queue", *queue), ("event", event)], count))
    });
    page.counters("flow_queue_items", "Items, by queue and by what happened to them", events)?;
    let rejected = queues.iter().flat_map(|(queue, stats)| {
        reasons(stats).map(|(reason, count)| ([("queue", *queue), ("reason", reason)], count))
    });
    page.counters("flow_queue_rejected", "Items that were not accepted, by queue and reason", rejected)?;
    let waits = queues.iter().map(|(queue, stats)| ([("queue", *queue)], &stats.waits));
    page.histograms("flow_queue_wait_seconds", "How long items waited that were handed out, by queue", waits)
}

fn events(stats: &Stats) -> [(&'static str, u64); 12] {
    let totals = &stats.totals;
    [
        ("accepted", totals.accepted),
        ("taken", totals.taken),
        ("done", totals.done),
        ("returned", totals.returned),
        ("ran_out", totals.ran_out),
        ("dead", totals.dead),
        ("revived", totals.revived),
        ("forgotten", totals.forgotten),
        ("expired", totals.expired),
        ("shed", totals.shed),
        ("dropped", totals.dropped),
        ("duplicate", totals.duplicates),
    ]
}

fn reasons(stats: &Stats) -> [(&'static str, u64); 8] {
    let rejected = &stats.totals.rejected;
    [
        ("items", rejected.items),
        ("cost", rejected.cost),
        ("bytes", rejected.bytes),
        ("rate", rejected.rate),
        ("timed_out", rejected.timed_out),
        ("late", rejected.late),
        ("closed", rejected.closed),
        ("store", rejected.store),
    ]
}
