//! Everything that could change an answer, at once: shared prefixes, preemption, speculation, forms, requests that join a
//! run or get a kept answer, rows that are read by several threads. No answer differs by a bit from what the request is told when it is alone.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use protocol::{Form, GenerateRequest, Generation, Inference, Priority};
use serde_json::json;
use tensor::PAGE_TOKENS;

use super::bench::{Bench, Transcript, settings, tokens};
use super::equality::alone;
use super::model::HashModel;
use crate::sampler::mix;
use crate::{EngineSettings, Reuse, ReuseSettings};

/// The requests of one round; several of them are the same.
const ROUND: u64 = 24;

/// A request of one of several kinds, of which half keep to a form and all begin like others.
fn request(draw: u64) -> GenerateRequest {
    let kind = draw % 12;
    let beginning = (0..1 + kind % 3).flat_map(|_| [(kind % 2) as u32; PAGE_TOKENS]);
    let mut request = tokens(beginning.chain([kind as u32 + 5, 3, 3]).collect(), 60 + 4 * kind as u32);
    request.priority = [Priority::High, Priority::Normal, Priority::Low][(kind % 3) as usize];
    request.sampling.seed = Some(kind);
    request.logprobs = (kind.is_multiple_of(5)).then_some(2);
    match kind % 4 {
        // Of few tokens, so that the text repeats itself and goes wrong at times.
        0 => request.sampling.logit_bias = (0..2).map(|token| (token * 7 + 3, 90.0)).collect(),
        1 => request.form = Some(Form::JsonSchema(json!({"type": "array", "items": {"enum": ["aa", "ab"]}}))),
        2 => request.choices = 2,
        _ => request.form = Some(Form::Regex("((tide|tied) ){5,30}".to_owned())),
    }
    request.sampling.temperature = Some(if kind.is_multiple_of(4) { 0.0 } else { 0.9 });
    request.limits.ignore_eos = request.form.is_none();
    request
}

/// What happened in all rounds.
#[derive(Debug, Default)]
struct Happened {
    preemptions: u64,
    prefix_hits: u64,
    draft_hits: u64,
    joined: u64,
    kept: u64,
}

fn heard(mut generation: Generation) -> Transcript {
    let events: Vec<_> = std::iter::from_fn(|| generation.next().now_or_never().flatten()).collect();
    Transcript::of(&events)
}

/// Has a round of requests served together, each after its own pause.
fn round(seed: u64, happened: &mut Happened) {
    let settings = EngineSettings { drafts: 16, ..settings(14 + seed as usize, 48, 6) };
    let Bench { engine, mut run_loop, clock } = Bench::new(HashModel::with_threads(3), settings);
    let engine: Arc<dyn Inference> = Arc::new(engine);
    let kept = ReuseSettings { kept_bytes: 1 << 20, ..ReuseSettings::default() };
    let reuse = Reuse::timed(Arc::clone(&engine), kept, clock.clone());
    let mut step = || {
        run_loop.obey_all();
        clock.advance(Duration::from_millis(10));
        let any = run_loop.has_work();
        if any {
            run_loop.step();
        }
        any
    };
    let mut asked = Vec::new();
    for place in 0..ROUND {
        let draw = mix(seed << 32 | place);
        let request = request(draw);
        let answer = reuse.generate(request.clone()).now_or_never().expect("short prompts are read at once");
        asked.push((request, answer.unwrap()));
        (0..draw >> 20 & 15).for_each(|_| _ = step());
    }
    assert!((0..100_000).any(|_| !step()), "the engine does not come to an end");
    for (request, generation) in asked {
        assert_eq!(heard(generation), alone(&request), "round {seed}");
    }
    // Once more when all is over, from what was kept.
    let again = request(mix(seed << 32));
    let answer = reuse.generate(again.clone()).now_or_never().unwrap().unwrap();
    while step() {}
    assert_eq!(heard(answer), alone(&again), "round {seed}");
    let (counters, reused) = (engine.status().counters, reuse.status().reuse);
    happened.preemptions += counters.preemptions;
    happened.prefix_hits += counters.prefix_hits;
    happened.draft_hits += counters.draft_hits;
    happened.joined += reused.joined;
    happened.kept += reused.same;
}

#[test]
fn everything_at_once_changes_no_bit() {
    let mut happened = Happened::default();
    (0..12).for_each(|seed| round(seed, &mut happened));
    let Happened { preemptions, prefix_hits, draft_hits, joined, kept } = happened;
    for (count, what) in [
        (preemptions, "was preempted"),
        (prefix_hits, "was found in the prefix cache"),
        (draft_hits, "was tried and came true"),
        (joined, "joined a run"),
        (kept, "was kept"),
    ] {
        assert!(count > 0, "nothing {what}: {happened:?}");
    }
}
