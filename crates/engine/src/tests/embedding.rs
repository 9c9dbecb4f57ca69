//! Vectors from a model that generates: right, the same whatever else runs, and requests like all others.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::executor::block_on;
use models::{Gathering, LoadOptions, LoadedModel, Pooling, Quantisation, Repository};
use proptest::prelude::*;
use protocol::{
    Chat, EmbedInput, EmbedRequest, Embeddings, Failure, Image, Inference, Measure, Overlong, Refusal,
    ScoreRequest, Shown, Unserved,
};
use serde_json::Value;
use tensor::{Dtype, Isa};

use super::bench::{Bench, Client, settings, tokens};
use super::equality::alone;
use super::model::{HIDDEN, HashModel, NAN, state};
use crate::vectors::scaled;
use crate::{Engine, EngineSettings};

fn of(inputs: impl IntoIterator<Item = Vec<u32>>) -> EmbedRequest {
    let inputs = inputs.into_iter().map(EmbedInput::Tokens).collect();
    EmbedRequest { inputs, ..EmbedRequest::new("embed", [""; 0]) }
}

fn bench(pooling: Pooling, settings: EngineSettings) -> Bench {
    Bench::new(HashModel::new(), EngineSettings { pooling, ..settings })
}

/// Serves one request to its end.
fn embed(bench: &mut Bench, request: EmbedRequest) -> Result<Embeddings, Unserved> {
    let Bench { engine, run_loop, .. } = bench;
    let mut asked = engine.embed(request);
    for _ in 0..10_000 {
        if let Some(answer) = (&mut asked).now_or_never() {
            return answer;
        }
        run_loop.obey_all();
        run_loop.step();
    }
    panic!("it does not come to an end");
}

/// What the model's states come to, without an engine.
fn expected(ids: &[u32], pooling: Pooling) -> Vec<f32> {
    let cells: Vec<u64> = ids.iter().zip(0..).map(|(id, at)| u64::from(*id) | at << 32).collect();
    let mut gathering = Gathering::new(pooling);
    (1..=cells.len()).for_each(|end| gathering.add(&state(&cells[..end]), HIDDEN));
    scaled(gathering.vector().collect())
}

fn bits(embeddings: &Embeddings) -> Vec<Vec<u32>> {
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect();
    embeddings.vectors.iter().map(|vector| bits(&vector.values)).collect()
}

