//! A machine whose cost is known, recorded and run again.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use protocol::{Adjustment, Inference, Priority};

use super::bench::{Bench, loaded, settings as bench_settings, tokens};
use super::model::HashModel;
use crate::simulation::{CostModel, Job, Outcome, replay};
use crate::trace::{Arrival, End, Entry, Recorder, Step};
use crate::{EngineSettings, KvBudget, PidSettings};

const COST: CostModel =
    CostModel { base: 0.004, decode: 0.001, prompt: 0.0005, attended: 0.0, vision: 0.0008 };

fn step(decode: u64, prompt: u64, attended: u64, cost: CostModel) -> Step {
    let took_us = cost.step(decode, prompt, attended).as_micros() as u64;
    Step { at_us: 0, took_us, decode, prompt, attended, vision: 0, vision_us: 0 }
}

#[test]
fn the_cost_of_a_step_is_found_from_steps() {
    let cost = CostModel { attended: 2e-7, ..COST };
    let steps: Vec<Step> = (0..200).map(|i| step(i % 9, (i * 37) % 500, (i * 7919) % 90_000, cost)).collect();
    let found = CostModel::fit(&steps).unwrap();
    for (found, expected) in [
        (found.base, cost.base),
        (found.decode, cost.decode),
        (found.prompt, cost.prompt),
        (found.attended, cost.attended),
    ] {
        assert!((found - expected).abs() < expected * 0.01, "{found} instead of {expected}");
    }
    assert!(found.median_error(&steps) < 0.001);
    // The tower's time is known by itself, whatever else the step did; steps of the tower alone say nothing of tokens.
    let seeing = |step: &Step| Step { vision: 50, vision_us: 40_000, ..*step };
    let alone =
        Step { at_us: 0, took_us: 7, decode: 0, prompt: 0, attended: 0, vision: 150, vision_us: 120_000 };
    let seen: Vec<Step> = steps.iter().map(seeing).chain([alone]).collect();
    let found_seeing = CostModel::fit(&seen).unwrap();
    assert!((found_seeing.vision - COST.vision).abs() < 1e-9, "{found_seeing:?}");
    assert_eq!(CostModel { vision: 0.0, ..found_seeing }, found);
}

#[test]
fn steps_that_are_all_alike_or_contradict_each_other_still_give_a_model() {
    assert_eq!(CostModel::fit(&[]), None);
    let alike = vec![step(4, 0, 0, COST); 9];
    let found = CostModel::fit(&alike).unwrap();
    assert!((found.step(4, 0, 0).as_secs_f64() - 0.008).abs() < 1e-5, "{found:?}");
    // More tokens took less time: there is no such cost.
    let odd: Vec<Step> = (1..20).map(|i| Step { took_us: 1000 / i, ..step(0, i, i * i, COST) }).collect();
    let found = CostModel::fit(&odd).unwrap();
    assert!([found.base, found.decode, found.prompt, found.attended].iter().all(|term| *term >= 0.0));
}

/// Four streams that write all the time, and long prompts that come in bursts.
fn jobs() -> Vec<Job> {
    let job = |order: u64, at_ms: u64, prompt: u64, written: u64| Job {
        arrival: Arrival {
            at_us: at_ms * 1000,
            order,
            tenant: order % 2,
            priority: Priority::Normal,
            prompt,
            max_tokens: written,
            choices: 1,
            deadline_us: None,
        },
        end: End { at_us: 0, order, first_us: None, written, cached: 0, vision: 0 },
    };
    let streams = (0..4).map(|order| job(order, 0, 20, 600));
    let bursts = (0..24).map(|i| job(4 + i, 1000 + 2000 * (i / 4), 700, 8));
    streams.chain(bursts).collect()
}

fn settings(max_batch_tokens: usize, target_ms: Option<u64>) -> EngineSettings {
    EngineSettings {
        max_batch_tokens,
        max_sequences: 16,
        kv: KvBudget::Pages(1000),
        pid: PidSettings { target: target_ms.map(Duration::from_millis), ..PidSettings::default() },
        ..EngineSettings::default()
    }
}

fn percentile(values: &[f64], share: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share) as usize]
}

#[test]
fn a_target_keeps_streams_flowing_at_the_throughput_of_large_steps() {
    let run = |settings| replay(&jobs(), COST, loaded(HashModel::new()), settings).unwrap();
    let (free, held) = (run(settings(512, None)), run(settings(512, Some(50))));
    for outcome in [&free, &held] {
        assert_eq!((outcome.completed, outcome.lost), (28, 0));
        assert_eq!(outcome.tokens, 4 * 620 + 24 * 708);
        assert_eq!(outcome.first_token.len(), 28);
        assert_eq!(outcome.inter_token.len(), 4 * 599 + 24 * 7);
    }
    assert!(percentile(&free.inter_token, 0.99) > 0.2, "large steps hold streams up");
    let p99 = percentile(&held.inter_token, 0.99);
    assert!((0.04..=0.06).contains(&p99), "{p99} is not within a fifth of the target");
    assert!(held.seconds < free.seconds * 1.1, "{} instead of {} s", held.seconds, free.seconds);
    // The same again gives the same, to the bit.
    assert_eq!(run(settings(512, Some(50))), held);
}

