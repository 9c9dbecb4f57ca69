//! `tidegate sim`: a recorded trace run again under other settings, without a model and in no time.

mod eviction;

use std::io::{Write, stdout};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueHint};
use engine::simulation::{CostModel, Job, Outcome};
use engine::trace::{Arrival, End, Entry, Start, Step};
use engine::{EngineSettings, KvBudget};
use flow::queue::policy::Discipline;
use serde_json::{Value, json};
use tidegate::settings::{ByteSize, ItlGains, ItlTarget};

use super::Exit;

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// File that `tidegate serve --trace` has written.
    #[arg(value_name = "TRACE", value_hint = ValueHint::FilePath)]
    trace: PathBuf,
    /// Most tokens of a step; without it, as recorded.
    #[arg(long, value_name = "TOKENS")]
    max_batch_tokens: Option<NonZeroUsize>,
    /// Most sequences that run at once; without it, as recorded.
    #[arg(long, value_name = "N")]
    max_sequences: Option<NonZeroUsize>,
    /// Order in which waiting requests are served; without it, as recorded.
    #[arg(long, value_name = "POLICY")]
    queue_policy: Option<Discipline>,
    /// Time between two tokens of a stream that steps aim at, such as 50ms, or off; without it, as recorded.
    #[arg(long, value_name = "TIME")]
    target_itl: Option<ItlTarget>,
    /// Gains of the controller.
    #[arg(long, value_name = "P,I,D", default_value_t = ItlGains::default())]
    itl_gains: ItlGains,
    /// Say what each eviction policy would have found of the pages of keys and values that the trace saw on the disk, instead
    /// of running the requests again: with so many bytes of disk, such as --eviction=1GiB,4GiB, or with parts of all that
    /// there was. Record with --kv-dir as well.
    #[arg(long, value_name = "BYTES", value_delimiter = ',', num_args = 0.., require_equals = true,
        conflicts_with_all = ["max_batch_tokens", "max_sequences", "queue_policy", "target_itl"])]
    eviction: Option<Vec<ByteSize>>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let name = arguments.trace.display();
    let entries = tidegate::read_trace(&arguments.trace).with_context(|| format!("{name}"))?;
    if let Some(budgets) = &arguments.eviction {
        let uses = eviction::uses(&entries);
        if uses.is_empty() {
            bail!("{name} saw no page of keys and values on the disk; record with --trace and --kv-dir");
        }
        let report = eviction::Report::of(&uses, budgets);
        let text = if arguments.json { format!("{}\n", report.to_json()) } else { report.to_string() };
        stdout().write_all(text.as_bytes())?;
        return Ok(Exit::Done);
    }
    let recorded = Recorded::of(entries);
    let Some(start) = &recorded.start else {
        bail!("{name} does not say what the engine ran with: its first line is missing");
    };
    if recorded.jobs.is_empty() {
        bail!("{name} holds no request that ran to its end; record for longer");
    }
    let cost = CostModel::fit(&recorded.steps).with_context(|| format!("{name} holds no step"))?;
    let replay = |settings| Ok::<_, anyhow::Error>(tidegate::simulate(&recorded.jobs, cost, settings)?);
    let same = replay(as_recorded(start)?)?;
    let other = replay(arguments.change(as_recorded(start)?))?;
    let columns = [("recorded", recorded.outcome()), ("replayed", same), ("with these settings", other)];
    let error = cost.median_error(&recorded.steps);
    let text = match arguments.json {
        true => format!("{}\n", to_json(&columns, cost, error)),
        false => table(&recorded, &columns, (cost, error)),
    };
    stdout().write_all(text.as_bytes())?;
    Ok(Exit::Done)
}

impl Arguments {
    fn change(&self, mut settings: EngineSettings) -> EngineSettings {
        settings.pid.gains = self.itl_gains.0;
        if let Some(target) = self.target_itl {
            settings.pid.target = target.0;
        }
        if let Some(policy) = self.queue_policy {
            settings.policy = policy.into();
        }
        settings.max_sequences = self.max_sequences.map_or(settings.max_sequences, NonZeroUsize::get);
        settings.max_batch_tokens =
            self.max_batch_tokens.map_or(settings.max_batch_tokens, NonZeroUsize::get);
        settings
    }
}

fn as_recorded(start: &Start) -> anyhow::Result<EngineSettings> {
    let mut settings = EngineSettings {
        max_batch_tokens: start.max_batch_tokens,
        max_sequences: start.max_sequences,
        kv: KvBudget::Pages(start.kv_pages),
        policy: start.policy.parse::<Discipline>()?.into(),
        // What was accepted then is accepted again.
        queue_requests: usize::MAX,
        queue_tokens: usize::MAX,
        ..EngineSettings::default()
    };
    settings.pid.target = start.target_us.map(Duration::from_micros);
    Ok(settings)
}

/// A trace, sorted.
#[derive(Default)]
struct Recorded {
    start: Option<Start>,
    steps: Vec<Step>,
    jobs: Vec<Job>,
    /// Requests that have no end in the trace.
    open: usize,
}

