//! Pipelines and their stages on the page.

use std::fmt;

use super::Page;
use crate::breaker::BreakerState;
use crate::pipeline::{PipelineStats, StageStats};

pub(super) fn show(page: &mut Page<'_>, pipelines: &[(&str, &PipelineStats)]) -> fmt::Result {
    if pipelines.is_empty() {
        return Ok(());
    }
    let accepted = pipelines.iter().map(|(pipeline, stats)| ([("pipeline", *pipeline)], stats.accepted));
    page.counters("flow_pipeline_accepted", "Items that were let in, by pipeline", accepted)?;
    let ended = pipelines.iter().flat_map(|(pipeline, stats)| {
        outcomes(stats).map(|(outcome, count)| ([("pipeline", *pipeline), ("outcome", outcome)], count))
    });
    page.counters("flow_pipeline_outcomes", "Items that ended, by pipeline and outcome", ended)?;
    let inside = pipelines.iter().map(|(name, stats)| ([("pipeline", *name)], stats.in_flight() as f64));
    page.gauges("flow_pipeline_in_flight", "Items that are inside, by pipeline", inside)?;
    stages(page, pipelines)
}

fn stages(page: &mut Page<'_>, pipelines: &[(&str, &PipelineStats)]) -> fmt::Result {
    let stages = || {
        pipelines.iter().flat_map(|(pipeline, stats)| {
            stats.stages.iter().map(|stage| ([("pipeline", *pipeline), ("stage", &*stage.name)], stage))
        })
    };
    let working = stages().map(|(labels, stage)| (labels, stage.in_flight as f64));
    page.gauges("flow_stage_in_flight", "Items that a stage works on", working)?;
    let waiting = stages().map(|(labels, stage)| (labels, stage.waiting as f64));
    page.gauges("flow_stage_waiting", "Items that wait for a worker of a stage", waiting)?;
    let items = stages().flat_map(|([pipeline, name], stage)| {
        events(stage).map(|(event, count)| ([pipeline, name, ("event", event)], count))
    });
    page.counters("flow_stage_items", "Items of a stage, by what happened to them", items)?;
    let open = stages().filter_map(|(labels, stage)| Some((labels, level(stage.breaker?))));
    page.gauges("flow_stage_circuit", "The circuit of a stage: 0 closed, 1 half open, 2 open", open)?;
    let durations = stages().map(|(labels, stage)| (labels, &stage.latency));
    let help = "From getting a worker to the outcome, retries included, by stage";
    page.histograms("flow_stage_duration_seconds", help, durations)
}

fn outcomes(stats: &PipelineStats) -> [(&'static str, u64); 5] {
    [
        ("completed", stats.completed),
        ("failed", stats.failed),
        ("expired", stats.expired),
        ("cut", stats.cut),
        ("cancelled", stats.cancelled),
    ]
}

fn events(stage: &StageStats) -> [(&'static str, u64); 5] {
    [
        ("completed", stage.completed),
        ("failed", stage.errors),
        ("abandoned", stage.abandoned),
        ("retry", stage.retries),
        ("fallback", stage.fallbacks),
    ]
}

fn level(state: BreakerState) -> f64 {
    match state {
        BreakerState::Closed => 0.0,
        BreakerState::HalfOpen { .. } => 1.0,
        BreakerState::Open { .. } => 2.0,
    }
}
