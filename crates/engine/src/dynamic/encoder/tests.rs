//! Tiny encoders from their folders, served: alone and among others, beside each other, and asked for what they are not.

use std::path::Path;

use futures::executor::block_on;
use futures::future::join_all;
use models::{LoadOptions, Repository, load_encoder};
use protocol::{EmbedInput, Overlong, Purpose};
use tensor::Isa;

use super::*;
use crate::Router;

fn engine(folder: &str, turns: &Turns) -> Arc<EncoderEngine> {
    named(folder, "tiny", turns)
}

fn named(folder: &str, name: &str, turns: &Turns) -> Arc<EncoderEngine> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/test_data").join(folder).join("model");
    let options = LoadOptions { dtype: None, quantise: None, kv: None, max_batch_tokens: 32, max_outputs: 1 };
    let kernels = tensor::kernels(Isa::best(), 2);
    let loaded = load_encoder(&Repository::open(folder).unwrap(), &options, kernels).unwrap();
    let settings = DynamicSettings::default();
    EncoderEngine::start(loaded, name.to_owned(), settings, turns, None).unwrap()
}

fn embed(engine: &EncoderEngine, request: EmbedRequest) -> Result<Embeddings, Unserved> {
    block_on(engine.embed(request))
}

#[test]
fn a_text_has_the_same_bits_alone_and_among_others() {
    let engine = engine("bert", &Turns::default());
    let texts: Vec<String> = (0..40).map(|n| "the tide comes in ".repeat(n % 9) + &n.to_string()).collect();
    let together = embed(&engine, EmbedRequest::new("all", &texts)).unwrap();
    let alone = join_all(texts.iter().map(|text| engine.embed(EmbedRequest::new("one", [text]))));
    for (one, among) in block_on(alone).into_iter().zip(&together.vectors) {
        let one = one.unwrap();
        let bits =
            |embedding: &Embedding| embedding.values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&one.vectors[0]), bits(among));
        assert_eq!(one.vectors[0].tokens, among.tokens);
    }
    let status = engine.status();
    assert_eq!((status.load.queued, status.load.running, status.counters.accepted), (0, 0, 41));
    assert!(status.counters.steps > 1 && status.latency.step_tokens.sum > 40.0);
}

#[test]
fn vectors_are_shortened_prompted_and_cut_as_asked() {
    let engine = engine("bert", &Turns::default());
    let texts = ["tide", "high water"];
    let whole = embed(&engine, EmbedRequest::new("whole", texts)).unwrap();
    let short =
        embed(&engine, EmbedRequest { dimensions: Some(5), ..EmbedRequest::new("short", texts) }).unwrap();
    for (whole, short) in whole.vectors.iter().zip(&short.vectors) {
        let norm = short.values.iter().map(|value| value * value).sum::<f32>();
        assert!((norm - 1.0).abs() < 1e-6 && short.values.len() == 5);
        let ratio = whole.values[0] / short.values[0];
        assert!(whole.values.iter().zip(&short.values).all(|(a, b)| (a - b * ratio).abs() < 1e-6));
    }
    // The folder's prompt for queries is "when is ".
    let query = EmbedRequest { purpose: Purpose::Query, ..EmbedRequest::new("query", ["high water"]) };
    let written = embed(&engine, EmbedRequest::new("written", ["when is high water"])).unwrap();
    assert_eq!(embed(&engine, query).unwrap().vectors, written.vectors);
    let long = ["tide ".repeat(50)];
    let cut = embed(&engine, EmbedRequest::new("long", &long)).unwrap();
    assert_eq!((cut.vectors[0].tokens, cut.vectors[0].is_truncated), (24, true));
    let refused = EmbedRequest { overlong: Overlong::Refuse, ..EmbedRequest::new("long", &long) };
    let expected = Refusal::ContextLength { prompt_tokens: 52, max_tokens: None, context: 24 };
    assert_eq!(embed(&engine, refused), Err(expected.into()));
}

#[test]
fn wrong_requests_are_refused_by_the_name_of_the_parameter() {
    let engine = engine("bert", &Turns::default());
    let check = |request: EmbedRequest, expected: &str| match embed(&engine, request).unwrap_err() {
        Unserved::Refused(Refusal::InvalidParameter { param, message }) => {
            assert!(format!("{param}: {message}").starts_with(expected), "{param}: {message}");
        }
        other => panic!("{other:?}"),
    };
    let one = || EmbedRequest::new("one", ["tide"]);
    let ids = |ids: &[u32]| EmbedRequest { inputs: vec![EmbedInput::Tokens(ids.to_vec())], ..one() };
    check(EmbedRequest { inputs: Vec::new(), ..one() }, "input: at least one text");
    check(EmbedRequest { dimensions: Some(33), ..one() }, "dimensions: dimensions must be from 1 to 32");
    check(
        EmbedRequest { purpose: Purpose::Named("x".to_owned()), ..one() },
        "prompt_name: the model has no prompt 'x'; it has document, query",
    );
    check(ids(&[100_000]), "input: the ids are not of this model's vocabulary");
    check(ids(&[]), "input: at least one token id");
    let unknown = EmbedRequest { model: Some("other".to_owned()), ..one() };
    assert!(matches!(embed(&engine, unknown), Err(Unserved::Refused(Refusal::UnknownModel { .. }))));
    let two =
        ScoreRequest { queries: vec!["a".to_owned(); 2], ..ScoreRequest::new("score", "a", ["b", "c", "d"]) };
    assert!(matches!(block_on(engine.score(two)), Err(Unserved::Refused(Refusal::InvalidParameter { .. }))));
    assert_eq!(engine.status().counters.refused.iter().map(|(_, count)| count).sum::<u64>(), 7);
}

#[test]
fn a_router_asks_the_model_that_is_named_or_the_first_that_can() {
    let turns = Turns::default();
    let bert = engine("bert", &turns);
    let router = Router::new(vec![bert.clone(), named("cross_encoder", "cross", &turns)]);
    let request =
        || ScoreRequest::new("score", "when is high water?", ["High water at noon", "the boat is red"]);
    let cosine = block_on(router.score(request())).unwrap();
    assert_eq!((cosine.measure, cosine.model.as_str()), (Measure::Cosine, "tiny"));
    let vectors = embed(
        &bert,
        EmbedRequest { purpose: Purpose::Query, ..EmbedRequest::new("q", ["when is high water?"]) },
    );
    assert!(cosine.values.iter().all(|value| (-1.0..=1.0).contains(value)) && vectors.is_ok());
    let read = block_on(router.score(ScoreRequest { model: Some("cross".to_owned()), ..request() })).unwrap();
    assert_eq!(read.measure, Measure::Classifier);
    assert!(read.values.iter().all(|value| (0.0..=1.0).contains(value)));
    let unable = EmbedRequest { model: Some("cross".to_owned()), ..EmbedRequest::new("one", ["tide"]) };
    let expected =
        Refusal::Unable { model: "cross".to_owned(), task: Task::Embed, able: vec!["tiny".to_owned()] };
    assert_eq!(block_on(router.embed(unable)), Err(expected.into()));
    let chat = GenerateRequest::new("chat", protocol::Prompt::Text("tide".to_owned()));
    assert!(matches!(block_on(router.generate(chat)), Err(Refusal::Unable { task: Task::Generate, .. })));
    assert_eq!(router.models().len(), 2);
    assert_eq!(router.status().counters.accepted, 3);
    block_on(router.drain());
    assert!(matches!(block_on(router.score(request())), Err(Unserved::Refused(Refusal::NotReady { .. }))));
}
