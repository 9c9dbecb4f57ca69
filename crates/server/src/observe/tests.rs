//! The access log: one line per request, and nothing in it that was said.

use std::io;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use protocol::scripted::{Gate, Script};
use protocol::{Failure, FinishReason};
use serde_json::Value;
use tracing::subscriber::DefaultGuard;

use crate::testing::Bench;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn listen() -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn lines(&self) -> Vec<Value> {
        let lines =
            self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
        lines.into_iter().filter(|line| line["message"] == "request").collect()
    }
}

const ASK: &str = "POST /v1/chat/completions\nx-request-id: r-1\n\n{\"messages\": [{\"role\": \"user\", \"content\": \"secret-prompt\"}], \"unknown_field\": \"secret-value\"";

async fn read(bench: &Bench, request: &str) {
    let answer = bench.send(request).await;
    axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
}

#[tokio::test]
async fn a_line_tells_who_what_and_how_long_but_never_what_was_said() {
    let (log, _guard) = Log::listen();
    let bench = Bench::saying(Script::text(&["secret-reply", "!"]));
    read(&bench, &format!("{ASK}}}")).await;
    read(&bench, &format!("{ASK}, \"stream\": true}}")).await;
    for line in log.lines() {
        let told = |name: &str| line[name].clone();
        assert_eq!(told("request_id"), "r-1");
        assert_eq!(told("tenant"), "default");
        assert_eq!(told("route"), "/v1/chat/completions");
        assert_eq!(told("model"), "scripted");
        assert_eq!((told("status"), told("finish")), (200.into(), "stop".into()));
        assert_eq!((told("queue_ms"), told("ttft_ms")), (1.0.into(), 2.0.into()));
        assert_eq!((told("tokens_in"), told("tokens_out")), (7.into(), 2.into()));
        assert!(told("total_ms").is_f64());
    }
    assert_eq!(log.lines().len(), 2);
    assert!(log.text().contains("unknown_field"));
    assert!(!log.text().contains("secret"), "{}", log.text());
}

#[tokio::test]
async fn probes_are_not_logged_and_errors_name_their_code() {
    let (log, _guard) = Log::listen();
    let bench = Bench::saying(Script::new().started().fail(Failure::DeadlineExceeded));
    for path in ["/health", "/livez", "/readyz", "/startupz", "/metrics"] {
        read(&bench, &format!("GET {path}")).await;
    }
    assert!(log.lines().is_empty());
    read(&bench, "GET /secret-path").await;
    read(&bench, &format!("{ASK}}}")).await;
    read(&bench, &format!("{ASK}, \"stream\": true}}")).await;
    let told: Vec<String> = log
        .lines()
        .iter()
        .map(|line| format!("{} {} {}", line["route"], line["status"], line["code"]))
        .collect();
    let chat = "\"/v1/chat/completions\"";
    let expected = [
        "\"none\" 404 \"unknown_url\"".to_owned(),
        format!("{chat} 504 \"deadline_exceeded\""),
        format!("{chat} 200 \"deadline_exceeded\""),
    ];
    assert_eq!(told, expected);
    assert!(!log.text().contains("secret"));
}

#[tokio::test]
async fn a_client_that_goes_away_is_a_499() {
    let (log, _guard) = Log::listen();
    let gate = Gate::new();
    let bench =
        Bench::saying(Script::new().started().say("x").gate(&gate).finish(FinishReason::Length).done());
    let mut body = bench.send(&format!("{ASK}, \"stream\": true}}")).await.into_body().into_data_stream();
    assert!(body.next().await.is_some());
    assert!(log.lines().is_empty());
    drop(body);
    let line = &log.lines()[0];
    assert_eq!((&line["status"], &line["code"]), (&499.into(), &"client_cancel".into()));
    assert_eq!(line["tokens_out"], 1);
    let metrics = bench.send("GET /metrics").await;
    let metrics = axum::body::to_bytes(metrics.into_body(), usize::MAX).await.unwrap();
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    assert!(metrics.contains("status=\"499\"} 1"), "{metrics}");
}
