//! Several statuses as one.

use protocol::status::{
    Counters, DeviceStatus, Histogram, Latencies, Load, ModelFigures, StreamedStatus, TierPlace, TierStatus,
    VisionStatus,
};
use protocol::{Health, Phase, Status};

/// The status of one model, with its figures beside the sums.
pub(crate) fn with_figures(mut status: Status) -> Status {
    let id = status.models.first().map(|model| model.id.clone()).unwrap_or_default();
    let Status { load, counters, latency, .. } = &status;
    status.figures =
        vec![ModelFigures { id, load: load.clone(), counters: counters.clone(), latency: latency.clone() }];
    status
}

/// Adds the status of the models of a name to that of others.
pub(crate) fn add(sum: Option<Status>, (name, mut next): (String, Status)) -> Status {
    next.health = named(next.health, &name);
    let Some(mut sum) = sum else { return next };
    sum.phase = joined_phase(sum.phase, next.phase);
    sum.health = worse(sum.health, next.health);
    // The first model that has a controller; encoders have none.
    sum.pid = if sum.pid.output_tokens == 0 { next.pid } else { sum.pid };
    sum.models.append(&mut next.models);
    sum.figures.append(&mut next.figures);
    sum.devices = next.devices.into_iter().fold(sum.devices, add_device);
    add_vision(&mut sum.vision, next.vision);
    add_load(&mut sum.load, &next.load);
    add_streamed(&mut sum.weights, next.weights);
    add_tier(&mut sum.tier, next.tier);
    add_past(&mut sum, (next.counters, &next.latency));
    sum
}

/// Adds what has been counted since the start, which stays when a model goes.
pub(crate) fn add_past(sum: &mut Status, (counters, latency): (Counters, &Latencies)) {
    add_counters(&mut sum.counters, counters);
    add_latencies(&mut sum.latency, latency);
}

/// Not ready until all are; and no longer once one is not.
fn joined_phase(a: Phase, b: Phase) -> Phase {
    match (a, b) {
        (Phase::Starting, _) | (_, Phase::Starting) => Phase::Starting,
        _ => std::cmp::max_by_key(a, b, |phase| *phase as u8),
    }
}

fn named(health: Health, name: &str) -> Health {
    let named =
        |reasons: Vec<String>| reasons.into_iter().map(|reason| format!("{name}: {reason}")).collect();
    match health {
        Health::Healthy => Health::Healthy,
        Health::Degraded(reasons) => Health::Degraded(named(reasons)),
        Health::Unhealthy(reasons) => Health::Unhealthy(named(reasons)),
    }
}

fn worse(a: Health, b: Health) -> Health {
    match (a, b) {
        (Health::Healthy, other) | (other, Health::Healthy) => other,
        (Health::Degraded(a), Health::Degraded(b)) => Health::Degraded([a, b].concat()),
        (Health::Unhealthy(a) | Health::Degraded(a), Health::Unhealthy(b) | Health::Degraded(b)) => {
            Health::Unhealthy([a, b].concat())
        }
    }
}

fn add_load(sum: &mut Load, next: &Load) {
    sum.queued += next.queued;
    sum.oldest_queued_seconds = sum.oldest_queued_seconds.max(next.oldest_queued_seconds);
    sum.queue_capacity += next.queue_capacity;
    sum.running += next.running;
    sum.kv_pages_used += next.kv_pages_used;
    sum.kv_pages_cached += next.kv_pages_cached;
    sum.kv_pages_total += next.kv_pages_total;
    sum.kv_page_tokens = sum.kv_page_tokens.max(next.kv_page_tokens);
}

/// What models have on one device; the time is that of the device, which all of them tell.
fn add_device(mut sum: Vec<DeviceStatus>, next: DeviceStatus) -> Vec<DeviceStatus> {
    match sum.iter_mut().find(|device| device.name == next.name) {
        None => sum.push(next),
        Some(device) => {
            device.models += next.models;
            device.queued += next.queued;
            device.running += next.running;
            device.memory_bytes += next.memory_bytes;
            device.busy_seconds = device.busy_seconds.max(next.busy_seconds);
        }
    }
    sum
}

