//! `tidegate bench --floor`: how near every part of a forward pass comes to what the machine can do at all.
//!
//! The least time a part can take is the larger of its bytes over the read bandwidth and its operations over the peak of
//! its arithmetic; its share is that time over the time it took. Passes run one after the other without an engine around
//! them, on made-up tokens over pages of made-up keys and values, since only shapes matter.
//!
//! What a machine gives changes from one tenth of a second to the next where others share it. So shares are taken of what it
//! gave right before and after a pass, and the machine's most is shown beside.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use engine::sampler::{Ask, History, Place, Sampler, Settings, threads_for};
use models::{Batch, CausalLm, Outputs};
use serde_json::{Value, json};
use tensor::peak::{Arithmetic, Peaks, Prober};
use tensor::timed::{Cost, Costs, Stage};
use tensor::{KvArena, PAGE_TOKENS, PerThread, Pool, Product, Timed};
use tidegate::settings::InferenceSettings;

/// Passes of a load; the one of the median share is shown.
const PASSES: usize = 9;

/// What one pass computes: so many sequences that have so many tokens behind them and get so many new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    sequences: usize,
    context: usize,
    rows: usize,
}

/// A prompt in one piece, and steps of few and of many sequences in the middle of their outputs.
const LOADS: [Load; 4] = [
    Load { sequences: 1, context: 0, rows: 512 },
    Load { sequences: 1, context: 512, rows: 1 },
    Load { sequences: 8, context: 192, rows: 1 },
    Load { sequences: 32, context: 192, rows: 1 },
];

impl Load {
    /// What fits into a context of `context` tokens.
    fn within(self, context: usize) -> Self {
        let rows = self.rows.min(context);
        Self { rows, context: self.context.min(context - rows), ..self }
    }

    fn tokens(self) -> usize {
        self.context + self.rows
    }

    fn words(self) -> String {
        let Self { sequences, context, rows } = self;
        match rows {
            1 => format!("{sequences} x 1 token after {context}"),
            _ => format!("{sequences} x {rows} tokens read"),
        }
    }
}

/// One pass, without sampling.
struct Pass {
    wall: Duration,
    costs: Costs,
    /// What the machine gave around it.
    peaks: Peaks,
}

