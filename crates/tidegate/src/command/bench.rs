//! `tidegate bench`: what the whole engine delivers on made-up prompts of an exact length.
//!
//! All requests of a run arrive at once, are greedy, ignore the end-of-sequence token and write exactly as many tokens
//! as asked for. Times are taken where a client would take them, at the event stream. The figures and their names are
//! those that the scripts for other engines print, so that runs can take turns and be compared.

mod bursts;
mod floor;
mod host;
mod measure;

use std::io::{Write, stdout};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;
use futures::StreamExt;
use futures::future::try_join_all;
use indicatif::{ProgressBar, ProgressStyle};
use protocol::{Event, GenerateRequest, Generation, Inference, Prompt};
use serde_json::{Value, json};
use tidegate::Opened;
use tidegate::settings::{InferenceSettings, LogSettings, TimeSpan};
use tokio::runtime::Builder;

use super::summary::greeting;
use super::{Exit, Talk, loading, logging};
use host::{Busy, Memory};
use measure::{Arrival, BURST_ROWS, Figure, Measured, ROWS, Stream, summarise};

// What made-up prompts are continued with may well repeat itself, unlike most texts, and peers try nothing ahead.
#[derive(Args, Debug)]
#[command(mut_arg("speculation", |arg| arg.default_value("off")))]
pub(super) struct Arguments {
    /// Tokens of every prompt.
    #[arg(long, value_name = "N", default_value = "512")]
    prompt: NonZeroUsize,
    /// Tokens at the beginning of every prompt that all requests of a run share. One request reads them before; the
    /// figures are of those that find them in the prefix cache, beside the first token of the one that did not.
    #[arg(long, value_name = "N", default_value_t = 0)]
    prefix: usize,
    /// Tokens that every request writes.
    #[arg(long, value_name = "N", default_value = "128")]
    out: NonZeroU32,
    /// Requests that arrive at once.
    #[arg(long, value_name = "N", default_value = "1")]
    concurrency: NonZeroUsize,
    /// Instead, let the requests above write streams while so many bursts of other requests, with prompts of the given
    /// length, come and are read beside them.
    #[arg(long, value_name = "N", conflicts_with = "prefix")]
    bursts: Option<NonZeroUsize>,
    /// Requests of a burst.
    #[arg(long, value_name = "N", default_value = "4", requires = "bursts")]
    burst_size: NonZeroUsize,
    /// Time from one burst to the next, and to the first.
    #[arg(long, value_name = "TIME", default_value = "2s", requires = "bursts")]
    burst_every: TimeSpan,
    /// Measured runs; figures are medians over them.
    #[arg(long, value_name = "N", default_value = "3")]
    repeat: NonZeroUsize,
    /// Runs before them that are not measured.
    #[arg(long, value_name = "N", default_value_t = 1)]
    warmup: usize,
    #[command(flatten)]
    subject: Subject,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    inference: InferenceSettings,
    #[command(flatten)]
    log: LogSettings,
}

/// What is measured.
#[derive(Args, Debug)]
struct Subject {
    /// Instead of a load of requests, measure what the machine can do at most and how near each part of a forward pass
    /// comes to it.
    #[arg(long, conflicts_with_all = ["prompt", "out", "concurrency", "repeat", "warmup"])]
    floor: bool,
}

/// The load of one run.
#[derive(Clone, Copy, Debug)]
struct Load {
    prompt: usize,
    prefix: usize,
    out: u32,
    concurrency: usize,
}

impl Load {
    /// As much as it takes to touch all memory and to wake all threads.
    fn warming(self) -> Self {
        Self { out: self.out.min(8), ..self }
    }
}

impl Arguments {
    fn load(&self) -> Load {
        Load {
            prompt: self.prompt.get(),
            prefix: self.prefix,
            out: self.out.get(),
            concurrency: self.concurrency.get(),
        }
    }

    fn plan(&self) -> Option<bursts::Plan> {
        let (size, every) = (self.burst_size.get(), self.burst_every.0);
        self.bursts.map(|bursts| bursts::Plan { bursts: bursts.get(), size, every })
    }

    /// The settings with room for the load: a benchmark that waits for its own limits would measure them.
    fn roomy(&self) -> InferenceSettings {
        let mut settings = self.inference.clone();
        let (load, batch, queue) = (self.load(), &mut settings.batch, &mut settings.queue);
        batch.max_sequences = batch.max_sequences.max(self.concurrency);
        batch.max_batch_tokens = batch.max_batch_tokens.max(batch.max_sequences);
        queue.max_queue = queue.max_queue.max(self.concurrency);
        let tokens = NonZeroUsize::new(load.prompt.saturating_mul(load.concurrency));
        queue.max_queue_tokens = queue.max_queue_tokens.max(tokens.unwrap_or(NonZeroUsize::MIN));
        settings
    }
}

