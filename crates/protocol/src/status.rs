//! What an engine says about itself: identity, health, load, counters.

use std::fmt;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::{Marks, Relief};

/// One model that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCard {
    /// The name that requests use.
    pub id: String,
    /// Architecture family, such as `qwen3`.
    pub family: String,
    /// Prompt and output together hold at most this many tokens.
    pub context: u32,
    /// Size of the vocabulary.
    pub vocabulary: u32,
    /// Parameters, for people.
    pub parameters: u64,
    /// Weight and arithmetic type, such as `bf16`.
    pub dtype: String,
    /// Whether the model has a chat template.
    pub chat: bool,
    /// What it can do.
    pub tasks: Vec<Task>,
    /// Width of its vectors, if it embeds.
    pub dimensions: Option<u32>,
    /// Between which texts the model reasons before it answers, if it has been taught to.
    pub reasoning: Option<Marks>,
    /// Between which texts the model calls a tool, as `{"name": …, "arguments": {…}}`, if its template knows tools.
    pub calls: Option<Marks>,
    /// Unix time in seconds at which it was loaded.
    pub created: u64,
}

impl ModelCard {
    /// Whether the model can do that.
    pub fn can(&self, task: Task) -> bool {
        self.tasks.contains(&task)
    }
}

/// What a model can be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Continue a text.
    Generate,
    /// Make vectors of texts.
    Embed,
    /// Score pairs of texts.
    Score,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Generate => "generate text",
            Self::Embed => "embed texts",
            Self::Score => "score pairs of texts",
        })
    }
}

/// Where an engine is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Loading and warming up.
    #[default]
    Starting,
    /// Accepting work.
    Ready,
    /// Finishing accepted work, accepting none.
    Draining,
    /// Ended.
    Stopped,
}

/// Whether work gets done, judged by progress and not by liveness of a thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "reasons")]
pub enum Health {
    /// All is well.
    #[default]
    Healthy,
    /// Work gets done, but something is wrong.
    Degraded(Vec<String>),
    /// No progress although there is work.
    Unhealthy(Vec<String>),
}

/// What was answered without computing it again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReuseStatus {
    /// Requests that joined the same request while it ran.
    pub joined: u64,
    /// Requests for which a kept answer was looked for.
    pub asked: u64,
    /// Requests of these that were answered from the same request.
    pub same: u64,
    /// Requests of these that were answered from a similar one.
    pub similar: u64,
    /// Answers that are kept.
    pub kept: u64,
    /// Bytes that they take.
    pub kept_bytes: u64,
    /// Bytes that they may take; 0 if none are kept.
    pub kept_bytes_limit: u64,
}

/// A snapshot of an engine. Counters only grow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Where the engine is in its life.
    pub phase: Phase,
    /// Whether work gets done.
    pub health: Health,
    /// What is in the engine now.
    pub load: Load,
    /// The models one by one, those on their way in and out included.
    pub models: Vec<ModelStatus>,
    /// What each model has counted and measured since its start.
    #[serde(default)]
    pub figures: Vec<ModelFigures>,
    /// What the models compute on.
    #[serde(default)]
    pub devices: Vec<DeviceStatus>,
    /// How short memory is, and what is given up for it.
    pub pressure: PressureStatus,
    /// Models that have given their memory back until they are asked for.
    #[serde(default)]
    pub sleep: SleepStatus,
    /// What was answered without computing it again.
    pub reuse: ReuseStatus,
    /// What is made of pictures, where the model sees.
    pub vision: Option<VisionStatus>,
    /// Weights that are read from the disk whenever they are needed.
    pub weights: StreamedStatus,
    /// Keys and values below memory.
    pub tier: TierStatus,
    /// How large steps are made.
    pub pid: PidState,
    /// What has happened since the start.
    pub counters: Counters,
    /// Distributions since the start.
    pub latency: Latencies,
}

/// One of the models of a process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelStatus {
    /// The name that requests use.
    pub id: String,
    /// Where it is in its life.
    pub phase: Phase,
    /// Whether its work gets done.
    pub health: Health,
    /// Requests that wait for it.
    pub queued: u64,
    /// Sequences or inputs that run.
    pub running: u64,
    /// Bytes that it plans with.
    pub memory: MemoryPlan,
}

/// What one model has counted and measured since its start, as [`Status`] has it of all together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelFigures {
    /// The name that requests use.
    pub id: String,
    /// What is in its engine now.
    pub load: Load,
    /// What has happened.
    pub counters: Counters,
    /// Distributions.
    pub latency: Latencies,
}

