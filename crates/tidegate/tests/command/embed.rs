//! `tidegate embed`, and several models behind one server, on the tiny encoders that the tests of `models` ship.

use serde_json::Value;

use crate::program::{Case, Folder, check};
use crate::serve::Server;

const BERT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/test_data/bert/model");
const CROSS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/test_data/cross_encoder/model");

#[test]
fn an_argument_and_lines_give_the_same_vectors() {
    let call = |more: &[&str], stdin| {
        let arguments: Vec<&str> =
            ["embed", "--quiet", "--model", BERT].iter().chain(more).copied().collect();
        check(&Case { arguments: &arguments, stdin, stdout: &[" "], ..Case::default() })
    };
    let one = call(&["the tide"], None);
    assert_eq!(one.split_whitespace().filter(|number| number.parse::<f32>().is_ok()).count(), 32);
    let lines = call(&[], Some("the tide\nhigh water\n"));
    assert_eq!(lines.lines().next(), Some(one.trim_end()));
    assert_eq!(lines.lines().count(), 2);
    assert_eq!(call(&["-", "--dimensions", "3"], Some("a")).split_whitespace().count(), 3);
    let json = ["embed", "--model", BERT, "--form", "json", "--prompt-name", "query", "high water"];
    let json = check(&Case {
        arguments: &json,
        stdout: &["embedding"],
        stderr: &["model (", ", f32, "],
        ..Case::default()
    });
    let told: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&told["text"], &told["tokens"]), (&"high water".into(), &6.into()));
}

#[test]
fn the_embedded_model_embeds_and_says_what_that_is_worth() {
    let call = |more: &[&str], stderr: &[&str]| {
        let arguments: Vec<&str> = ["embed"].iter().chain(more).copied().collect();
        let case = Case { arguments: &arguments, stdout: &[" "], stderr, ..Case::default() };
        let numbers = check(&case);
        numbers.split_whitespace().map(|number| number.parse().unwrap()).collect::<Vec<f32>>()
    };
    let last = call(&["the tide"], &["was not made to embed"]);
    let norm = last.iter().map(|value| value * value).sum::<f32>();
    assert!(last.len() > 16 && (norm - 1.0).abs() < 1e-4, "{norm}");
    let mean = call(&["--quiet", "--pooling", "mean", "the tide"], &[]);
    assert!(mean.len() == last.len() && mean != last);
}

#[test]
fn what_cannot_be_embedded_is_explained() {
    let wrong = |arguments: &[&str], exit, stderr: &[&str]| {
        check(&Case { arguments, exit, stderr, ..Case::default() });
    };
    wrong(&["embed", "--quiet", "--model", CROSS, "x"], 2, &["does not embed texts; no model here does"]);
    wrong(&["embed", "--quiet", "--image", "nowhere.png"], 2, &["cannot read the image nowhere.png"]);
    wrong(&["run", "--quiet", "--model", BERT, "x"], 2, &["does not generate text; no model here does"]);
    let long = "tide ".repeat(50);
    wrong(&["embed", "--quiet", "--model", BERT, "--no-truncate", &long], 2, &["52", "24"]);
    wrong(&["embed", "--quiet", "--model", BERT, "--prompt-name", "x", "y"], 2, &["it has document, query"]);
    let twice = format!("a={BERT},a={CROSS}");
    wrong(
        &["serve", "--port", "0", "--model", &twice],
        2,
        &["two models are called 'a'", "--model NAME=PATH"],
    );
}

#[test]
fn one_server_chats_embeds_and_reranks() {
    let (embed, rerank) = (format!("embed={BERT}"), format!("rerank={CROSS}"));
    let folder =
        Folder::new().with("tidegate.toml", format!("[model]\npath = ['chat', '{embed}', '{rerank}']\n"));
    let server = Server::start(&folder, &[]);
    let post = |path: &str, body: &str| {
        let (status, answer) = server.ask("POST", path, "", body);
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str::<Value>(&answer).unwrap()
    };
    let (_, models) = server.ask("GET", "/v1/models", "", "");
    for name in ["tidegate-tiny", "embed", "rerank"] {
        assert!(models.contains(&format!(r#""id":"{name}""#)), "{models}");
    }
    assert_eq!(post("/v1/completions", r#"{"prompt": "Once", "max_tokens": 3}"#)["model"], "tidegate-tiny");
    assert_eq!(post("/v1/embeddings", r#"{"input": "tide"}"#)["model"], "embed", "it was made for that");
    let chat =
        post("/v1/embeddings", r#"{"model": "tidegate-tiny", "input": ["tide", [1, 2]], "dimensions": 8}"#);
    assert_eq!(chat["data"][1]["embedding"].as_array().map(Vec::len), Some(8));
    let turns = r#"{"model": "tidegate-tiny", "messages": [{"role": "user", "content": "tide"}]}"#;
    assert_eq!(post("/v1/embeddings", turns)["data"].as_array().map(Vec::len), Some(1));
    let body = r#"{"model": "MODEL", "query": "high water?", "documents": ["noon", "red boat"]}"#;
    assert_eq!(post("/v1/rerank", &body.replace("MODEL", "embed"))["measure"], "cosine");
    assert_eq!(post("/v1/rerank", &body.replace("MODEL", "rerank"))["measure"], "classifier");
    let (status, refused) = server.ask("POST", "/v1/embeddings", "", r#"{"model": "rerank", "input": "x"}"#);
    assert!(status == 400 && refused.contains("ask tidegate-tiny or embed"), "{status} {refused}");
}
