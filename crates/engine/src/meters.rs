//! Numbers that the engine's thread writes and anyone reads without waiting for it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use protocol::status::{Counters, Histogram, Latencies, VisionStatus};
use protocol::{Failure, FinishReason, Health, Phase, Refusal};

/// Queue times begin far below a millisecond, where an idle engine answers.
const QUEUE: &[f64] = &[
    50e-6, 100e-6, 250e-6, 500e-6, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5,
    2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0,
];
/// The buckets of vLLM, so that its dashboards fit.
const FIRST_TOKEN: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
];
const INTER_TOKEN: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
    10.0, 20.0, 40.0, 80.0,
];
const REQUEST: &[f64] = &[
    0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0,
    240.0, 480.0, 960.0, 1920.0, 7680.0,
];
const STEP: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0,
    10.0,
];
const STEP_TOKENS: &[f64] =
    &[1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0];

/// How long a failed step makes the engine degraded.
const FAULT_MEMORY: Duration = Duration::from_secs(60);
/// So many failed steps in a row make it unhealthy.
const FAULTS_IN_A_ROW: u32 = 3;

/// Where a request was when it was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Preparing,
    Queued,
    Prefill,
    Decode,
}

/// How long something takes, with the bounds under which it is shown. A bound counts what is up to 3 % beyond it too.
pub(crate) struct Times {
    bounds: &'static [f64],
    values: flow::Histogram,
}

impl Times {
    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, values: flow::Histogram::new() }
    }

    pub(crate) fn observe(&self, time: Duration) {
        self.values.record(time);
    }

    fn snapshot(&self) -> Histogram {
        let values = self.values.snapshot();
        Histogram {
            bounds: self.bounds.to_vec(),
            counts: values.counts_between(self.bounds.iter().copied().map(Duration::from_secs_f64)),
            sum: values.sum().as_secs_f64(),
        }
    }
}

/// How many of something there are, at least one each time, with the bounds under which that is shown.
///
/// One less is recorded, in nanoseconds: so powers of two are edges of the histogram's buckets, and exact bounds.
pub(crate) struct Counts {
    bounds: &'static [f64],
    values: flow::Histogram,
}

impl Counts {
    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, values: flow::Histogram::new() }
    }

    pub(crate) fn observe(&self, count: usize) {
        self.values.record(Duration::from_nanos(count.saturating_sub(1) as u64));
    }

    fn snapshot(&self) -> Histogram {
        let values = self.values.snapshot();
        let bounds = self.bounds.iter().map(|bound| Duration::from_nanos(*bound as u64 - 1));
        Histogram {
            bounds: self.bounds.to_vec(),
            counts: values.counts_between(bounds),
            sum: values.sum().as_nanos() as f64 + values.count() as f64,
        }
    }
}

/// Counters of one kind by label.
struct Labelled<const N: usize> {
    labels: [&'static str; N],
    counts: [AtomicU64; N],
}

impl<const N: usize> Labelled<N> {
    fn new(labels: [&'static str; N]) -> Self {
        Self { labels, counts: [const { AtomicU64::new(0) }; N] }
    }

    fn add(&self, index: usize) {
        self.counts[index].fetch_add(1, Relaxed);
    }

    fn snapshot(&self) -> Vec<(String, u64)> {
        self.labels
            .iter()
            .zip(&self.counts)
            .map(|(label, n)| ((*label).to_owned(), n.load(Relaxed)))
            .collect()
    }
}

#[derive(Default)]
struct Faults {
    in_a_row: u32,
    last: Option<(Duration, String)>,
}

/// What a tower has done.
#[derive(Default)]
pub(crate) struct Sight {
    read: AtomicU64,
    patches: AtomicU64,
    micros: AtomicU64,
    queries: AtomicU64,
    hits: AtomicU64,
    bytes: AtomicU64,
    waiting: AtomicU64,
}

impl Sight {
    /// Counts a slice of its time in which so many pictures with so many patches came to their end.
    pub(crate) fn count(&self, (pictures, patches): (u64, u64), took: Duration) {
        self.read.fetch_add(pictures, Relaxed);
        self.patches.fetch_add(patches, Relaxed);
        self.micros.fetch_add(micros(took), Relaxed);
    }

    /// How many pictures were looked up and found, the bytes that are kept, and the requests that wait.
    pub(crate) fn publish(&self, (queries, hits): (u64, u64), (bytes, waiting): (usize, usize)) {
        let pairs = [
            (&self.queries, queries),
            (&self.hits, hits),
            (&self.bytes, bytes as u64),
            (&self.waiting, waiting as u64),
        ];
        pairs.into_iter().for_each(|(meter, value)| meter.store(value, Relaxed));
    }