/// Processors, or an accelerator, on which models compute in turns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Its name: `cpu0`.
    pub name: String,
    /// Threads that compute.
    pub threads: u64,
    /// The processors that they stay on, as in `0-3,8`; empty where they may go anywhere.
    pub cores: String,
    /// Models on it.
    pub models: u64,
    /// Requests that wait for one of them.
    pub queued: u64,
    /// Sequences or inputs of theirs that run.
    pub running: u64,
    /// Bytes that they plan with. Weights that several devices read count for one of them.
    pub memory_bytes: u64,
    /// Time since the start in which one of them computed.
    pub busy_seconds: f64,
}

/// Bytes that a model plans with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPlan {
    /// Packed weights, or the memory for them where they are read whenever they are needed.
    pub weights: u64,
    /// Keys and values.
    pub kv: u64,
    /// Keys and values on their way to the disk and back.
    pub kv_buffers: u64,
    /// Pictures that wait, and what was made of others, where the model sees.
    pub images: u64,
    /// Activations and logits of a full step, and the sampler's copies.
    pub workspace: u64,
}

impl MemoryPlan {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights + self.kv + self.kv_buffers + self.images + self.workspace
    }
}

impl AddAssign for MemoryPlan {
    /// What several plan with together.
    fn add_assign(&mut self, other: Self) {
        let Self { weights, kv, kv_buffers, images, workspace } = other;
        self.weights += weights;
        self.kv += kv;
        self.kv_buffers += kv_buffers;
        self.images += images;
        self.workspace += workspace;
    }
}

/// How short memory is, as last read; all 0 where nobody looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PressureStatus {
    /// What is given up.
    pub relief: Relief,
    /// The share of the memory that is used, by whomever: of the machine's or the control group's, whichever is fuller.
    pub used: f64,
    /// The share of the time in which work stood still for lack of memory.
    pub stalled: f64,
    /// From which share on something is given up.
    pub threshold: f64,
    /// How often something more was given up.
    pub raised: u64,
}

/// Models that have given their memory back and are loaded again when they are asked for. Counters only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SleepStatus {
    /// Models that sleep now.
    pub asleep: u64,
    /// How often one was put to sleep because nobody had asked for it for long.
    pub idle: u64,
    /// How often one was put to sleep because memory was short.
    pub short: u64,
    /// How often one was loaded again.
    pub woken: u64,
}

/// What is in the engine now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Requests that wait.
    pub queued: u64,
    /// Age of the oldest waiting request, in seconds.
    pub oldest_queued_seconds: f64,
    /// The most requests that may wait.
    pub queue_capacity: u64,
    /// Sequences in the batch.
    pub running: u64,
    /// KV pages in use.
    pub kv_pages_used: u64,
    /// KV pages that nobody uses and that keep what they hold until they are needed.
    pub kv_pages_cached: u64,
    /// KV pages in all.
    pub kv_pages_total: u64,
    /// Tokens that one KV page holds.
    pub kv_page_tokens: u64,
}

/// What is made of pictures. Counters only grow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VisionStatus {
    /// Pictures that are decoded, or wait for that.
    pub preparing: u64,
    /// Pictures that were decoded and cut into patches.
    pub prepared: u64,
    /// Time that threads spent on it.
    pub prepare_seconds: f64,
    /// Pictures that could not be used, by what was wrong with them.
    pub unusable: Vec<(String, u64)>,
    /// Requests that wait for the vision tower.
    pub waiting: u64,
    /// Pictures that the tower has read.
    pub encoded: u64,
    /// Patches of these.
    pub encoded_patches: u64,
    /// Time that the tower took for them.
    pub encode_seconds: f64,
    /// Pictures that were looked up among those that were read before.
    pub feature_queries: u64,
    /// Pictures of these that need not be read again.
    pub feature_hits: u64,
    /// Bytes of what is kept of pictures.
    pub feature_bytes: u64,
}

/// Weights of which memory holds only some; all 0 where it holds all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamedStatus {
    /// Bytes of all of them.
    pub bytes: u64,
    /// Memory for them.
    pub limit_bytes: u64,
    /// Bytes of those that stay in memory.
    pub held_bytes: u64,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// How long steps waited for what they needed next.
    pub waited_seconds: f64,
    /// Reads that failed.
    pub faults: u64,
}

