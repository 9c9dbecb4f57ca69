//! Text completions against a scripted inference.

use protocol::Refusal;
use protocol::scripted::{Gate, Script, Scripted};

use super::*;
use crate::testing::{Bench, check, check_refusals};

const PATH: &str = "/v1/completions";

fn post(fields: &str) -> String {
    format!("POST {PATH}\n\n{{{fields}}}")
}

fn pair(first: &[&str], second: &[&str]) -> Bench {
    Bench::over(Scripted::new().then(Script::text(first)).then(Script::text(second)))
}

#[tokio::test]
async fn every_form_of_prompt() {
    let bench = pair(&[" upon"], &[" a"]);
    check("completions/text", &bench, &post(r#""prompt": "Once""#)).await;
    check("completions/tokens", &bench, &post(r#""prompt": [5, 6]"#)).await;
    check("completions/texts", &pair(&["1", "2"], &["3"]), &post(r#""prompt": ["a", "b"], "echo": true"#))
        .await;
    let bench = pair(&["x"], &["y"]);
    check("completions/token_lists", &bench, &post(r#""prompt": [[1], [2, 3]], "max_tokens": 4"#)).await;
    let asked = bench.scripted.ledger().accepted;
    let prompts: Vec<&Prompt> = asked.iter().map(|request| &request.prompt).collect();
    assert!(matches!(prompts[..], [Prompt::Tokens(a), Prompt::Tokens(b)] if a == &[1] && b == &[2, 3]));
    assert_ne!(asked[0].id, asked[1].id);
    assert_eq!(asked[0].limits.max_tokens, Some(4));
}

#[tokio::test]
async fn the_dialect_has_a_small_default_length() {
    let bench = Bench::saying(Script::text(&["x"]));
    bench.send(&post(r#""prompt": "a""#)).await;
    bench.send(&post(r#""prompt": "a", "min_tokens": 20"#)).await;
    let asked: Vec<_> =
        bench.scripted.ledger().accepted.iter().map(|request| request.limits.max_tokens).collect();
    assert_eq!(asked, [Some(16), Some(20)]);
}

#[tokio::test]
async fn choices_are_numbered_through_over_prompts() {
    let two = |a: &str, b: &str| {
        let script = Script::new().started().choice(1).say(b).finish(FinishReason::Length).choice(0);
        script.say(a).finish_and_done()
    };
    let bench = || Bench::over(Scripted::new().then(two("a0", "a1")).then(two("b0", "b1")));
    check("completions/choices", &bench(), &post(r#""prompt": ["a", "b"], "n": 2"#)).await;
    let stream = r#""prompt": ["a", "b"], "n": 2, "stream": true, "stream_options": {"include_usage": true}"#;
    let answer = bench().send(&post(stream)).await;
    let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    let mut texts = vec![String::new(); 4];
    let lines: Vec<&str> = std::str::from_utf8(&body).unwrap().split("\n\n").collect();
    for line in &lines[..lines.len() - 2] {
        let chunk: Value = serde_json::from_str(line.strip_prefix("data: ").unwrap()).unwrap();
        for choice in chunk["choices"].as_array().unwrap() {
            texts[choice["index"].as_u64().unwrap() as usize] += choice["text"].as_str().unwrap();
        }
    }
    assert_eq!(texts, ["a0", "a1", "b0", "b1"]);
    assert_eq!(lines[lines.len() - 2..], ["data: [DONE]", ""]);
}

#[tokio::test]
async fn streams_byte_by_byte() {
    let bench = Bench::saying(Script::text(&[" upon", " a"]));
    check("completions/stream", &bench, &post(r#""prompt": "Once", "stream": true"#)).await;
    let echo = r#""prompt": "Once", "stream": true, "echo": true, "stream_options": {"include_usage": true}"#;
    check("completions/stream_echo", &bench, &post(echo)).await;
}

#[tokio::test]
async fn logprobs_with_offsets() {
    let bench = Bench::saying(Script::text(&[" tide", "é", "!"]));
    check("completions/logprobs", &bench, &post(r#""prompt": "The", "logprobs": 2"#)).await;
    check("completions/stream_logprobs", &bench, &post(r#""prompt": "The", "logprobs": 0, "stream": true"#))
        .await;
}

#[test]
fn offsets_count_the_characters_of_the_text() {
    let offsets = |tokens: &[&[u8]]| {
        let mut text = Text::default();
        tokens.iter().map(|token| text.offset(token)).collect::<Vec<usize>>()
    };
    assert_eq!(offsets(&[b"a", &[0xf0, 0x9f], &[0x8c], &[0x8a, b'b'], b"c"]), [0, 1, 1, 1, 3]);
    assert_eq!(offsets(&[&[0xe8], b"bo", &[0xff, 0xe8], &[0xe8], b"x"]), [0, 1, 3, 5, 6]);
    assert_eq!(offsets(&[b"", "né".as_bytes(), b"", b"e"]), [0, 0, 2, 2]);
}

#[tokio::test]
async fn one_refused_prompt_refuses_and_cancels_all() {
    let gate = Gate::new();
    let waits = Script::new().gate(&gate).started().finish_and_done();
    let full = Refusal::QueueFull { queued: 9, retry_after: std::time::Duration::from_millis(2500) };
    let bench = Bench::over(Scripted::new().then(waits).then(Script::refuse(full)));
    check("completions/second_refused", &bench, &post(r#""prompt": ["a", "b"]"#)).await;
    assert_eq!(bench.scripted.ledger().cancelled.len(), 1);
}

#[tokio::test]
async fn a_failed_prompt_ends_the_others() {
    let gate = Gate::new();
    let begun = || Script::new().started();
    for (case, second) in [
        ("completions/second_failed", begun().fail(protocol::Failure::DeadlineExceeded)),
        ("completions/second_cut", begun().cut()),
    ] {
        let waits = begun().gate(&gate).finish_and_done();
        let bench = Bench::over(Scripted::new().then(waits).then(second));
        check(case, &bench, &post(r#""prompt": ["a", "b"]"#)).await;
        assert_eq!(bench.scripted.ledger().cancelled.len(), 1);
    }
}

#[tokio::test]
async fn what_cannot_be_done_is_refused() {
    let bodies = [
        "{}",
        r#"{"prompt": []}"#,
        r#"{"prompt": 5}"#,
        r#"{"prompt": [1, "a"]}"#,
        r#"{"prompt": ["a", [1]], "echo": true}"#,
        r#"{"prompt": ["a", 1]}"#,
        r#"{"prompt": [[]]}"#,
        r#"{"prompt": [-1]}"#,
        r#"{"prompt": "a", "echo": true, "logprobs": 1}"#,
        r#"{"prompt": "a", "logprobs": 21}"#,
        r#"{"prompt": "a", "logprobs": true}"#,
        r#"{"prompt": "a", "suffix": "z"}"#,
        r#"{"prompt": "a", "best_of": 2}"#,
        r#"{"prompt": ["a", "b"], "n": 65}"#,
    ];
    check_refusals("completions/refused", &Bench::over(Scripted::new()), PATH, &bodies).await;
}