impl Recorded {
    fn of(entries: Vec<Entry>) -> Self {
        let mut recorded = Self::default();
        let mut arrivals: Vec<Arrival> = Vec::new();
        let mut ends: std::collections::HashMap<u64, End> = std::collections::HashMap::new();
        for entry in entries {
            match entry {
                Entry::Start(start) => recorded.start = Some(start),
                Entry::Step(step) => recorded.steps.push(step),
                Entry::Arrival(arrival) => arrivals.push(arrival),
                Entry::End(end) => _ = ends.insert(end.order, end),
                _ => {}
            }
        }
        arrivals.sort_by_key(|arrival| (arrival.at_us, arrival.order));
        recorded.open = arrivals.len();
        let job = |arrival: Arrival| Some(Job { end: ends.remove(&arrival.order)?, arrival });
        recorded.jobs = arrivals.into_iter().filter_map(job).collect();
        recorded.open -= recorded.jobs.len();
        recorded
    }

    /// What the trace says of itself: a stream's tokens are as far apart as the ends of the steps that gave them.
    fn outcome(&self) -> Outcome {
        let seconds = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e6;
        let gaps = self.steps.windows(2).map(|pair| (seconds(pair[0].at_us, pair[1].at_us), pair[1].decode));
        let first = self.jobs.iter().map(|job| job.arrival.at_us).min().unwrap_or(0);
        let last = self.jobs.iter().map(|job| job.end.at_us).max().unwrap_or(0);
        Outcome {
            first_token: self
                .jobs
                .iter()
                .filter_map(|job| Some(seconds(job.arrival.at_us, job.end.first_us?)))
                .collect(),
            inter_token: gaps.flat_map(|(gap, streams)| (0..streams).map(move |_| gap)).collect(),
            tokens: self.jobs.iter().map(|job| job.end.written + job.arrival.prompt - job.end.cached).sum(),
            seconds: seconds(first, last),
            completed: self.jobs.len(),
            lost: 0,
        }
    }
}

/// A figure's name, what it is in words, its unit, and how it comes from an outcome.
type Row = (&'static str, &'static str, &'static str, fn(&Outcome) -> f64);

const ROWS: &[Row] = &[
    ("itl_p50_ms", "between tokens, median", "ms", |o| percentile(&o.inter_token, 0.5) * 1e3),
    ("itl_p90_ms", "between tokens, 90th percentile", "ms", |o| percentile(&o.inter_token, 0.9) * 1e3),
    ("itl_p99_ms", "between tokens, 99th percentile", "ms", |o| percentile(&o.inter_token, 0.99) * 1e3),
    ("ttft_p50_ms", "first token, median", "ms", |o| percentile(&o.first_token, 0.5) * 1e3),
    ("ttft_p90_ms", "first token, 90th percentile", "ms", |o| percentile(&o.first_token, 0.9) * 1e3),
    ("ttft_p99_ms", "first token, 99th percentile", "ms", |o| percentile(&o.first_token, 0.99) * 1e3),
    ("tok_s", "read and written", "tokens/s", |o| o.tokens as f64 / o.seconds.max(1e-9)),
    ("completed", "requests completed", "", |o| o.completed as f64),
    ("lost", "requests refused or late", "", |o| o.lost as f64),
];

/// The value that this share of the others does not exceed; 0 without any.
fn percentile(values: &[f64], share: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

fn table(recorded: &Recorded, columns: &[(&str, Outcome)], (cost, error): (CostModel, f64)) -> String {
    let CostModel { base, decode, prompt, attended, vision } = cost;
    let mut text = format!("{} requests, {} steps", recorded.jobs.len(), recorded.steps.len());
    let seeing = recorded.jobs.iter().filter(|job| job.end.vision > 0).count();
    if seeing > 0 {
        text += &format!("; {seeing} requests showed images that had not been seen");
    }
    if recorded.open > 0 {
        text += &format!("; {} requests without an end are left out", recorded.open);
    }
    text += &format!(
        "\na step costs {:.2} ms, {:.3} ms a stream, {:.3} ms a prompt token, {:.3} ms a thousand keys (median error {:.0} %)\n\n",
        base * 1e3,
        decode * 1e3,
        prompt * 1e3,
        attended * 1e6,
        error * 100.0
    );
    if vision > 0.0 {
        let work: u64 = recorded.jobs.iter().map(|job| job.end.vision).sum();
        text.truncate(text.trim_end().len());
        text += &format!(
            "\nthe vision tower costs {:.3} ms for as much work as a prompt token is; images took that of {work} tokens\n\n",
            vision * 1e3
        );
    }
    text += &format!("{:<34}", "");
    columns.iter().for_each(|(name, _)| text += &format!("{name:>21}"));
    text.push('\n');
    for (_, words, unit, give) in ROWS {
        text += &format!("  {words:<32}");
        columns.iter().for_each(|(_, outcome)| text += &format!("{:>21.1}", give(outcome)));
        text += &format!(" {unit}");
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn to_json(columns: &[(&str, Outcome)], cost: CostModel, error: f64) -> Value {
    let mut object = json!({
        "cost": {
            "base_s": cost.base,
            "stream_s": cost.decode,
            "prompt_token_s": cost.prompt,
            "key_s": cost.attended,
            "vision_token_s": cost.vision,
            "median_error": error,
        },
    });
    for (name, outcome) in columns {
        let figures: serde_json::Map<String, Value> =
            ROWS.iter().map(|(name, _, _, give)| ((*name).to_owned(), json!(give(outcome)))).collect();
        object[name.replace(' ', "_")] = Value::Object(figures);
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        for (share, expected) in [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0), (0.0, 1.0)] {
            assert!((percentile(&values, share) - expected).abs() < 1e-9);
        }
        assert!(percentile(&[], 0.5).abs() < 1e-9);
    }
}