pub(super) fn run(arguments: Arguments, talk: Talk) -> anyhow::Result<Exit> {
    logging::start(&arguments.log, "warn")?;
    if arguments.subject.floor {
        let report = floor::measure(&arguments.inference)?;
        let text = if arguments.json { format!("{}\n", report.to_json()) } else { report.table() };
        stdout().write_all(text.as_bytes())?;
        return Ok(Exit::Done);
    }
    let runtime = Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let Some(opened) = loading::wait(&runtime, arguments.roomy(), talk)? else {
        return Ok(Exit::Interrupted);
    };
    let loaded = Memory::now();
    let load = arguments.load();
    check_room(&opened, load)?;
    if talk == Talk::Normal {
        eprintln!("{}", greeting(&opened.summary));
    }
    let total = arguments.warmup + arguments.repeat.get();
    let progress = progress(&arguments, talk);
    let (mut runs, mut burst_runs) = (Vec::new(), Vec::new());
    for index in 0..total {
        let warming = index < arguments.warmup;
        let load = if warming { load.warming() } else { load };
        let (vocabulary, seed) = (opened.summary.card.vocabulary, 1000 * index as u64 + 7);
        if let Some(plan) = arguments.plan().filter(|_| !warming) {
            let run = bursts::measure(&opened.inference, (load, plan), (vocabulary, seed), &progress);
            burst_runs.push(runtime.block_on(run)?);
            continue;
        }
        let prompts = prompts(load, vocabulary, seed);
        let measured = runtime.block_on(measure(&opened.inference, prompts, load, &progress))?;
        if !warming {
            runs.push(measured);
        }
    }
    progress.finish_and_clear();
    let mut figures = summarise(&runs, ROWS);
    figures.extend(summarise(&burst_runs, BURST_ROWS));
    let memory = Memory { after_load: loaded.resident, ..Memory::now() };
    let text = match arguments.json {
        true => format!("{}\n", to_json(&arguments, &opened, &figures, (&runs, memory))),
        false => table(load, &figures, memory) + &tried(&opened),
    };
    stdout().write_all(text.as_bytes())?;
    Ok(Exit::Done)
}

fn check_room(opened: &Opened, load: Load) -> anyhow::Result<()> {
    if load.prefix >= load.prompt {
        bail!(
            "prompts of {} tokens cannot begin with {} that they share and go on with some of their own; lower --prefix",
            load.prompt,
            load.prefix
        );
    }
    let (needed, context) = (load.prompt + load.out as usize, opened.summary.card.context as usize);
    if needed > context {
        bail!(
            "a prompt of {} and an output of {} tokens need {needed}, but the context of {} holds {context}; \
             lower --prompt or --out",
            load.prompt,
            load.out,
            opened.summary.card.id
        );
    }
    Ok(())
}

fn progress(arguments: &Arguments, talk: Talk) -> ProgressBar {
    if talk == Talk::Quiet {
        return ProgressBar::hidden();
    }
    let (load, repeat) = (arguments.load(), arguments.repeat.get() as u64);
    let warming = arguments.warmup as u64 * u64::from(load.warming().out);
    let requests = load.concurrency as u64 + u64::from(load.prefix > 0);
    let tokens = requests * (warming + repeat * u64::from(load.out));
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} tokens, {per_sec}, {eta} left");
    ProgressBar::new(tokens).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Prompts that share their prefix and nothing else, so that no other cache can help; with a prefix, one more for the
/// request that reads it. The lowest ids are left out: they are special tokens and single bytes in most vocabularies.
fn prompts(load: Load, vocabulary: u32, seed: u64) -> Vec<Vec<u32>> {
    let first = 300.min(vocabulary / 2);
    let mut random = SplitMix(seed);
    let mut tokens =
        |count: usize| -> Vec<u32> { (0..count).map(|_| first + random.below(vocabulary - first)).collect() };
    let prefix = tokens(load.prefix);
    let requests = load.concurrency + usize::from(load.prefix > 0);
    (0..requests).map(|_| [&prefix[..], &tokens(load.prompt - load.prefix)].concat()).collect()
}

/// The generator of Steele, Lea and Flood (2014): small, and the same everywhere.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u32) -> u32 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u32
    }
}

