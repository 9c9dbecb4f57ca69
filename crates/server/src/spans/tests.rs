//! The spans of requests that end in every way, and nothing in them that was said.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use protocol::scripted::{Gate, Script, Scripted};
use protocol::{FinishReason, Reused};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::{Layer, Registry, registry::LookupSpan};

use super::*;
use crate::testing::Bench;

type Told = BTreeMap<String, String>;

/// Keeps the fields of spans; those of a child name its parent.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Told>>>);

struct Fields(Told);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields(Told::new());
        attributes.record(&mut fields);
        let parent = context.span(id).and_then(|span| Some(span.parent()?.name()));
        fields.0.insert("parent".to_owned(), parent.unwrap_or("none").to_owned());
        if attributes.metadata().target() == SPANS {
            self.0.lock().unwrap().push(fields.0);
        }
    }
}

impl Spans {
    fn listen() -> (Self, tracing::subscriber::DefaultGuard) {
        let spans = Self::default();
        let guard = tracing::subscriber::set_default(Registry::default().with(spans.clone()));
        (spans, guard)
    }

    /// What there was since the last time: the request, and its stages.
    fn take(&self) -> (Told, Vec<Told>) {
        let mut all = std::mem::take(&mut *self.0.lock().unwrap());
        let stages = all.split_off(1);
        let number = |told: &Told, name: &str| told[name].parse::<u64>().unwrap();
        let root = all.pop().unwrap();
        assert!(root["parent"] == "none" && stages.iter().all(|stage| stage["parent"] == "request"));
        for stage in &stages {
            let (from, to) = (number(stage, "start_ns"), number(stage, "end_ns"));
            assert!(
                number(&root, "start_ns") <= from && from <= to && to <= number(&root, "end_ns"),
                "{stage:?}"
            );
        }
        (root, stages)
    }
}

fn names(stages: &[Told]) -> Vec<&str> {
    stages.iter().map(|stage| &*stage["otel.name"]).collect()
}

const ASK: &str = "POST /v1/chat/completions\nx-request-id: r-1\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n\n{\"messages\": [{\"role\": \"user\", \"content\": \"secret-prompt\"}]";

async fn read(bench: &Bench, request: &str) {
    let answer = bench.send(request).await;
    axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
}

#[tokio::test]
async fn a_request_has_a_span_with_its_stages_and_nothing_that_was_said() {
    let (spans, _guard) = Spans::listen();
    let bench = Bench::saying(Script::text(&["secret-reply", "!"]));
    for more in ["}", ", \"stream\": true}"] {
        read(&bench, &format!("{ASK}{more}")).await;
        let (root, stages) = spans.take();
        assert_eq!(names(&stages), ["receive", "prepare", "queue", "prefill", "decode", "stream"]);
        for (name, value) in [
            ("otel.name", "POST /v1/chat/completions"),
            ("otel.kind", "server"),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("tidegate.request", "r-1"),
            ("tidegate.tenant", "default"),
            ("gen_ai.response.model", "scripted"),
            ("gen_ai.usage.input_tokens", "7"),
            ("gen_ai.usage.output_tokens", "2"),
            ("http.response.status_code", "200"),
        ] {
            assert_eq!(root[name], value, "{name}");
        }
        assert!(!root.contains_key("otel.status_code") && !root.contains_key("error.type"));
        assert!(!format!("{root:?}{stages:?}").contains("secret"));
    }
    // Several prompts have stages each, that say which.
    let prompts = "POST /v1/completions\n\n{\"prompt\": [\"one\", \"two\"]}";
    read(&bench, prompts).await;
    let (_, stages) = spans.take();
    assert_eq!(stages.len(), 11);
    assert_eq!(
        stages.iter().filter(|stage| stage.get("tidegate.prompt").is_some_and(|at| at == "1")).count(),
        5
    );
}

#[tokio::test]
async fn who_leaves_or_fails_has_the_stages_that_were_reached() {
    let (spans, _guard) = Spans::listen();
    let gate = Gate::new();
    let script = Script::new().started().say("x").gate(&gate).finish(FinishReason::Length).done();
    let bench = Bench::saying(script);
    let mut body = bench.send(&format!("{ASK}, \"stream\": true}}")).await.into_body().into_data_stream();
    assert!(body.next().await.is_some());
    drop(body);
    let (root, stages) = spans.take();
    assert_eq!(names(&stages), ["receive", "prepare", "queue", "prefill", "decode", "stream"]);
    assert_eq!((&*root["error.type"], &*root["http.response.status_code"]), ("client_cancel", "499"));
    assert!(!root.contains_key("otel.status_code"));
    let bench =
        Bench::over(Scripted::new().always(Script::new().started().fail(protocol::Failure::ShuttingDown)));
    read(&bench, &format!("{ASK}}}")).await;
    let (root, stages) = spans.take();
    assert_eq!(names(&stages), ["receive", "prepare", "queue", "prefill"]);
    assert_eq!(root["otel.status_code"], "ERROR");
    read(&bench, "GET /v1/nothing").await;
    let (root, stages) = spans.take();
    assert_eq!((names(&stages), &*root["otel.name"]), (vec!["receive"], "GET none"));
}

#[test]
fn stages_follow_from_what_is_known_of_a_run() {
    let asked = Instant::now();
    let millis = Duration::from_millis;
    let check = |run: Run, end: u64, expected: &[(&str, u64, u64)]| {
        let run = Run { asked, ..run };
        let at = |time: Instant| time.duration_since(asked).as_millis() as u64;
        let stages = run.stages(asked + millis(end));
        let found: Vec<_> = stages.iter().map(|stage| (stage.name, at(stage.from), at(stage.to))).collect();
        assert_eq!(found, expected);
    };
    let new = |reused| Run { accepted: asked + millis(10), ..Run::generation(asked, reused) };
    let timing = Timing {
        prepared: millis(10),
        queued: millis(5),
        vision: millis(20),
        first_token: millis(40),
        total: millis(90),
    };
    let mut whole = new(None);
    whole.done(timing);
    let before = [("prepare", 0, 10), ("queue", 10, 15), ("vision", 15, 35), ("prefill", 35, 50)];
    check(whole, 120, &[&before[..], &[("decode", 50, 100), ("stream", 50, 120)]].concat());
    check(new(None), 30, &[("prepare", 0, 10), ("queue", 10, 30)]);
    let mut shared = new(Some(Reused::InFlight));
    shared.first = Some(millis(3));
    shared.done(timing);
    check(shared, 20, &[("prepare", 0, 10), ("reuse", 10, 13), ("stream", 13, 20)]);
    let encoded = Run::encoded(Timing { vision: Duration::ZERO, ..timing });
    let encoded = Run { accepted: asked + millis(10), ..encoded };
    check(encoded, 200, &[("prepare", 0, 10), ("queue", 10, 15), ("encode", 15, 100)]);
}
