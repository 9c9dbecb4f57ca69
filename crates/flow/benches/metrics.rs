//! What measuring costs: nanoseconds a record, and the share that it adds to 20 µs of work.

mod measure;

use std::hint::black_box;
use std::time::{Duration, Instant};

use flow::Metrics;
use flow::metrics::{Histogram, System, Track};

use measure::{Contender, compare, time};

const RECORDS: u32 = 1_000_000;
const WORK: Duration = Duration::from_micros(20);
/// So many items are worked on with measuring and then without, in turns.
const BLOCK: u32 = 50;
const TURNS: usize = 200;

/// Work that reads no clock and no memory.
fn spin(rounds: u64) {
    let mut state = 1_u64;
    for _ in 0..rounds {
        state = black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
}

/// So many rounds take as long as the work.
fn rounds() -> u64 {
    let probe = 1_000_000;
    let fastest = (0..10).map(|_| time(|| spin(probe))).min().unwrap_or(WORK);
    (probe as f64 * WORK.as_secs_f64() / fastest.as_secs_f64()) as u64
}

fn nanos_each(work: impl Fn()) -> f64 {
    let took = time(|| (0..RECORDS).for_each(|_| work()));
    took.as_nanos() as f64 / f64::from(RECORDS)
}

/// How much longer the work takes when it is measured, in percent. Blocks with and without take turns every
/// millisecond and are compared in pairs, and the pair in the middle counts, so that what else runs on the machine
/// hits both alike.
fn overhead(rounds: u64, measured: impl Fn(u64)) -> f64 {
    let block = |item: &dyn Fn(u64)| time(|| (0..BLOCK).for_each(|_| item(rounds))).as_secs_f64();
    let mut ratios: Vec<f64> = (0..TURNS)
        .map(|turn| {
            // Who comes first takes turns as well.
            if turn % 2 == 0 {
                let on = block(&measured);
                on / block(&spin)
            } else {
                let off = block(&spin);
                block(&measured) / off
            }
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    (ratios[TURNS / 2] - 1.0) * 100.0
}

fn tracked(track: &Track) -> impl Fn(u64) {
    move |rounds| {
        let _timing = track.start();
        spin(rounds);
    }
}

fn main() {
    let (metrics, histogram) = (Metrics::new(), Histogram::new());
    let (track, counter) = (metrics.tracked("work"), metrics.counter("items"));
    let off = Metrics::off().tracked("work");
    compare(
        "one record",
        "ns",
        vec![
            Contender::new("read the clock twice", || {
                nanos_each(|| {
                    black_box(Instant::now().elapsed());
                })
            }),
            Contender::new("Histogram::record", || nanos_each(|| histogram.record(black_box(WORK)))),
            Contender::new("Counter::add", || nanos_each(|| counter.add(black_box(1)))),
            Contender::new("Track::start and drop, clock included", || nanos_each(|| drop(track.start()))),
            Contender::new("Metrics::track by name and drop", || nanos_each(|| drop(metrics.track("work")))),
            Contender::new("Track::start and drop, switched off", || nanos_each(|| drop(off.start()))),
        ],
    );
    let rounds = rounds();
    let shares = compare(
        "metrics on against off at 20 µs of work",
        "% more time",
        vec![
            Contender::new("off against off", || overhead(rounds, spin)),
            Contender::new("Track", || overhead(rounds, tracked(&track))),
            Contender::new("Metrics::track by name", || {
                overhead(rounds, |rounds| {
                    let _timing = metrics.track("work");
                    spin(rounds);
                })
            }),
        ],
    );
    for share in &shares[1..] {
        let verdict = if share.median() <= 1.0 { "met" } else { "MISSED" };
        println!("  {} costs {:.2} %; the bar is 1 %: {verdict}", share.name, share.median());
    }
    let snapshots = vec![
        Contender::new("Metrics::snapshot, one track", || {
            time(|| drop(black_box(metrics.snapshot()))).as_secs_f64() * 1e6
        }),
        Contender::new("System: process and memory", || {
            let look = || black_box((System::here().process(), System::here().memory()));
            time(|| _ = look()).as_secs_f64() * 1e6
        }),
    ];
    compare("one look", "µs", snapshots);
}