/// Lets all requests arrive at once and follows them to their ends; with a prefix, after one that reads it.
async fn measure(
    inference: &Arc<dyn Inference>,
    mut prompts: Vec<Vec<u32>>,
    load: Load,
    progress: &ProgressBar,
) -> anyhow::Result<Measured> {
    let together = prompts.split_off(usize::from(load.prefix > 0));
    let cold = streams(inference, prompts, load.out, progress).await?.pop();
    let (busy, start) = (Busy::now(), Instant::now());
    let streams = streams(inference, together, load.out, progress).await?;
    let wall = start.elapsed();
    Ok(Measured { prompt: load.prompt, wall, streams, cold, others: busy.others_until_now(wall) })
}

async fn streams(
    inference: &Arc<dyn Inference>,
    prompts: Vec<Vec<u32>>,
    out: u32,
    progress: &ProgressBar,
) -> anyhow::Result<Vec<Stream>> {
    let start = Instant::now();
    let requests = prompts.into_iter().enumerate().map(|(index, tokens)| request(index, tokens, out));
    let streams = requests.map(|request| async {
        let generation = inference.generate(request).await?;
        arrivals(generation, start, progress).await
    });
    let streams = try_join_all(streams).await?;
    match streams.iter().map(Stream::tokens).find(|found| *found != u64::from(out)) {
        Some(found) => bail!("a request wrote {found} tokens instead of {out}"),
        None => Ok(streams),
    }
}

fn request(index: usize, tokens: Vec<u32>, out: u32) -> GenerateRequest {
    let mut request = GenerateRequest::new(format!("bench-{index}"), Prompt::Tokens(tokens));
    request.sampling.temperature = Some(0.0);
    request.sampling.repetition_penalty = Some(1.0);
    request.limits.max_tokens = Some(out);
    request.limits.ignore_eos = true;
    request
}

async fn arrivals(
    mut generation: Generation,
    start: Instant,
    progress: &ProgressBar,
) -> anyhow::Result<Stream> {
    let mut stream = Stream::default();
    while let Some(event) = generation.next().await {
        match event {
            Event::Delta(delta) if !delta.tokens.is_empty() => {
                let tokens = delta.tokens.len() as u64;
                stream.arrivals.push(Arrival { at: start.elapsed(), tokens });
                progress.inc(tokens);
            }
            Event::Failed(failure) => return Err(failure.into()),
            _ => {}
        }
    }
    Ok(stream)
}

fn to_json(
    arguments: &Arguments,
    opened: &Opened,
    figures: &[Figure],
    (runs, memory): (&[Measured], Memory),
) -> Value {
    let (load, summary) = (arguments.load(), &opened.summary);
    let mut object = json!({
        "peer": "tidegate",
        "version": env!("CARGO_PKG_VERSION"),
        "model": summary.card.id,
        "precision": summary.card.dtype,
        "compute": summary.compute,
        "prompt": load.prompt,
        "prefix": load.prefix,
        "out": load.out,
        "concurrency": load.concurrency,
        "threads": summary.threads,
        "load_s": round(summary.took.as_secs_f64()),
        "rss_after_load_mb": memory.after_load,
        "peak_rss_mb": memory.peak,
        "loadavg": host::load_average(),
    });
    for figure in figures {
        object[figure.name] = json!(round(figure.median));
        object[format!("{}_spread", figure.name)] = json!([round(figure.least), round(figure.most)]);
    }
    let counters = opened.inference.status().counters;
    object["drafted"] = json!(counters.drafted);
    object["draft_hits"] = json!(counters.draft_hits);
    object["other_cpu"] = runs.iter().map(|run| round(run.others.cores)).collect();
    object["steal_cpu"] = runs.iter().map(|run| round(run.others.stolen)).collect();
    object
}

fn round(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// What speculation has come to.
fn tried(opened: &Opened) -> String {
    let counters = opened.inference.status().counters;
    match counters.drafted {
        0 => String::new(),
        drafted => {
            format!("  {:<34}{drafted:>10} tokens, {} came true\n", "tried ahead", counters.draft_hits)
        }
    }
}

fn table(load: Load, figures: &[Figure], memory: Memory) -> String {
    let Load { prompt, prefix, out, concurrency } = load;
    let mut text = format!("{concurrency} x {prompt} tokens in, {out} tokens out");
    text += &if prefix > 0 { format!("; the first {prefix} are held\n") } else { "\n".to_owned() };
    for figure in figures {
        let Figure { words, unit, median, least, most, .. } = figure;
        text += &format!("  {words:<34}{median:>10.1} {unit:<9} ({least:.1} to {most:.1})\n");
    }
    text += &format!("  {:<34}{:>10} MB\n", "peak memory", memory.peak);
    text
}