fn add_vision(sum: &mut Option<VisionStatus>, next: Option<VisionStatus>) {
    let (Some(sum), Some(next)) = (&mut *sum, &next) else { return *sum = sum.take().or(next) };
    sum.preparing += next.preparing;
    sum.prepared += next.prepared;
    sum.prepare_seconds += next.prepare_seconds;
    add_labelled(&mut sum.unusable, next.unusable.clone());
    sum.waiting += next.waiting;
    sum.encoded += next.encoded;
    sum.encoded_patches += next.encoded_patches;
    sum.encode_seconds += next.encode_seconds;
    sum.feature_queries += next.feature_queries;
    sum.feature_hits += next.feature_hits;
    sum.feature_bytes += next.feature_bytes;
}

pub(crate) fn add_streamed(sum: &mut StreamedStatus, next: StreamedStatus) {
    sum.bytes += next.bytes;
    sum.limit_bytes += next.limit_bytes;
    sum.held_bytes += next.held_bytes;
    sum.read_bytes += next.read_bytes;
    sum.waited_seconds += next.waited_seconds;
    sum.faults += next.faults;
}

fn add_tier(sum: &mut TierStatus, next: TierStatus) {
    add_place(&mut sum.device, next.device);
    add_place(&mut sum.disk, next.disk);
    sum.buffer_bytes += next.buffer_bytes;
    sum.written += next.written;
    sum.loaded += next.loaded;
    sum.declined += next.declined;
    sum.faults += next.faults;
    sum.last_fault = next.last_fault.or(sum.last_fault.take());
}

fn add_place(sum: &mut TierPlace, next: TierPlace) {
    sum.pages += next.pages;
    sum.bytes += next.bytes;
    sum.limit_bytes += next.limit_bytes;
    sum.written_bytes += next.written_bytes;
    sum.read_bytes += next.read_bytes;
    sum.faults += next.faults;
}

fn add_counters(sum: &mut Counters, next: Counters) {
    sum.accepted += next.accepted;
    sum.prompt_tokens += next.prompt_tokens;
    sum.generated_tokens += next.generated_tokens;
    sum.drafted += next.drafted;
    sum.draft_hits += next.draft_hits;
    sum.steps += next.steps;
    sum.preemptions += next.preemptions;
    sum.restarts += next.restarts;
    sum.prefix_queries += next.prefix_queries;
    sum.prefix_hits += next.prefix_hits;
    add_labelled(&mut sum.refused, next.refused);
    add_labelled(&mut sum.completed, next.completed);
    add_labelled(&mut sum.failed, next.failed);
    add_labelled(&mut sum.cancelled, next.cancelled);
}

fn add_labelled(sum: &mut Vec<(String, u64)>, next: Vec<(String, u64)>) {
    for (label, count) in next {
        match sum.iter_mut().find(|(other, _)| *other == label) {
            Some((_, sum)) => *sum += count,
            None => sum.push((label, count)),
        }
    }
}

fn add_latencies(sum: &mut Latencies, next: &Latencies) {
    add_histogram(&mut sum.time_to_first_token, &next.time_to_first_token);
    add_histogram(&mut sum.inter_token, &next.inter_token);
    add_histogram(&mut sum.request, &next.request);
    add_histogram(&mut sum.queue, &next.queue);
    add_histogram(&mut sum.step, &next.step);
    add_histogram(&mut sum.step_tokens, &next.step_tokens);
}

/// Adds up histograms with the same bounds; one without any takes over the other's.
fn add_histogram(sum: &mut Histogram, next: &Histogram) {
    if sum.counts.is_empty() {
        sum.clone_from(next);
    } else if sum.bounds == next.bounds {
        sum.counts.iter_mut().zip(&next.counts).for_each(|(sum, next)| *sum += next);
        sum.sum += next.sum;
    }
}
