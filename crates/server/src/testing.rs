//! The bench on which endpoints are tested: a router over a scripted inference, requests written as plain text, and
//! [`check`], which compares each exchange with a file under `test_data/`. `UPDATE_EXPECT=1` rewrites the files.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, Response};
use protocol::scripted::{Script, Scripted};
use serde_json::Value;
use tower::ServiceExt;

use crate::{Settings, router};

pub(crate) struct Bench {
    pub(crate) scripted: Scripted,
    pub(crate) router: Router,
}

impl Bench {
    pub(crate) fn over(scripted: Scripted) -> Self {
        Self::with(scripted, Settings::default())
    }

    pub(crate) fn with(scripted: Scripted, settings: Settings) -> Self {
        Self { router: router(Arc::new(scripted.clone()), settings), scripted }
    }

    /// An inference that answers every request alike.
    pub(crate) fn saying(script: Script) -> Self {
        Self::over(Scripted::new().always(script))
    }

    pub(crate) async fn send(&self, written: &str) -> Response<Body> {
        self.router.clone().oneshot(request(written)).await.unwrap()
    }

    pub(crate) async fn json(&self, written: &str) -> Value {
        let answer = self.send(written).await;
        serde_json::from_slice(&to_bytes(answer.into_body(), usize::MAX).await.unwrap()).unwrap()
    }
}

/// Reads `METHOD /path`, header lines, and after an empty line the body, which is sent as JSON unless a header says
/// otherwise.
fn request(written: &str) -> Request<Body> {
    let (head, body) = written.split_once("\n\n").unwrap_or((written, ""));
    let mut lines = head.lines();
    let (method, path) = lines.next().unwrap().split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(path);
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        request = request.header(name, value);
    }
    if !body.is_empty() && !head.contains("content-type") {
        request = request.header("content-type", "application/json");
    }
    request.body(Body::from(body.to_owned())).unwrap()
}

/// Sends a request and compares the whole exchange with `test_data/<case>.txt`.
pub(crate) async fn check(case: &str, bench: &Bench, written: &str) {
    let (head, body) = bench.send(written).await.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap();
    let body = String::from_utf8(bytes.to_vec()).unwrap();
    let status = head.status.as_u16();
    let shown = format!("{}\n\n{status}\n{}\n{}", written.trim_end(), shown(&head.headers), pretty(&body));
    compare(case, &shown);
}

/// Sends one request per body and compares what is refused, one line each, with `test_data/<case>.txt`.
pub(crate) async fn check_refusals(case: &str, bench: &Bench, path: &str, bodies: &[&str]) {
    let mut shown = String::new();
    for body in bodies {
        let answer = bench.send(&format!("POST {path}\n\n{body}")).await;
        let status = answer.status().as_u16();
        let bytes = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        let Value::Object(error) = &serde_json::from_slice::<Value>(&bytes).unwrap()["error"] else {
            panic!("{body} was accepted");
        };
        let [code, param, message] = ["code", "param", "message"].map(|field| match &error[field] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        assert_eq!(error["type"], "invalid_request_error", "{body}");
        shown += &format!("{body}\n    {status} {code} at {param}: {message}\n");
    }
    compare(case, &shown);
}

/// Compares `shown` with `test_data/<case>.txt`, apart from what differs from run to run.
pub(crate) fn compare(case: &str, shown: &str) {
    let shown = masked(shown);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("test_data").join(format!("{case}.txt"));
    #[expect(clippy::disallowed_methods, reason = "a switch for whoever runs the tests, not configuration")]
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, shown).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == shown,
        "{case} differs; UPDATE_EXPECT=1 accepts\n--- expected\n{expected}\n--- found\n{shown}"
    );
}

fn shown(headers: &HeaderMap) -> String {
    let mut lines: Vec<String> = headers
        .iter()
        .filter(|(name, _)| !["content-length", "openai-processing-ms"].contains(&name.as_str()))
        .map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()))
        .collect();
    lines.sort();
    lines.concat()
}

fn pretty(body: &str) -> String {
    let parsed: Result<Value, _> = serde_json::from_str(body);
    parsed.map_or_else(|_| body.to_owned(), |value| format!("{value:#}\n"))
}

/// Replaces what follows each of these marks, as far as it is made of the given characters.
fn masked(text: &str) -> String {
    let digits = |letter: char| letter.is_ascii_digit();
    let hex = |letter: char| letter.is_ascii_hexdigit();
    let text = ["chatcmpl-", "cmpl-", "rerank-", "score-", "call_", "req_", "fp_"]
        .iter()
        .fold(text.to_owned(), |text, mark| mask(&text, mark, hex));
    ["\"created\": ", "\"created\":"].iter().fold(text, |text, mark| mask(&text, mark, digits))
}

fn mask(text: &str, mark: &str, masked: impl Fn(char) -> bool) -> String {
    let mut pieces = text.split(mark);
    let mut shown = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let rest = piece.trim_start_matches(&masked);
        // A mark that is followed by something short is a word that happens to look like one.
        let kept = if piece.len() - rest.len() < 10 { piece } else { &format!("#{rest}") };
        shown += mark;
        shown += kept;
    }
    shown
}