    /// Beside what the pool says of itself.
    pub(crate) fn status(&self, pool: &images::Meters) -> VisionStatus {
        VisionStatus {
            preparing: (pool.queued + pool.busy) as u64,
            prepared: pool.prepared,
            prepare_seconds: pool.busy_time.as_secs_f64(),
            unusable: pool.failed.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect(),
            waiting: self.waiting.load(Relaxed),
            encoded: self.read.load(Relaxed),
            encoded_patches: self.patches.load(Relaxed),
            encode_seconds: Duration::from_micros(self.micros.load(Relaxed)).as_secs_f64(),
            feature_queries: self.queries.load(Relaxed),
            feature_hits: self.hits.load(Relaxed),
            feature_bytes: self.bytes.load(Relaxed),
        }
    }
}

/// All numbers of one engine.
pub(crate) struct Meters {
    phase: AtomicU8,
    busy: AtomicBool,
    last_progress: AtomicU64,
    faults: Mutex<Faults>,
    pub(crate) accepted: AtomicU64,
    pub(crate) prompt_tokens: AtomicU64,
    pub(crate) generated_tokens: AtomicU64,
    pub(crate) drafted: AtomicU64,
    pub(crate) draft_hits: AtomicU64,
    pub(crate) steps: AtomicU64,
    pub(crate) preemptions: AtomicU64,
    pub(crate) restarts: AtomicU64,
    pub(crate) prefix_queries: AtomicU64,
    pub(crate) prefix_hits: AtomicU64,
    pub(crate) sight: Sight,
    /// Bits of floats: seconds.
    pub(crate) pid_setpoint: AtomicU64,
    pub(crate) pid_error: AtomicU64,
    pub(crate) pid_output: AtomicU64,
    pub(crate) tier_written: AtomicU64,
    pub(crate) tier_loaded: AtomicU64,
    pub(crate) tier_declined: AtomicU64,
    pub(crate) running: AtomicU64,
    pub(crate) pages_used: AtomicU64,
    pub(crate) pages_cached: AtomicU64,
    /// Acceptance of the oldest waiting request in microseconds; `u64::MAX` if none waits.
    pub(crate) oldest_queued: AtomicU64,
    refused: Labelled<6>,
    completed: Labelled<2>,
    failed: Labelled<3>,
    cancelled: Labelled<4>,
    pub(crate) first_token: Times,
    pub(crate) inter_token: Times,
    pub(crate) request: Times,
    pub(crate) queue: Times,
    pub(crate) step: Times,
    pub(crate) step_tokens: Counts,
}

impl Meters {
    /// All zero, in the phase `Starting`.
    pub(crate) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            phase: AtomicU8::new(0),
            busy: AtomicBool::new(false),
            last_progress: zero(),
            faults: Mutex::default(),
            accepted: zero(),
            prompt_tokens: zero(),
            generated_tokens: zero(),
            drafted: zero(),
            draft_hits: zero(),
            steps: zero(),
            preemptions: zero(),
            restarts: zero(),
            prefix_queries: zero(),
            prefix_hits: zero(),
            sight: Sight::default(),
            pid_setpoint: zero(),
            pid_error: zero(),
            pid_output: zero(),
            tier_written: zero(),
            tier_loaded: zero(),
            tier_declined: zero(),
            running: zero(),
            pages_used: zero(),
            pages_cached: zero(),
            oldest_queued: AtomicU64::new(u64::MAX),
            refused: Labelled::new([
                "queue_full",
                "rate_limited",
                "unknown_model",
                "context_length",
                "invalid_parameter",
                "not_ready",
            ]),
            completed: Labelled::new(["stop", "length"]),
            failed: Labelled::new(["deadline_exceeded", "shutting_down", "engine"]),
            cancelled: Labelled::new(["preparing", "queued", "prefill", "decode"]),
            first_token: Times::new(FIRST_TOKEN),
            inter_token: Times::new(INTER_TOKEN),
            request: Times::new(REQUEST),
            queue: Times::new(QUEUE),
            step: Times::new(STEP),
            step_tokens: Counts::new(STEP_TOKENS),
        }
    }

    /// Refuses work unless the engine is ready for it.
    pub(crate) fn check_ready(&self) -> Result<(), Refusal> {
        let reason = match self.phase() {
            Phase::Ready => return Ok(()),
            Phase::Starting => "it is starting",
            Phase::Draining => "it is draining",
            Phase::Stopped => "it has stopped",
        };
        Err(Refusal::NotReady { reason: reason.to_owned() })
    }

    pub(crate) fn phase(&self) -> Phase {
        const PHASES: [Phase; 4] = [Phase::Starting, Phase::Ready, Phase::Draining, Phase::Stopped];
        PHASES[usize::from(self.phase.load(Relaxed)) % PHASES.len()]
    }