/// Keys and values that went where memory has no room for them, or were there from an earlier run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TierStatus {
    /// Those in the memory of a device.
    #[serde(default)]
    pub device: TierPlace,
    /// Those on the disk; what is on a device may be there as well.
    pub disk: TierPlace,
    /// Memory for pages on their way.
    pub buffer_bytes: u64,
    /// Pages that were given out of memory to be written.
    pub written: u64,
    /// Pages that came back, so that they were not computed.
    pub loaded: u64,
    /// Pages that were found and computed all the same, because that was faster.
    pub declined: u64,
    /// Transfers that failed.
    pub faults: u64,
    /// What went wrong last.
    pub last_fault: Option<String>,
}

/// A place to which keys and values go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierPlace {
    /// Pages there.
    pub pages: u64,
    /// Bytes that they take.
    pub bytes: u64,
    /// Bytes that they may take; 0 if there is no such place.
    pub limit_bytes: u64,
    /// Bytes that were written there.
    pub written_bytes: u64,
    /// Bytes that were read from there.
    pub read_bytes: u64,
    /// Transfers that failed, damage included.
    pub faults: u64,
}

/// The controller of the engine's steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PidState {
    /// The time between two tokens of a stream that it aims at; 0 in throughput mode.
    pub setpoint_seconds: f64,
    /// Setpoint less measured time of the last step that it learned from.
    pub error_seconds: f64,
    /// The most prompt tokens of a step while streams run.
    pub output_tokens: u64,
}

/// What has happened since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Requests accepted.
    pub accepted: u64,
    /// Requests refused, by reason.
    pub refused: Vec<(String, u64)>,
    /// Requests completed, by finish reason of their first choice.
    pub completed: Vec<(String, u64)>,
    /// Requests failed, by reason.
    pub failed: Vec<(String, u64)>,
    /// Requests cancelled, by the stage they were in.
    pub cancelled: Vec<(String, u64)>,
    /// Prompt tokens computed.
    pub prompt_tokens: u64,
    /// Tokens sampled.
    pub generated_tokens: u64,
    /// Tokens that were tried because the text had gone on with them before.
    pub drafted: u64,
    /// Tokens of these that came true.
    pub draft_hits: u64,
    /// Engine steps.
    pub steps: u64,
    /// Sequences put back to the queue because pages ran out.
    pub preemptions: u64,
    /// Models that did not come back from a step and were loaded again.
    #[serde(default)]
    pub restarts: u64,
    /// Prompt tokens that were looked up in the prefix cache.
    pub prefix_queries: u64,
    /// Prompt tokens of these that it held, so that they were not computed.
    pub prefix_hits: u64,
}

/// Distributions since the start, in seconds unless the name says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latencies {
    /// Admission to first token.
    pub time_to_first_token: Histogram,
    /// Between two tokens of a sequence, measured at engine steps.
    pub inter_token: Histogram,
    /// Admission to end.
    pub request: Histogram,
    /// Admission to the first step that read the prompt.
    pub queue: Histogram,
    /// Duration of an engine step.
    pub step: Histogram,
    /// Tokens in an engine step.
    pub step_tokens: Histogram,
}

/// A cumulative histogram snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Upper bounds of the buckets, ascending; an implicit last bucket has no bound.
    pub bounds: Vec<f64>,
    /// Observations per bucket (not cumulative), one more than `bounds`.
    pub counts: Vec<u64>,
    /// Sum of all observations.
    pub sum: f64,
}

impl Histogram {
    /// How many were observed.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The mean; 0 without observations.
    pub fn mean(&self) -> f64 {
        if self.count() > 0 { self.sum / self.count() as f64 } else { 0.0 }
    }

    /// About the value that a share of all observations (0 to 1) does not exceed: within the bucket where that is, as if what
    /// it holds lay evenly between its bounds. `None` without observations. What lies beyond all bounds counts as the last.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let total = self.count();
        let wanted = share.clamp(0.0, 1.0) * total as f64;
        let (mut below, mut lower) = (0.0, 0.0);
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            let count = *count as f64;
            if count > 0.0 && below + count >= wanted {
                return Some(lower + (bound - lower) * (wanted - below) / count);
            }
            (below, lower) = (below + count, *bound);
        }
        self.bounds.last().copied().filter(|_| total > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let histogram = Histogram { bounds: vec![1.0, 2.0, 4.0], counts: vec![2, 0, 2, 1], sum: 0.0 };
        let check = |share, expected| assert_eq!(histogram.quantile(share), Some(expected), "{share}");
        check(0.0, 0.0);
        check(0.2, 0.5);
        check(0.4, 1.0);
        check(0.6, 3.0);
        check(0.8, 4.0);
        check(1.0, 4.0);
        assert_eq!(Histogram::default().quantile(0.5), None);
    }
}
