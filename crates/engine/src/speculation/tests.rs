//! When trying several tokens pays, and that it stops where it does not.

use proptest::prelude::*;

use super::*;
use crate::EngineSettings;
use crate::tests::bench::{Bench, Transcript, settings, tokens};
use crate::tests::equality::{alone, requests};
use crate::tests::model::HashModel;

fn trying(pages: usize, tokens: usize, sequences: usize) -> EngineSettings {
    EngineSettings { drafts: 16, ..settings(pages, tokens, sequences) }
}

#[test]
fn the_longest_repetition_says_how_the_text_goes_on() {
    let check = |tokens: &[u32], expected: &[u32]| {
        assert_eq!(look_up(tokens).take(3).collect::<Vec<_>>(), expected, "{tokens:?}");
    };
    check(&[], &[]);
    check(&[1, 2, 3], &[]);
    check(&[1, 2, 3, 9, 2, 3], &[]);
    check(&[1, 2, 3, 4, 5, 6, 7, 1, 2, 3], &[4, 5, 6]);
    // The latest place of equally long ones, and a longer one before a later one.
    check(&[1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3], &[5, 1, 2]);
    check(&[0, 1, 2, 3, 4, 9, 1, 2, 3, 5, 0, 1, 2, 3], &[4, 9, 1]);
    // A text that turns in a circle goes on in it, also over its own end.
    check(&[1, 1, 1, 1, 1], &[1, 1, 1]);
    check(&[1, 2, 1, 2, 1, 2, 1, 2], &[1, 2, 1]);
}

#[test]
fn more_is_tried_the_more_it_can_be_relied_on_and_the_less_it_costs() {
    let tried = |row: f64, sampling: usize, hits: usize| {
        let mut time = StepTime::default();
        for rows in [1, 4, 16, 64, 1, 8] {
            time.observe(rows, 0.03 + row * rows as f64);
        }
        let mut foresight = Foresight::default();
        for token in 0..hits as u32 {
            foresight.expected = vec![token];
            foresight.met = 0;
            assert!(foresight.meet(token));
        }
        foresight.look(&[[7; 30].as_slice(), &[8], &[7; 9]].concat(), 99);
        Prospect::new(time.step(sampling), &time, sampling).drafts(&foresight, 15)
    };
    assert_eq!(tried(0.0, 1, 40), 15, "what costs nothing is tried");
    let (cheap, dear) = (tried(0.002, 1, 20), tried(0.015, 1, 20));
    assert!(cheap > dear && dear > 0, "{cheap} {dear}");
    assert!(tried(0.002, 1, 0) < cheap, "what was never seen to come true is tried with care");
    assert_eq!(tried(0.03, 32, 0), 0, "a full step has nothing to spare");
}

#[test]
fn what_does_not_come_true_is_soon_not_tried_any_more() {
    let mut time = StepTime::default();
    for rows in [1, 64, 1, 64] {
        time.observe(rows, 0.03 + 0.003 * rows as f64);
    }
    let mut foresight = Foresight::default();
    let mut tried = Vec::new();
    for _ in 0..30 {
        foresight.look(&[1, 2, 3, 4, 5, 6, 1, 2, 3], 15);
        tried.push(Prospect::new(time.step(1), &time, 1).drafts(&foresight, 15));
        foresight.meet(9);
    }
    assert!(tried[0] > 0 && tried.is_sorted_by(|before, after| before >= after), "{tried:?}");
    assert_eq!(tried[29], 0);
}

/// A text that repeats itself from the 40th token on: the model follows the script.
fn repeating() -> HashModel {
    let cycle = |position: usize| (position % 11) as u32 + 20;
    HashModel { script: (0..400).map(cycle).collect(), ..HashModel::new() }
}

fn run(model: HashModel, settings: EngineSettings, max: u32) -> (Transcript, usize, u64) {
    let mut bench = Bench::new(model, settings);
    let mut request = tokens((0..40).map(|position| position % 11 + 20).collect(), max);
    request.limits.ignore_eos = true;
    request.logprobs = Some(2);
    let client = bench.ask(request).unwrap();
    let mut steps = 0;
    while bench.step_if_any() {
        steps += 1;
    }
    let hits = protocol::Inference::status(&bench.engine).counters.draft_hits;
    (client.transcript(), steps, hits)
}

#[test]
fn a_text_that_repeats_itself_takes_fewer_steps_and_stays_the_same() {
    let (plain, steps, none) = run(repeating(), settings(64, 512, 1), 200);
    let (tried, fewer, hits) = run(repeating(), trying(64, 512, 1), 200);
    assert_eq!(plain, tried);
    assert_eq!(none, 0);
    assert!(fewer * 3 < steps, "{fewer} steps instead of {steps}");
    assert!(hits as usize >= steps - fewer, "{hits}");
    // With next to no pages it still ends, and the same.
    let (tight, ..) = run(repeating(), trying(16, 64, 1), 200);
    assert_eq!(plain, tight);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn what_is_tried_never_shows(
        requests in prop::collection::vec((requests(), 0usize..6, 1usize..9), 1..8),
        pages in 5usize..40,
        sequences in 1usize..8,
        extra in 0usize..60,
    ) {
        // Logits that only ever allow one of few tokens make texts that repeat themselves and go wrong at times.
        let few = |mut request: protocol::GenerateRequest, kinds: usize| {
            request.sampling.repetition_penalty = Some(1.0);
            request.sampling.frequency_penalty = 0.0;
            request.sampling.logit_bias = (0..kinds as u32).map(|token| (token * 7 + 3, 90.0)).collect();
            request
        };
        let mut bench = Bench::new(HashModel::new(), trying(pages, sequences + extra, sequences));
        let mut clients = Vec::new();
        for (request, pause, kinds) in requests {
            let request = few(request, kinds);
            clients.push((bench.ask(request.clone()).unwrap(), alone(&request)));
            (0..pause).for_each(|_| bench.step());
        }
        bench.finish();
        for (client, expected) in clients {
            prop_assert_eq!(client.transcript(), expected);
        }
    }
}