    /// Moves on to a later phase; an engine never goes back.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Relaxed);
    }

    pub(crate) fn refused(&self, refusal: &Refusal) {
        match refusal {
            Refusal::QueueFull { .. } => self.refused.add(0),
            Refusal::RateLimited { .. } => self.refused.add(1),
            Refusal::UnknownModel { .. } => self.refused.add(2),
            Refusal::ContextLength { .. } => self.refused.add(3),
            Refusal::InvalidParameter { .. } => self.refused.add(4),
            _ => self.refused.add(5),
        }
    }

    pub(crate) fn completed(&self, reason: FinishReason) {
        self.completed.add(usize::from(reason == FinishReason::Length));
    }

    pub(crate) fn failed(&self, failure: &Failure) {
        self.failed.add(match failure {
            late if late.is_late() => 0,
            Failure::ShuttingDown => 1,
            _ => 2,
        });
    }

    pub(crate) fn cancelled(&self, stage: Stage) {
        self.cancelled.add(stage as usize);
    }

    /// The engine's heartbeat: whether it has work, and that it has just got on with it.
    pub(crate) fn progress(&self, work: usize, now: Duration) {
        self.last_progress.store(micros(now), Relaxed);
        self.busy.store(work > 0, Relaxed);
    }

    /// Notes that a step failed.
    pub(crate) fn fault(&self, message: &str, now: Duration) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.in_a_row = faults.in_a_row.saturating_add(1);
        faults.last = Some((now, message.to_owned()));
    }

    /// Notes that the engine's thread is gone and nothing will be done any more.
    pub(crate) fn died(&self, message: &str, now: Duration) {
        self.fault(message, now);
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).in_a_row = u32::MAX;
        self.enter(Phase::Stopped);
    }

    /// Notes that a step succeeded after one had failed.
    pub(crate) fn recovered(&self) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).in_a_row = 0;
    }

    /// How long there has been work and no progress, if there is work.
    pub(crate) fn quiet(&self, now: Duration) -> Option<Duration> {
        let last = Duration::from_micros(self.last_progress.load(Relaxed));
        self.busy.load(Relaxed).then(|| now.saturating_sub(last))
    }

    pub(crate) fn health(&self, now: Duration, stall_after: Duration) -> Health {
        if let Some(quiet) = self.quiet(now).filter(|quiet| *quiet > stall_after) {
            let seconds = quiet.as_secs();
            return Health::Unhealthy(vec![format!(
                "no step has finished for {seconds} s although there is work"
            )]);
        }
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        match &faults.last {
            Some((_, message)) if faults.in_a_row == u32::MAX => Health::Unhealthy(vec![message.clone()]),
            Some((_, message)) if faults.in_a_row >= FAULTS_IN_A_ROW => {
                Health::Unhealthy(vec![format!("{} steps in a row failed: {message}", faults.in_a_row)])
            }
            Some((at, message)) if now.saturating_sub(*at) < FAULT_MEMORY || faults.in_a_row > 0 => {
                Health::Degraded(vec![format!("a step failed: {message}")])
            }
            _ => Health::Healthy,
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        Counters {
            accepted: self.accepted.load(Relaxed),
            refused: self.refused.snapshot(),
            completed: self.completed.snapshot(),
            failed: self.failed.snapshot(),
            cancelled: self.cancelled.snapshot(),
            prompt_tokens: self.prompt_tokens.load(Relaxed),
            generated_tokens: self.generated_tokens.load(Relaxed),
            drafted: self.drafted.load(Relaxed),
            draft_hits: self.draft_hits.load(Relaxed),
            steps: self.steps.load(Relaxed),
            preemptions: self.preemptions.load(Relaxed),
            restarts: self.restarts.load(Relaxed),
            prefix_queries: self.prefix_queries.load(Relaxed),
            prefix_hits: self.prefix_hits.load(Relaxed),
        }
    }

    pub(crate) fn latencies(&self) -> Latencies {
        Latencies {
            time_to_first_token: self.first_token.snapshot(),
            inter_token: self.inter_token.snapshot(),
            request: self.request.snapshot(),
            queue: self.queue.snapshot(),
            step: self.step.snapshot(),
            step_tokens: self.step_tokens.snapshot(),
        }
    }
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Observations are shown under the bounds that dashboards expect: counts exactly, times within the width of a bucket.
    #[test]
    fn distributions_are_shown_under_their_bounds() {
        let counts = Counts::new(&[1.0, 8.0, 512.0]);
        [1, 2, 8, 9, 512, 513, 20_000].into_iter().for_each(|count| counts.observe(count));
        let shown = counts.snapshot();
        assert_eq!((shown.counts, shown.sum), (vec![1, 2, 2, 2], 21_045.0));
        let times = Times::new(&[0.001, 0.1, 2.5]);
        [10, 1000, 1040, 100_000, 104_000, 2_500_000, 9_000_000]
            .into_iter()
            .for_each(|micros| times.observe(Duration::from_micros(micros)));
        let shown = times.snapshot();
        assert_eq!((shown.counts, shown.sum), (vec![2, 2, 2, 1], 11.70605));
    }
}
