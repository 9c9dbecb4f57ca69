//! The same request gives the same bytes, whatever else is running.

use proptest::prelude::*;
use protocol::{GenerateRequest, Prompt};

use super::bench::{Bench, Transcript, settings, tokens};
use super::model::HashModel;

pub(crate) fn alone(request: &GenerateRequest) -> Transcript {
    let mut bench = Bench::new(HashModel::new(), settings(64, 512, 8));
    let client = bench.ask(request.clone()).unwrap();
    bench.finish();
    client.transcript()
}

pub(crate) fn requests() -> impl Strategy<Value = GenerateRequest> {
    let prompt = prop::collection::vec(0u32..500, 1..100);
    let sampling = (
        prop_oneof![Just(0.0f32), 0.3f32..1.5],
        prop_oneof![Just(0u32), 1u32..50],
        prop_oneof![Just(1.0f32), 0.3f32..1.0],
        prop_oneof![Just(1.0f32), 0.8f32..1.5],
    );
    let rest = (1u32..60, 1u32..4, prop::option::of(0u32..5), any::<u64>(), any::<bool>());
    (prompt, sampling, rest).prop_map(|(prompt, (temperature, top_k, top_p, penalty), rest)| {
        let (max, choices, logprobs, seed, ignore_eos) = rest;
        let mut request = tokens(prompt, max);
        request.sampling.temperature = Some(temperature);
        request.sampling.top_k = Some(top_k);
        request.sampling.top_p = Some(top_p);
        request.sampling.repetition_penalty = Some(penalty);
        request.sampling.frequency_penalty = penalty - 1.0;
        request.sampling.seed = Some(seed);
        request.limits.ignore_eos = ignore_eos;
        request.limits.stop = vec!["qz".to_owned(), "e".to_owned()];
        request.choices = choices;
        request.logprobs = logprobs;
        request
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn batch_equals_single_bitwise(
        requests in prop::collection::vec((requests(), 0usize..6), 1..8),
        pages in 5usize..40,
        sequences in 1usize..8,
        extra in 0usize..60,
    ) {
        let mut bench = Bench::new(HashModel::new(), settings(pages, sequences + extra, sequences));
        let mut clients = Vec::new();
        for (request, pause) in &requests {
            clients.push((bench.ask(request.clone()).unwrap(), alone(request)));
            (0..*pause).for_each(|_| bench.step());
        }
        bench.finish();
        for (client, expected) in clients {
            prop_assert_eq!(client.transcript(), expected);
        }
    }
}

#[test]
fn few_pages_force_preemption_and_change_nothing() {
    let requests: Vec<_> = (0..6)
        .map(|i| GenerateRequest { logprobs: Some(2), ..tokens(vec![i * 7 + 1; 20 + i as usize], 90) })
        .map(|mut request| {
            request.limits.ignore_eos = true;
            request
        })
        .collect();
    let mut bench = Bench::new(HashModel::new(), settings(12, 16, 6));
    let clients: Vec<_> = requests.iter().map(|request| bench.ask(request.clone()).unwrap()).collect();
    bench.finish();
    assert!(protocol::Inference::status(&bench.engine).counters.preemptions > 0);
    for (client, request) in clients.into_iter().zip(&requests) {
        assert_eq!(client.transcript(), alone(request));
    }
}

#[test]
fn choices_differ_from_each_other_and_repeat_with_the_seed() {
    let ask = |seed| {
        let mut request = GenerateRequest { choices: 3, ..tokens(vec![3, 4], 12) };
        request.prompt = Prompt::Tokens(vec![3, 4]);
        request.sampling.temperature = Some(1.0);
        request.sampling.seed = Some(seed);
        alone(&request)
    };
    let first = ask(5);
    assert_eq!(first, ask(5));
    assert_ne!(first, ask(6));
    assert!(first.said[0] != first.said[1] && first.said[1] != first.said[2]);
}