/// What a load took.
pub(super) struct Measured {
    load: Load,
    pass: Pass,
    /// How tokens were chosen, and how long it took for all sequences.
    sampled: Vec<(&'static str, Duration)>,
}

/// What the machine reaches at most, and what the model's passes take.
pub(super) struct Report {
    name: String,
    precision: String,
    compute: String,
    /// With one thread and with as many as the model runs on.
    peaks: Vec<Peaks>,
    measured: Vec<Measured>,
}

/// Measures the machine and then the model that the settings name.
///
/// # Errors
/// When the model cannot be loaded, or memory is refused.
pub(super) fn measure(settings: &InferenceSettings) -> anyhow::Result<Report> {
    let mut settings = settings.clone();
    let most = |of: fn(Load) -> usize| NonZeroUsize::new(LOADS.map(of).into_iter().fold(1, usize::max));
    settings.batch.max_batch_tokens = most(|load| load.sequences * load.rows).context("loads have rows")?;
    settings.batch.max_sequences = most(|load| load.sequences).context("loads have sequences")?;
    let mut slot = None;
    let loaded = tidegate::load(&settings, |kernels| slot.insert(Arc::new(Timed::new(kernels))).clone())?;
    let timed = slot.context("a model computes with the kernels that it is given")?;
    let all = Prober::new(loaded.isa, loaded.threads)?;
    let one = (loaded.threads > 1).then(|| Prober::new(loaded.isa, 1)).transpose()?;
    let peaks = || one.iter().chain([&all]).map(Prober::most);
    let before: Vec<Peaks> = peaks().collect();
    let precision = loaded.model.precision();
    let measured = all_loads(loaded.model.model, &timed, &all)?;
    let mut peaks: Vec<Peaks> =
        before.into_iter().zip(peaks()).map(|(before, after)| before.better(after)).collect();
    if let Some(most) = peaks.last_mut() {
        *most = measured.iter().fold(*most, |most, one| most.better(one.pass.peaks));
    }
    Ok(Report { peaks, precision, measured, name: loaded.name, compute: loaded.compute })
}

fn all_loads(mut model: Box<dyn CausalLm>, timed: &Timed, prober: &Prober) -> anyhow::Result<Vec<Measured>> {
    let shape = model.shape();
    let loads = LOADS.map(|load| load.within(shape.max_positions));
    let pages = |load: &Load| load.sequences * load.tokens().div_ceil(PAGE_TOKENS);
    let mut kv = KvArena::new(shape.kv, loads.iter().map(pages).max().unwrap_or(0))?;
    // Memory that was never written would be read from one page of zeros.
    kv.bytes_mut().fill(0x11);
    Ok(loads.into_iter().map(|load| one_load((&mut *model, timed), &mut kv, load, prober)).collect())
}

fn one_load(
    (model, timed): (&mut dyn CausalLm, &Timed),
    kv: &mut KvArena,
    load: Load,
    prober: &Prober,
) -> Measured {
    let vocabulary = model.shape().vocabulary;
    let batch = batch(load, vocabulary);
    // The first pass touches memory for the first time.
    model.forward(&batch, kv);
    let mut before = prober.now();
    let pass = |_| {
        timed.take();
        let start = Instant::now();
        model.forward(&batch, kv);
        let (wall, costs) = (start.elapsed(), timed.take());
        let after = prober.now();
        let peaks = std::mem::replace(&mut before, after).better(after);
        Pass { wall, costs, peaks }
    };
    let mut passes: Vec<Pass> = (0..PASSES).map(pass).collect();
    passes.sort_by(|a, b| a.share().total_cmp(&b.share()));
    let pass = passes.swap_remove(PASSES / 2);
    let Outputs { logits, pool, .. } = model.forward(&batch, kv);
    let rows: Vec<&[f32]> = logits.chunks_exact(vocabulary).collect();
    let settings = [
        ("greedy", Settings { temperature: 0.0, ..Settings::default() }),
        ("top-k 20, top-p 0.95", Settings { top_k: 20, top_p: 0.95, ..Settings::default() }),
        ("top-p 0.95", Settings { top_p: 0.95, ..Settings::default() }),
    ];
    let sampled = settings.map(|(name, settings)| (name, sample(&rows, pool, &settings))).to_vec();
    Measured { load, pass, sampled }
}

/// Made-up tokens; sequences have their pages by turns, as after some time of serving.
fn batch(load: Load, vocabulary: usize) -> Batch {
    let mut batch = Batch::default();
    let pages = load.tokens().div_ceil(PAGE_TOKENS);
    for sequence in 0..load.sequences {
        let table: Vec<u32> = (0..pages).map(|page| (page * load.sequences + sequence) as u32).collect();
        let tokens: Vec<u32> =
            (0..load.rows).map(|row| ((sequence * 131 + row * 7919) % vocabulary) as u32).collect();
        batch.push(&tokens, load.context, &table);
        batch.want_last(1);
    }
    batch
}

/// The time of choosing a token for every row, the median of several times.
fn sample(rows: &[&[f32]], pool: Option<&Pool>, settings: &Settings) -> Duration {
    let (mut samplers, history) = (PerThread::<Sampler>::default(), History::default());
    let pool = threads_for(pool, rows.len(), rows.iter().map(|row| row.len()).sum());
    let mut times: Vec<Duration> = (0..=PASSES)
        .map(|pass| {
            let place = Place { seed: 7, choice: 0, position: pass as u64 };
            let ask = Ask { settings, history: &history, suppressed: &[], allowed: None, place };
            let start = Instant::now();
            samplers.for_each(rows, pool, |sampler, row| {
                black_box(sampler.sample(row, &ask));
            });
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// What a person calls a stage.
fn words(stage: Stage) -> &'static str {
    match stage {
        Stage::Product(Product::Qkv) => "queries, keys, values",
        Stage::Product(Product::Out) => "attention's output",
        Stage::Product(Product::Up) => "gate and up",
        Stage::Product(Product::Down) => "down",
        Stage::Product(Product::Head) => "logits",
        Stage::Product(Product::Other) => "other products",
        Stage::Attention => "attention",
        Stage::Rows => "norms, rope, activation",
        Stage::Embedding => "embedding",
    }
}

/// The least seconds that this work can take.
fn floor(cost: &Cost, peaks: &Peaks) -> f64 {
    let operations = Arithmetic::ALL.into_iter().zip(cost.operations);
    let computing: f64 = operations.map(|(kind, count)| count as f64 / peaks.of(kind)).sum();
    computing.max(cost.bytes as f64 / peaks.bandwidth)
}

/// A line of the table: a stage that was there, or all of them.
struct Line {
    name: &'static str,
    seconds: f64,
    bytes: u64,
    operations: u64,
    floor: f64,
}

impl Pass {
    /// The share of the floor that the whole pass reaches.
    fn share(&self) -> f64 {
        self.costs.iter().map(|cost| floor(cost, &self.peaks)).sum::<f64>() / self.wall.as_secs_f64()
    }

    fn lines(&self) -> Vec<Line> {
        let Self { peaks, .. } = self;
        let stages = Stage::ALL.into_iter().zip(&self.costs).filter(|(_, cost)| cost.calls > 0);
        let line = |(stage, cost): (Stage, &Cost)| Line {
            name: words(stage),
            seconds: cost.time.as_secs_f64(),
            bytes: cost.bytes,
            operations: cost.operations.iter().sum(),
            floor: floor(cost, peaks),
        };
        let mut lines: Vec<Line> = stages.map(line).collect();
        let sum = |of: fn(&Line) -> f64| lines.iter().map(of).sum::<f64>();
        let (floor, known) = (sum(|line| line.floor), sum(|line| line.seconds));
        let bytes = lines.iter().map(|line| line.bytes).sum();
        let operations = lines.iter().map(|line| line.operations).sum();
        let wall = self.wall.as_secs_f64();
        lines.push(Line { name: "between them", seconds: wall - known, bytes: 0, operations: 0, floor: 0.0 });
        lines.push(Line { name: "the whole pass", seconds: wall, bytes, operations, floor });
        lines
    }
}

impl Measured {
    fn table(&self) -> String {
        let wall = self.pass.wall.as_secs_f64();
        let mut text = format!(
            "\n{}; the machine around it:\n{}  {:<24}{:>10} {:>7}{:>10}{:>10}{:>9}{:>9}{:>7}\n",
            self.load.words(),
            machine_line(&self.pass.peaks),
            "",
            "ms",
            "of all",
            "MB",
            "GFLOP",
            "GB/s",
            "GFLOP/s",
            "floor"
        );
        for Line { name, seconds, bytes, operations, floor } in self.pass.lines() {
            let (bytes, operations) = (bytes as f64, operations as f64);
            text += &format!(
                "  {name:<24}{:>10.3} {:>5.1} %{:>10.2}{:>10.3}{:>9.1}{:>9.1}{:>5.0} %\n",
                seconds * 1e3,
                100.0 * seconds / wall,
                bytes / 1e6,
                operations / 1e9,
                bytes / seconds / 1e9,
                operations / seconds / 1e9,
                100.0 * floor / seconds
            );
        }
        for (how, time) in &self.sampled {
            let share = 100.0 * time.as_secs_f64() / wall;
            text +=
                &format!("  {:<24}{:>10.3} {share:>5.1} %   {how}\n", "sampling", time.as_secs_f64() * 1e3);
        }
        text
    }

    fn json(&self) -> Value {
        let stage = |line: &Line| {
            json!({
                "stage": line.name,
                "ms": line.seconds * 1e3,
                "bytes": line.bytes,
                "operations": line.operations,
                "floor_ms": line.floor * 1e3,
                "floor_share": line.floor / line.seconds,
            })
        };
        let sampled = |(how, time): &(&str, Duration)| json!({ "how": how, "ms": time.as_secs_f64() * 1e3 });
        json!({
            "sequences": self.load.sequences,
            "context": self.load.context,
            "rows": self.load.rows,
            "machine": machine_json(&self.pass.peaks),
            "stages": self.pass.lines().iter().map(stage).collect::<Vec<_>>(),
            "sampling": self.sampled.iter().map(sampled).collect::<Vec<_>>(),
        })
    }
}

/// What a machine reaches, for a person.
fn machine_line(peaks: &Peaks) -> String {
    let plural = if peaks.threads == 1 { " " } else { "s" };
    let mut text = format!("  {:>3} thread{plural} {:>8.1} GB/s read", peaks.threads, peaks.bandwidth / 1e9);
    for kind in Arithmetic::ALL {
        text += &format!("{:>9.0} GFLOP/s {}", peaks.of(kind) / 1e9, kind.name());
    }
    text + "\n"
}

/// What a machine reaches, for a program.
fn machine_json(peaks: &Peaks) -> Value {
    let mut object = json!({ "threads": peaks.threads, "read_bytes_per_s": peaks.bandwidth });
    for kind in Arithmetic::ALL {
        object[format!("{}_per_s", kind.name())] = json!(peaks.of(kind));
    }
    object
}

impl Report {
    /// All of it for a person.
    pub(super) fn table(&self) -> String {
        let Self { name, precision, compute, peaks, measured } = self;
        let machine: String = peaks.iter().map(machine_line).collect();
        let head = format!("{name}, {precision}, {compute}; the machine at most:\n{machine}");
        std::iter::once(head).chain(measured.iter().map(Measured::table)).collect()
    }

    /// All of it for a program.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "peer": "tidegate",
            "version": env!("CARGO_PKG_VERSION"),
            "model": self.name,
            "precision": self.precision,
            "compute": self.compute,
            "machine": self.peaks.iter().map(machine_json).collect::<Vec<_>>(),
            "loads": self.measured.iter().map(Measured::json).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEAKS: Peaks = Peaks { threads: 2, bandwidth: 100.0, operations: [10.0, 20.0, 40.0] };

    #[test]
    fn the_floor_is_memory_or_arithmetic_whichever_takes_longer() {
        let cost = |bytes, operations| Cost { bytes, operations, ..Cost::default() };
        assert_eq!(floor(&cost(300, [0, 0, 0]), &PEAKS), 3.0);
        assert_eq!(floor(&cost(300, [0, 20, 40]), &PEAKS), 3.0);
        assert_eq!(floor(&cost(300, [40, 20, 40]), &PEAKS), 6.0);
    }

    #[test]
    fn what_no_stage_took_stands_between_them_and_the_parts_make_the_whole() {
        let mut costs = Costs::default();
        costs[0] = Cost { calls: 1, time: Duration::from_secs(1), bytes: 50, operations: [0; 3] };
        costs[3] = Cost { calls: 2, time: Duration::from_secs(2), bytes: 50, operations: [10, 0, 0] };
        let pass = Pass { wall: Duration::from_secs(4), costs, peaks: PEAKS };
        let lines = pass.lines();
        let seconds: Vec<f64> = lines.iter().map(|line| line.seconds).collect();
        assert_eq!(seconds, [1.0, 2.0, 1.0, 4.0]);
        assert_eq!((lines[3].floor, lines[3].bytes, lines[3].operations), (1.5, 100, 10));
    }

    #[test]
    fn loads_fit_into_a_short_context() {
        for load in LOADS.map(|load| load.within(100)) {
            assert!(load.tokens() <= 100 && load.rows >= 1, "{load:?}");
        }
    }
}
