//! `cargo xtask load`: a server under the load of many clients, judged by what every one of them sees.
//!
//! Three tenants, one of them with twice the weight, keep more requests waiting than the server can run. Clients of all
//! three go away in the middle of replies, and send what no server can answer. Then come bursts of ten times what may
//! wait, and conversations about pictures with a model that sees. Everything is drawn from a seed; everything happens on this machine.

mod client;
mod mix;
mod pictures;
mod server;
mod tally;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use tokio::runtime::Builder;

use client::Heard;
use mix::{Mix, TENANTS};
use server::Server;
use tally::{Bar, Tally, share};

/// Sequences that the server runs at once.
pub(crate) const SEQUENCES: usize = 16;
/// Requests that may wait while tenants compete: all that they keep going.
const PATIENT: usize = 256;
/// Requests that may wait while bursts come.
const IMPATIENT: usize = 32;
/// Requests that a tenant keeps going for each unit of its weight: patient ones wait long, and a tenant all of whose
/// requests do has nothing to ask for its share with.
const ABREAST: usize = 24;
/// What a burst is of what may wait.
const BURST: usize = 10;
/// Memory that a server may hold more at the end than after its first requests.
const GROWTH: u64 = 16 << 20;

/// How much load, and on what.
#[derive(Args)]
pub(crate) struct Options {
    /// The program to load [default: the debug build, made first]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// The model to load [default: the embedded one, so small that refusing costs as much as answering]
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    /// Requests with which tenants compete.
    #[arg(long, value_name = "N", default_value_t = 3000)]
    requests: usize,
    /// Bursts.
    #[arg(long, value_name = "N", default_value_t = 10)]
    bursts: usize,
    /// Requests about pictures; with 0 there are none.
    #[arg(long, value_name = "N", default_value_t = 300)]
    pictures: usize,
    /// What all chance is drawn from.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Fail only for what must hold on every machine, however busy it is: not for speed.
    #[arg(long)]
    lenient: bool,
}

/// Runs the load and prints what came of it; the exit code is 1 if a bar is missed.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => crate::verify::built_program()?,
    };
    let runtime = Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let bars = runtime.block_on(async {
        let mut bars = compete(&binary, options).await?;
        bars.extend(overload(&binary, options).await?);
        if options.pictures > 0 {
            bars.extend(pictures::soak(&binary, options.pictures, options.seed).await?);
        }
        Ok::<_, anyhow::Error>(bars)
    })?;
    let mut met = true;
    for bar in &bars {
        println!("{bar}");
        met &= bar.is_met() || (options.lenient && bar.is_of_speed());
    }
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tenants of different weights want more than there is.
async fn compete(binary: &std::path::Path, options: &Options) -> Result<Vec<Bar>> {
    let mut server = Server::start((binary, options.model.as_deref()), PATIENT, &[]).await?;
    let warm = Mix::new(options.seed ^ 0xff, options.requests / 10);
    keep_going(&server, &warm).await?;
    let before = server.resident()?;
    let mix = Mix::new(options.seed, options.requests);
    let tally = keep_going(&server, &mix).await?;
    let mut bars = tally.fairness();
    bars.push(Bar::none("requests whose reply ended in no way or in two", tally.unended()));
    bars.push(Bar::none("malformed requests that were not told so", tally.unchecked()));
    bars.extend(settled(&server, &tally).await?);
    let grown = server.resident()?.saturating_sub(before);
    bars.push(Bar::most("memory held more than after the first tenth, in MiB", mib(grown), mib(GROWTH)));
    server.stop()?;
    Ok(bars)
}

/// Bursts of ten times what may wait, against as many requests as run at once.
async fn overload(binary: &std::path::Path, options: &Options) -> Result<Vec<Bar>> {
    let mut server = Server::start((binary, options.model.as_deref()), IMPATIENT, &[]).await?;
    let whole = |count| Mix::new(options.seed ^ 0xb0, count).of_whole_replies();
    let (served, next) = (whole(options.bursts * 2 * IMPATIENT), AtomicUsize::new(0));
    let began = Instant::now();
    let peak = join_all((0..2 * SEQUENCES).map(|_| work_off(&server, &served, &next))).await;
    let peak = Tally::of(try_all(peak)?).output_rate(began.elapsed());
    let began = Instant::now();
    let tally = Tally::of(bursts(&server, options).await?);
    let mut bars = vec![
        Bar::none("requests of bursts whose reply ended in no way or in two", tally.unended()),
        Bar::none("requests of bursts that failed", tally.failed()),
        Bar::least(
            "requests of bursts that were refused, in a hundred",
            share(tally.refused(), tally.len()),
            50.0,
        ),
        Bar::least(
            "throughput under bursts of the best without, in a hundred",
            100.0 * tally.output_rate(began.elapsed()) / peak,
            97.0,
        )
        .of_speed(),
    ];
    bars.extend(settled(&server, &tally).await?);
    server.stop()?;
    Ok(bars)
}

