//! Tenants that take what they may, and more, on a clock that stands still unless it is moved.

use std::num::NonZeroU32;
use std::time::Duration;

use axum::body::to_bytes;
use flow::queue::Rate;
use protocol::scripted::{Gate, Script, Scripted};
use serde_json::Value;
use tokio::time::advance;

use crate::testing::{Bench, check};
use crate::{Key, Keys, PerTenant, Quotas, Settings};

fn number(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

fn a_minute(n: u32) -> Rate {
    Rate::new(number(n), Duration::from_secs(60)).burst(number(n))
}

fn everyone<T>(limit: T) -> PerTenant<T> {
    [(None, limit)].into_iter().collect()
}

fn bench(quotas: Quotas) -> Bench {
    let keys = Keys::default().with("alice", Key::of("a")).with("bob", Key::of("b"));
    let reply = Script::text(&["Hi", " you"]);
    Bench::with(Scripted::new().always(reply), Settings { keys, quotas, ..Settings::default() })
}

/// What became of a request of 4 bytes that asks for `max` tokens: its status, and the headers whose names end so.
async fn ask(bench: &Bench, key: &str, max: &str, shown: &[&str]) -> (u16, Vec<String>) {
    let limit = if max.is_empty() { String::new() } else { format!(", \"max_tokens\": {max}") };
    let body = format!("{{\"messages\": [{{\"role\": \"user\", \"content\": \"Tide\"}}]{limit}}}");
    let written = format!("POST /v1/chat/completions\nauthorization: Bearer {key}\n\n{body}");
    let answer = bench.send(&written).await;
    let header =
        |name: &&str| answer.headers().get(*name).map_or("-", |value| value.to_str().unwrap()).to_owned();
    let told = (answer.status().as_u16(), shown.iter().map(header).collect());
    to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    told
}

#[tokio::test(start_paused = true)]
async fn requests_in_a_time_are_limited_for_each_tenant() {
    let requests = [(None, a_minute(2)), (Some("bob".to_owned()), a_minute(3))].into_iter().collect();
    let bench = bench(Quotas { requests, ..Quotas::default() });
    let shown =
        ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"];
    let told = |status, shown: [&str; 3]| (status, shown.map(str::to_owned).to_vec());
    assert_eq!(ask(&bench, "a", "", &shown).await, told(200, ["2", "1", "30s"]));
    assert_eq!(ask(&bench, "a", "", &shown).await, told(200, ["2", "0", "1m0s"]));
    advance(Duration::from_secs(10)).await;
    assert_eq!(ask(&bench, "a", "", &shown).await, told(429, ["2", "0", "50s"]));
    assert_eq!(ask(&bench, "b", "", &shown).await, told(200, ["3", "2", "20s"]), "bob has another account");
    assert_eq!(ask(&bench, "a", "", &["retry-after"]).await, (429, vec!["20".to_owned()]));
    advance(Duration::from_secs(20)).await;
    assert_eq!(ask(&bench, "a", "", &["x-ratelimit-limit-tokens"]).await, (200, vec!["-".to_owned()]));
    assert_eq!(ask(&bench, "c", "", &shown[..1]).await, (401, vec!["-".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn tokens_are_charged_by_estimate_and_settled_by_what_was_taken() {
    let bench = bench(Quotas { tokens: everyone(a_minute(600)), ..Quotas::default() });
    let shown = ["x-ratelimit-remaining-tokens"];
    let told = |status, left: &str| (status, vec![left.to_owned()]);
    // The header is written when the reply begins, so that it still knows the estimate; the script reads 7 and writes 2.
    assert_eq!(ask(&bench, "a", "499", &shown).await, told(200, "100"));
    assert_eq!(ask(&bench, "a", "499", &shown).await, told(200, "91"), "9 were taken by the first");
    assert_eq!(
        ask(&bench, "a", "", &shown).await,
        told(200, "325"),
        "a reply of open length is taken for 256"
    );
    assert_eq!(ask(&bench, "a", "581", &shown).await, told(429, "573"));
    assert_eq!(ask(&bench, "a", "581", &["retry-after"]).await, told(429, "1"));
    advance(Duration::from_secs(1)).await;
    assert_eq!(ask(&bench, "a", "581", &shown).await, told(200, "1"));
    // More than the account can ever hold has its turn when it is full.
    advance(Duration::from_secs(60)).await;
    assert_eq!(ask(&bench, "a", "900", &shown).await, told(200, "0"));
}

#[tokio::test(start_paused = true)]
async fn what_was_not_done_is_not_charged() {
    let quotas =
        Quotas { tokens: everyone(a_minute(600)), requests: everyone(a_minute(9)), ..Quotas::default() };
    let bench = bench(quotas);
    let shown = ["x-ratelimit-remaining-requests", "x-ratelimit-remaining-tokens"];
    let told = |status, left: [&str; 2]| (status, left.map(str::to_owned).to_vec());
    let wrong = "POST /v1/completions\nauthorization: Bearer a\n\n{\"prompt\": 5}";
    assert_eq!(bench.send(wrong).await.status(), 400);
    assert_eq!(
        ask(&bench, "a", "300", &shown).await,
        told(200, ["7", "299"]),
        "a wrong request is a request"
    );
    assert_eq!(ask(&bench, "a", "595", &shown).await, told(429, ["7", "591"]), "one turned away is none");
    let unknown = "{\"model\": \"x\", \"max_tokens\": 500, \"prompt\": \"Tide\"}";
    let unknown = format!("POST /v1/completions\nauthorization: Bearer a\n\n{unknown}");
    assert_eq!(bench.send(&unknown).await.status(), 404);
    assert_eq!(ask(&bench, "a", "300", &shown).await, told(200, ["5", "290"]));
}

#[tokio::test(start_paused = true)]
async fn requests_at_once_are_limited_until_they_end_however_they_do() {
    let quotas = Quotas { at_once: everyone(number(2)), ..Quotas::default() };
    let keys = Keys::default().with("alice", Key::of("a")).with("bob", Key::of("b"));
    let scripted =
        Scripted::new().always(Script::new().started().say("x").gate(&Gate::new()).finish_and_done());
    let bench = Bench::with(scripted, Settings { keys, quotas, ..Settings::default() });
    let stream = |key| {
        let body = "{\"prompt\": \"Tide\", \"stream\": true}";
        format!("POST /v1/completions\nauthorization: Bearer {key}\n\n{body}")
    };
    let first = bench.send(&stream("a")).await;
    let _second = bench.send(&stream("a")).await;
    let refused = bench.send(&stream("a")).await;
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (429, "1"));
    assert_eq!(bench.send(&stream("b")).await.status(), 200);
    // The client goes away after 30 seconds: from then on it is known how fast places become free.
    advance(Duration::from_secs(30)).await;
    drop(first);
    let third = bench.send(&stream("a")).await;
    assert_eq!(third.status(), 200);
    check("quota/at_once", &bench, &stream("a")).await;
    let page = bench.send("GET /metrics").await;
    let page = String::from_utf8(to_bytes(page.into_body(), usize::MAX).await.unwrap().to_vec()).unwrap();
    assert!(
        page.contains("tidegate_tenant_requests_limited_total{tenant=\"alice\",limit=\"concurrency\"} 2\n"),
        "{page}"
    );
}

#[tokio::test(start_paused = true)]
async fn vectors_and_scores_are_charged_too() {
    let bench = bench(Quotas { tokens: everyone(a_minute(10)), ..Quotas::default() });
    for (path, body, estimate) in [
        ("embeddings", "{\"input\": [\"eight by\", [1, 2]]}", 4),
        ("score", "{\"text_1\": \"four\", \"text_2\": [\"four\", \"fo\"]}", 4),
        ("rerank", "{\"query\": \"four\", \"documents\": [\"four\", \"four\"]}", 4),
    ] {
        advance(Duration::from_secs(100)).await;
        let answer = bench.send(&format!("POST /v1/{path}\nauthorization: Bearer a\n\n{body}")).await;
        assert_eq!(answer.headers()["x-ratelimit-limit-tokens"], "10", "{path}");
        let bytes = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        let told: Value = serde_json::from_slice(&bytes).unwrap();
        assert!(told["usage"]["total_tokens"].as_u64().unwrap() >= estimate, "{path}: {told}");
    }
    check("quota/tokens", &bench, "POST /v1/embeddings\nauthorization: Bearer a\n\n{\"input\": \"far more than ten tokens of text in it\"}").await;
}