/// Prompts that begin alike, more or less, of up to five pages.
fn prompts() -> impl Strategy<Value = Vec<u32>> {
    let beginning = prop::collection::vec(0u32..2, 0..4);
    (beginning, prop::collection::vec(0u32..300, 1..40)).prop_map(|(beginning, own)| {
        let pages = beginning.iter().flat_map(|symbol| [*symbol; tensor::PAGE_TOKENS]);
        pages.chain(own).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn vectors_have_the_same_bits_whatever_else_runs(
        texts in prop::collection::vec((prop::collection::vec(prompts(), 1..4), 0usize..4), 1..6),
        written in prop::collection::vec(prompts(), 0..4),
        pages in 8usize..40,
        sequences in 1usize..8,
        extra in 0usize..60,
        pooling in prop_oneof![Just(Pooling::Last), Just(Pooling::Mean), Just(Pooling::Max), Just(Pooling::Cls)],
    ) {
        let Bench { engine, mut run_loop, clock } =
            bench(pooling, settings(pages, sequences + extra, sequences));
        let ask = |prompt: &Vec<u32>| {
            let request = tokens(prompt.clone(), 20);
            let generation = engine.generate(request.clone()).now_or_never().unwrap().unwrap();
            (Client::of(generation), alone(&request))
        };
        let clients: Vec<_> = written.iter().map(ask).collect();
        let mut asked = Vec::new();
        for (texts, pause) in &texts {
            let mut waiting = engine.embed(of(texts.clone()));
            prop_assert!((&mut waiting).now_or_never().is_none());
            asked.push(waiting);
            for _ in 0..*pause {
                run_loop.obey_all();
                run_loop.step();
                clock.advance(Duration::from_millis(10));
            }
        }
        run_loop.obey_all();
        for _ in 0..100_000 {
            if !run_loop.has_work() {
                break;
            }
            run_loop.step();
        }
        for (asked, (texts, _)) in asked.into_iter().zip(&texts) {
            let found = asked.now_or_never().unwrap().unwrap();
            for (found, ids) in found.vectors.iter().zip(texts) {
                prop_assert_eq!(&found.values, &expected(ids, pooling));
                prop_assert_eq!(found.tokens as usize, ids.len());
            }
        }
        for (client, expected) in clients {
            prop_assert_eq!(client.transcript(), expected);
        }
        let status = engine.status();
        prop_assert_eq!((status.load.kv_pages_used, status.load.running, status.load.queued), (0, 0, 0));
    }
}

#[test]
fn what_a_cache_holds_is_computed_where_all_states_are_needed_and_nowhere_else() {
    let ids: Vec<u32> = (0..70).collect();
    for (pooling, computed) in
        [(Pooling::Last, 6), (Pooling::Mean, 70), (Pooling::Max, 70), (Pooling::Cls, 70)]
    {
        let mut bench = bench(pooling, settings(64, 64, 4));
        let _read = bench.ask(tokens(ids.clone(), 1)).unwrap();
        bench.finish();
        let before = bench.engine.status().counters;
        let found = embed(&mut bench, of([ids.clone()])).unwrap();
        assert_eq!(found.vectors[0].values, expected(&ids, pooling), "{pooling:?}");
        let after = bench.engine.status().counters;
        assert_eq!(after.prompt_tokens - before.prompt_tokens, computed, "{pooling:?}");
        assert_eq!(after.prefix_hits - before.prefix_hits, 70 - computed, "{pooling:?}");
        assert_eq!(after.generated_tokens, before.generated_tokens);
    }
    // What was read for its states serves others.
    let mut bench = bench(Pooling::Mean, settings(64, 64, 4));
    embed(&mut bench, of([ids.clone()])).unwrap();
    let _read = bench.ask(tokens(ids, 1)).unwrap();
    bench.finish();
    assert_eq!(bench.engine.status().counters.prefix_hits, 64);
}

#[test]
fn whoever_walks_away_or_comes_too_late_leaves_nothing_behind() {
    let mut bench = bench(Pooling::Mean, settings(64, 16, 4));
    let texts: Vec<Vec<u32>> = (0..6).map(|at| vec![at; 100]).collect();
    let Bench { engine, run_loop, clock } = &mut bench;
    let mut asked = engine.embed(of(texts.clone()));
    assert!((&mut asked).now_or_never().is_none());
    run_loop.obey_all();
    run_loop.step();
    assert_eq!((engine.status().load.running, engine.status().load.queued), (4, 1));
    drop(asked);
    run_loop.obey_all();
    let status = engine.status();
    assert_eq!((status.load.running, status.load.kv_pages_used, status.load.queued), (0, 0, 0));
    let cancelled: u64 = status.counters.cancelled.iter().map(|(_, count)| count).sum();
    assert_eq!(cancelled, 6);

    let late = EmbedRequest { deadline: Some(Duration::from_millis(50)), ..of(texts) };
    let mut asked = engine.embed(late);
    assert!((&mut asked).now_or_never().is_none());
    run_loop.obey_all();
    run_loop.step();
    clock.advance(Duration::from_millis(60));
    run_loop.step();
    assert_eq!(asked.now_or_never(), Some(Err(Unserved::Failed(Failure::DeadlineExceeded))));
    run_loop.obey_all();
    let status = engine.status();
    assert_eq!((status.load.running, status.load.kv_pages_used, status.load.queued), (0, 0, 0));
}

#[test]
fn the_texts_of_a_request_take_one_place_until_the_last_of_them_has_left_the_queue() {
    let settings = EngineSettings { queue_requests: 1, ..settings(64, 16, 1) };
    let Bench { engine, mut run_loop, .. } = bench(Pooling::Last, settings);
    let mut first = engine.embed(of([vec![1; 10], vec![2; 10], vec![3; 10]]));
    let mut queued = Vec::new();
    for _ in 0..3 {
        assert!((&mut first).now_or_never().is_none());
        queued.push(engine.status().load.queued);
        let refused = engine.embed(of([vec![4]])).now_or_never().unwrap().unwrap_err();
        assert!(matches!(refused, Unserved::Refused(Refusal::QueueFull { queued: 1, .. })), "{refused}");
        run_loop.obey_all();
        run_loop.step();
    }
    assert_eq!((queued, engine.status().load.queued), (vec![1, 1, 1], 0));
    assert_eq!(first.now_or_never().unwrap().unwrap().vectors.len(), 3);
}

#[test]
fn what_cannot_be_embedded_is_explained() {
    let mut bench = bench(Pooling::Last, settings(2, 64, 4));
    let mut check = |request: EmbedRequest, expected: &str| match embed(&mut bench, request).unwrap_err() {
        Unserved::Refused(refusal) => assert!(refusal.to_string().contains(expected), "{refusal}"),
        Unserved::Failed(failure) => assert!(failure.to_string().contains(expected), "{failure}"),
    };
    check(of([]), "at least one text");
    check(of([vec![]]), "at least one token id");
    check(of([vec![5000]]), "not of this model's vocabulary");
    check(EmbedRequest { dimensions: Some(4), ..of([vec![1]]) }, "from 1 to 3");
    check(EmbedRequest { model: Some("other".to_owned()), ..of([vec![1]]) }, "did you mean hash");
    check(EmbedRequest { overlong: Overlong::Refuse, ..of([vec![1; 65]]) }, "context holds 64 tokens");
    let chat = EmbedInput::Chat(Box::default());
    check(EmbedRequest { inputs: vec![chat], ..of([]) }, "no chat template");
    let seen = Shown { images: vec![Image { bytes: Arc::from([0u8; 4]) }], ..Shown::default() };
    check(EmbedRequest { inputs: vec![EmbedInput::Chat(Box::new(seen))], ..of([]) }, "cannot see");
    check(of([vec![NAN]]), "no numbers");
    let cut = embed(&mut bench, of([vec![1; 70]])).unwrap();
    assert!(cut.vectors[0].is_truncated);
    assert_eq!(cut.vectors[0].values, expected(&[1; 64], Pooling::Last));
}

/// The tiny models of the tests of `models`, by their folders.
fn load(folder: &str, (dtype, quantise): (Dtype, Option<Quantisation>), threads: usize) -> LoadedModel {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/test_data").join(folder).join("model");
    let options =
        LoadOptions { dtype: Some(dtype), quantise, kv: None, max_batch_tokens: 128, max_outputs: 8 };
    let kernels = tensor::kernels(Isa::best(), threads);
    models::load(&Repository::folder(path).unwrap(), &options, kernels).unwrap()
}

fn recorded() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/test_data/pooled.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn close(found: &[f32], recorded: &Value, what: &str) {
    let recorded: Vec<f32> = serde_json::from_value(recorded.clone()).unwrap();
    let recorded = scaled(recorded);
    assert_eq!(found.len(), recorded.len(), "{what}");
    let worst = found.iter().zip(&recorded).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 2e-5, "{what}: off by {worst}");
}

/// One conversation with a picture.
fn seen(case: &Value) -> EmbedInput {
    let png = case["png"].as_str().unwrap();
    let chat =
        Chat { messages: serde_json::from_value(case["messages"].clone()).unwrap(), ..Chat::default() };
    let images = vec![Image { bytes: base64(png).into() }];
    EmbedInput::Chat(Box::new(Shown { chat, images, clips: Vec::new() }))
}

fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u32> = text.bytes().filter(|byte| *byte != b'=').map(|byte| digit(byte).into()).collect();
    let bytes = digits.chunks(4).flat_map(|four| {
        let word = four.iter().fold(0, |word, digit| word << 6 | digit) << (6 * (4 - four.len()));
        word.to_be_bytes()[1..four.len()].to_vec()
    });
    bytes.collect()
}