#[test]
fn images_take_the_time_of_the_tower_and_streams_go_on_beside_them() {
    let run = |vision, target| {
        let mut jobs = jobs();
        jobs.iter_mut().filter(|job| job.arrival.order >= 4).for_each(|job| job.end.vision = vision);
        replay(&jobs, COST, loaded(HashModel::new()), settings(512, target)).unwrap()
    };
    let (blind, seeing) = (run(0, Some(50)), run(500, Some(50)));
    assert_eq!((seeing.completed, seeing.lost, seeing.tokens), (28, 0, blind.tokens));
    let first = |outcome: &Outcome| percentile(&outcome.first_token, 0.9);
    // Four of a burst wait for four pictures of 0.4 s each, in the share of the time that the tower has.
    assert!(first(&seeing) > first(&blind) + 1.0, "{} and {}", first(&seeing), first(&blind));
    assert!(seeing.seconds > blind.seconds);
    let p99 = percentile(&seeing.inter_token, 0.99);
    assert!(p99 < 0.1, "{p99}: a picture holds streams up");
    assert_eq!(run(500, Some(50)), seeing);
}

#[test]
fn what_the_engine_does_is_taken_down() {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let take = Arc::clone(&taken);
    let recorder = Recorder::new(move |entry| take.lock().unwrap().push(entry));
    let settings = EngineSettings { recorder: Some(recorder), ..bench_settings(64, 64, 4) };
    let mut bench = Bench::new(HashModel::new(), settings);
    let mut request = tokens(vec![5; 70], 3);
    request.limits.ignore_eos = true;
    let _served = bench.ask(request.clone()).unwrap();
    bench.finish();
    let left = bench.ask(request).unwrap();
    bench.step();
    drop(left);
    bench.step();
    let taken = taken.lock().unwrap();
    let Entry::Start(start) = &taken[0] else { panic!("{taken:?}") };
    assert_eq!((start.max_batch_tokens, start.kv_pages, &*start.policy), (64, 64, "priority"));
    let shown: Vec<String> = taken[1..]
        .iter()
        .map(|entry| match entry {
            Entry::Arrival(arrival) => format!("{} comes with {}", arrival.order, arrival.prompt),
            Entry::Step(step) => format!("{}+{} over {}", step.decode, step.prompt, step.attended),
            Entry::End(end) => format!("{} goes after {}, {} held", end.order, end.written, end.cached),
            Entry::Start(_) | Entry::Use(_) => panic!("it starts once, and uses no disk"),
        })
        .collect();
    let expected = [
        "0 comes with 70",
        "0+64 over 2080",
        "0+6 over 405",
        "1+0 over 71",
        "1+0 over 72",
        "0 goes after 3, 0 held",
        "1 comes with 70",
        "0+6 over 405",
        "1 goes after 1, 64 held",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn the_target_and_the_order_of_the_queue_change_while_the_engine_runs() {
    let mut bench = Bench::new(HashModel::new(), bench_settings(64, 64, 4));
    assert_eq!(
        (bench.engine.status().pid.setpoint_seconds, bench.engine.status().pid.output_tokens),
        (0.0, 64)
    );
    let mut adjust = |adjustment| {
        let adjusted = bench.engine.adjust(adjustment);
        bench.run_loop.obey_all();
        adjusted.now_or_never().unwrap()
    };
    let queue = |policy: &str| Adjustment::Queue {
        policy: Some(policy.to_owned()),
        age_step: None,
        weights: vec![("alice".to_owned(), 4.try_into().unwrap())],
    };
    assert_eq!(adjust(queue("fair_share")), Ok(()));
    let message = adjust(queue("fair")).unwrap_err().to_string();
    assert!(message.contains("fair_share"), "{message}");
    assert_eq!(adjust(Adjustment::InterTokenTarget(Some(Duration::from_millis(50)))), Ok(()));
    let policy = bench.run_loop.line.policy();
    assert_eq!((policy.discipline.name, policy.weights["alice"].get()), ("fair_share", 4));
    assert_eq!(bench.engine.status().pid.setpoint_seconds, 0.05);
    let adjusted = bench.engine.adjust(Adjustment::InterTokenTarget(None));
    bench.run_loop.obey_all();
    assert_eq!(adjusted.now_or_never(), Some(Ok(())));
    assert_eq!(bench.engine.status().pid.setpoint_seconds, 0.0);
}
