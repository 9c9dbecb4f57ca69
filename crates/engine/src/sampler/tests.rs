//! The sampler against recorded transformers processors, against plain formulas, and against its own slow definition.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tensor::safetensors::SafeTensors;

use super::*;

mod selection;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("test_data/sampling")
}

struct Fixture {
    expected: Value,
    tensors: SafeTensors,
}

impl Fixture {
    fn open() -> Self {
        let text = std::fs::read_to_string(folder().join("expected.json")).unwrap();
        let tensors = SafeTensors::open(&folder().join("expected.safetensors")).unwrap();
        Self { expected: serde_json::from_str(&text).unwrap(), tensors }
    }

    fn tensor(&self, name: &Value) -> Vec<f32> {
        self.tensors.tensor(name.as_str().unwrap()).unwrap().to_f32()
    }
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// A JSON number, or an infinity written as text.
fn number(value: &Value) -> f32 {
    value.as_f64().map_or_else(|| value.as_str().unwrap().parse().unwrap(), |x| x as f32)
}

fn settings(value: &Value) -> Settings {
    let number = |name: &str| value.get(name).map(|v| v.as_f64().unwrap() as f32);
    Settings {
        repetition_penalty: number("repetition_penalty").unwrap_or(1.0),
        temperature: number("temperature").unwrap_or(1.0),
        top_k: number("top_k").unwrap_or(0.0) as u32,
        top_p: number("top_p").unwrap_or(1.0),
        min_p: number("min_p").unwrap_or(0.0),
        ..Settings::default()
    }
}

fn close(what: &str, ours: f32, theirs: f32, tolerance: f32) {
    assert!(ours == theirs || (ours - theirs).abs() <= tolerance, "{what}: {ours} against {theirs}");
}

#[test]
fn processors_agree_with_transformers() {
    let fixture = Fixture::open();
    let mut candidates = Candidates::default();
    for vector in fixture.expected["vectors"].as_array().unwrap() {
        let raw = fixture.tensor(&vector["logits"]);
        let history = History::of_prompt(&ids(&vector["history"]));
        for case in vector["cases"].as_array().unwrap() {
            let what = format!("{} {}", vector["name"], case["settings"]);
            let settings = settings(&case["settings"]);
            let mut logits = raw.clone();
            penalise(&mut logits, &settings, &history);
            candidates.gather(&logits, &settings);
            assert_eq!(candidates.ids().len() as u64, case["kept"].as_u64().unwrap(), "{what}");
            let (scores, probs) = (fixture.tensor(&case["scores"]), fixture.tensor(&case["probs"]));
            let top = scores.iter().fold(0f32, |top, s| if s.is_finite() { top.max(s.abs()) } else { top });
            let kept: HashMap<u32, f32> =
                candidates.ids().iter().copied().zip(candidates.scores().iter().copied()).collect();
            for (id, &score) in scores.iter().enumerate() {
                let ours = kept.get(&(id as u32)).copied().unwrap_or(f32::NEG_INFINITY);
                close(&format!("{what} score of {id}"), ours, score, 1e-6 * top.max(1.0));
            }
            let ids = candidates.ids().to_vec();
            for (&id, &p) in ids.iter().zip(candidates.probabilities()) {
                close(&format!("{what} probability of {id}"), p, probs[id as usize], 2e-6 + 1e-7 * top);
            }
        }
    }
}

#[test]
fn ranking_agrees_with_transformers() {
    let fixture = Fixture::open();
    let mut ranking = Ranking::default();
    let mut compared = 0;
    for vector in fixture.expected["vectors"].as_array().unwrap() {
        let logits = fixture.tensor(&vector["logits"]);
        let Some(expected) = vector["top5_logprobs"].as_array() else { continue };
        compared += 1;
        let scale = logits.iter().fold(1f32, |top, l| if l.is_finite() { top.max(l.abs()) } else { top });
        let (chosen, best) = ranking.read(&logits, expected[0][0].as_u64().unwrap() as u32, 5);
        assert_eq!(best.len(), 5);
        close("chosen", chosen, best[0].1, 0.0);
        for (&(_, ours), theirs) in best.iter().zip(expected) {
            close(vector["name"].as_str().unwrap(), ours, number(&theirs[1]), 2e-6 + 2e-7 * scale);
        }
        assert!(best.iter().zip(expected).all(|(&(id, _), e)| u64::from(id) == e[0].as_u64().unwrap()));
    }
    assert!(compared >= 3);
}

#[test]
fn openai_penalties_and_bias_follow_their_formulas() {
    let fixture = Fixture::open();
    let vector = |name: &Value| {
        let found = fixture.expected["vectors"].as_array().unwrap().iter().find(|v| v["name"] == *name);
        fixture.tensor(&found.unwrap()["logits"])
    };
    let check = |mut logits: Vec<f32>, settings: Settings, history: &History, expected: Vec<f32>| {
        penalise(&mut logits, &settings, history);
        for (ours, theirs) in logits.into_iter().zip(expected) {
            close("penalised logit", ours, theirs, 1e-5);
        }
    };
    let openai = &fixture.expected["openai_penalties"];
    let mut history = History::default();
    ids(&openai["history"]).into_iter().for_each(|id| history.push_output(id));
    for case in openai["cases"].as_array().unwrap() {
        let settings = Settings {
            frequency_penalty: case["frequency_penalty"].as_f64().unwrap() as f32,
            presence_penalty: case["presence_penalty"].as_f64().unwrap() as f32,
            ..Settings::default()
        };
        check(vector(&openai["vector"]), settings, &history, fixture.tensor(&case["logits"]));
    }
    let bias = &fixture.expected["logit_bias"];
    let pairs = bias["bias"].as_object().unwrap().iter();
    let logit_bias = pairs.map(|(id, b)| (id.parse().unwrap(), b.as_f64().unwrap() as f32)).collect();
    let settings = Settings { logit_bias, ..Settings::default() };
    check(vector(&bias["vector"]), settings, &history, fixture.tensor(&bias["logits"]));
}

#[test]
fn draw_is_the_inverse_of_the_cumulative_distribution() {
    let fixture = Fixture::open();
    let case = &fixture.expected["inverse_cdf"];
    let probs = fixture.tensor(&case["probs"]);
    for pair in case["u_and_token"].as_array().unwrap() {
        assert_eq!(draw(&probs, pair[0].as_f64().unwrap()), Some(pair[1].as_u64().unwrap() as usize));
    }
    assert_eq!(draw(&[0.0, 0.5, 0.5, 0.0], 1.0), Some(2));
    assert_eq!(draw(&[0.0, 0.0], 0.0), None);
}

#[test]
fn sampler_draws_with_the_frequencies_of_the_distribution() {
    let logits = [0.0f32, 1.0, 2.0, f32::NEG_INFINITY, 3.0];
    let mut sampler = Sampler::default();
    let mut counts = [0f64; 5];
    for position in 0..20_000 {
        let place = Place { seed: 11, choice: 0, position };
        let ask = Ask {
            settings: &Settings::default(),
            history: &History::default(),
            suppressed: &[],
            allowed: None,
            place,
        };
        counts[sampler.sample(&logits, &ask).unwrap() as usize] += 1.0;
    }
    let total: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
    for (count, logit) in counts.iter().zip(logits) {
        let p = f64::from(logit).exp() / total;
        // Five standard deviations of a binomial.
        assert!((count / 20_000.0 - p).abs() <= 5.0 * (p * (1.0 - p) / 20_000.0).sqrt());
    }
}

#[test]
fn extremes_are_survived() {
    let mut sampler = Sampler::default();
    let mut check = |logits: &[f32], settings: Settings, suppressed: &[u32], expected: Option<u32>| {
        let place = Place { seed: 1, choice: 0, position: 0 };
        let ask = Ask {
            settings: &settings,
            history: &History::of_prompt(&[1, 1, 77]),
            suppressed,
            allowed: None,
            place,
        };
        assert_eq!(sampler.sample(logits, &ask), expected, "{logits:?} {settings:?}");
    };
    let with = |temperature: f32| Settings { temperature, ..Settings::default() };
    check(&[f32::NEG_INFINITY; 4], with(1.0), &[], None);
    check(&[f32::NAN; 4], with(0.0), &[], None);
    check(&[f32::NAN, 1.0], with(1.0), &[], Some(1));
    check(&[1.0, f32::INFINITY, 2.0], with(1.0), &[], Some(1));
    check(&[1.0, 2.0, 1.5], with(1e-30), &[1], Some(2));
    check(&[1.0, 2.0], with(1.0), &[0, 1], None);
    check(&[3.0, 4.0, 1.0], Settings { repetition_penalty: 2.0, ..with(0.0) }, &[], Some(0));
    check(&[3.0, 4.0, 1.0], Settings { top_k: 1, top_p: 1e-9, min_p: 1.0, ..with(1.0) }, &[], Some(1));
    check(&[], with(1.0), &[], None);
}