#[test]
fn vectors_are_those_of_transformers_for_texts_and_for_pictures() {
    for (folder, case) in recorded()["models"].as_object().unwrap() {
        for (pooling, name) in [(Pooling::Last, "last"), (Pooling::Mean, "mean")] {
            let settings = EngineSettings { pooling, ..settings(64, 64, 8) };
            let engine = Engine::start(load(folder, (Dtype::F32, None), 1), settings).unwrap();
            let texts = case["texts"].as_array().unwrap();
            let mut inputs: Vec<EmbedInput> = texts
                .iter()
                .map(|text| EmbedInput::Text(text["text"].as_str().unwrap().to_owned()))
                .collect();
            let shown = case.get("seen");
            inputs.extend(shown.map(seen));
            let request = EmbedRequest { inputs, ..EmbedRequest::new("embed", [""; 0]) };
            let found = block_on(engine.embed(request)).unwrap();
            for (found, recorded) in found.vectors.iter().zip(texts.iter().chain(shown)) {
                assert_eq!(found.tokens as usize, recorded["ids"].as_array().unwrap().len(), "{folder}");
                close(&found.values, &recorded[name], &format!("{folder} {name}"));
            }
            assert_eq!(found.vectors.len(), texts.len() + usize::from(shown.is_some()));
        }
    }
}