/// Lets a burst come whenever fewer requests are left than run at once.
async fn bursts(server: &Server, options: &Options) -> Result<Vec<Heard>> {
    let mix = |burst| Mix::new(options.seed ^ (0xc0 + burst as u64), BURST * IMPATIENT).of_whole_replies();
    let mixes: Vec<Mix> = (0..options.bursts).map(mix).collect();
    let (mut asked, mut all) = (FuturesUnordered::new(), Vec::new());
    for mix in &mixes {
        asked.extend(mix.wishes().iter().map(|wish| client::ask(server, wish)));
        while asked.len() >= SEQUENCES
            && let Some(heard) = asked.next().await
        {
            all.push(heard?);
        }
    }
    while let Some(heard) = asked.next().await {
        all.push(heard?);
    }
    Ok(all)
}

/// Lets every tenant keep its requests going until all are asked.
async fn keep_going(server: &Server, mix: &Mix) -> Result<Tally> {
    let queues: Vec<_> =
        (0..TENANTS.len()).map(|tenant| (mix.of_tenant(tenant), TENANTS[tenant].1)).collect();
    // The first tenant that has nothing more to ask ends the competition: from then on shares mean nothing.
    let over = Arc::new(AtomicUsize::new(usize::MAX));
    let began = Instant::now();
    let workers = queues.iter().flat_map(|(queue, weight)| {
        let next = Arc::new(AtomicUsize::new(0));
        (0..ABREAST * *weight as usize).map(move |_| (queue, Arc::clone(&next)))
    });
    let work = workers.map(|(queue, next)| {
        let over = Arc::clone(&over);
        async move {
            let heard = work_off(server, queue, &next).await;
            over.fetch_min(began.elapsed().as_millis() as usize, Relaxed);
            heard
        }
    });
    let heard = try_all(join_all(work).await)?;
    let over = began + Duration::from_millis(over.load(Relaxed) as u64);
    Ok(Tally::of(heard).competing_until(over))
}

/// Asks what is left to ask, one after the other.
async fn work_off(server: &Server, wishes: &Mix, next: &AtomicUsize) -> Result<Vec<Heard>> {
    let mut heard = Vec::new();
    while let Some(wish) = wishes.wishes().get(next.fetch_add(1, Relaxed)) {
        heard.push(client::ask(server, wish).await?);
    }
    Ok(heard)
}

fn try_all(heard: Vec<Result<Vec<Heard>>>) -> Result<Vec<Heard>> {
    Ok(heard.into_iter().collect::<Result<Vec<_>>>()?.concat())
}

/// What the server says of itself once nobody asks any more: all that it accepted has ended, and nothing is held.
async fn settled(server: &Server, tally: &Tally) -> Result<Vec<Bar>> {
    let metrics = server.idle().await?;
    let ended = metrics.sum("tidegate_requests_completed_total")
        + metrics.sum("tidegate_requests_failed_total")
        + metrics.sum("tidegate_requests_cancelled_total");
    let accepted = metrics.sum("tidegate_requests_accepted_total");
    ensure!(accepted > 0.0, "the server's metrics do not say how many requests it accepted");
    let preparing = metrics.labelled("tidegate_requests_cancelled_total", "preparing");
    let held = metrics.sum("tidegate_kv_pages_used") + metrics.sum("tidegate_requests_queued");
    Ok(vec![
        Bar::none("accepted requests without exactly one end", (accepted + preparing - ended).abs() as usize),
        Bar::none("pages and places still held", held as usize),
        Bar::least(
            "requests that were answered, as a check of the load itself",
            tally.answered() as f64,
            1.0,
        ),
    ])
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