#[test]
fn a_batch_of_texts_and_pictures_is_bitwise_each_of_them_alone_in_chunks_of_any_size() {
    let recorded = recorded();
    let case = &recorded["models"]["qwen3_vl"];
    let texts = case["texts"].as_array().unwrap().iter();
    let mut inputs: Vec<EmbedInput> =
        texts.map(|text| EmbedInput::Text(text["text"].as_str().unwrap().to_owned())).collect();
    inputs.insert(1, seen(&case["seen"]));
    inputs.extend((0..4u32).map(|at| EmbedInput::Tokens((0..20 + at * 11).map(|id| id % 90 + at).collect())));
    let request = |inputs: Vec<EmbedInput>| EmbedRequest { inputs, ..EmbedRequest::new("embed", [""; 0]) };
    for how in [(Dtype::F32, None), (Dtype::Bf16, Some(Quantisation::INT8))] {
        for pooling in [Pooling::Last, Pooling::Mean] {
            let run = |pages, batch, sequences, threads| {
                let settings = EngineSettings { pooling, ..settings(pages, batch, sequences) };
                Engine::start(load("qwen3_vl", how, threads), settings).unwrap()
            };
            let engine = run(64, 128, 8, 1);
            let one = |input: &EmbedInput| block_on(engine.embed(request(vec![input.clone()]))).unwrap();
            let apart: Vec<Vec<u32>> = inputs.iter().flat_map(|input| bits(&one(input))).collect();
            for (pages, batch, sequences, threads) in [(64, 128, 8, 2), (64, 8, 8, 1), (8, 3, 3, 1)] {
                let together = block_on(run(pages, batch, sequences, threads).embed(request(inputs.clone())));
                assert!(bits(&together.unwrap()) == apart, "{how:?} {pooling:?} {pages} {batch} {threads}");
            }
        }
    }
}

#[test]
fn folders_say_how_they_are_pooled_and_pairs_are_scored_by_their_cosine() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/test_data/qwen3/model");
    let read = |name: &'static str| (name, &*std::fs::read(path.join(name)).unwrap().leak());
    let module = |kind: &str, path: &str| format!(r#"{{"path": "{path}", "type": "x.{kind}"}}"#);
    let modules = [module("Transformer", ""), module("Pooling", "1_Pooling")].join(",");
    let files = vec![
        read("config.json"),
        read("tokenizer.json"),
        read("model.safetensors.index.json"),
        read("model-00001-of-00003.safetensors"),
        read("model-00002-of-00003.safetensors"),
        read("model-00003-of-00003.safetensors"),
        ("modules.json", &*format!("[{modules}]").into_bytes().leak()),
        ("1_Pooling/config.json", &br#"{"pooling_mode_mean_tokens": true}"#[..]),
        ("config_sentence_transformers.json", &br#"{"prompts": {"query": "The tide "}}"#[..]),
    ];
    let options = LoadOptions {
        dtype: Some(Dtype::F32),
        quantise: None,
        kv: None,
        max_batch_tokens: 64,
        max_outputs: 4,
    };
    let repository = Repository::embedded("tiny", files.leak());
    let model = models::load(&repository, &options, tensor::kernels(Isa::best(), 1)).unwrap();
    let engine = Engine::start(model, settings(64, 64, 4)).unwrap();
    let card = &engine.models()[0];
    assert_eq!(card.tasks[0], protocol::Task::Embed, "it was made for that");
    let text = &recorded()["models"]["qwen3"]["texts"][0];
    let words = text["text"].as_str().unwrap();
    let found = block_on(engine.embed(EmbedRequest::new("mean", [words]))).unwrap();
    // Without a module that normalises, vectors are as long as they are.
    let mean: Vec<f32> = serde_json::from_value(text["mean"].clone()).unwrap();
    let worst = found.vectors[0].values.iter().zip(&mean).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-4, "off by {worst}");
    let rest = words.strip_prefix("The tide ").unwrap();
    let scores = block_on(engine.score(ScoreRequest::new("score", rest, [words, "naïve"]))).unwrap();
    assert_eq!((scores.measure, scores.values.len()), (Measure::Cosine, 2));
    assert!(scores.values[0] > 0.99999 && scores.values[1] < 0.9999, "{:?}", scores.values);
}
