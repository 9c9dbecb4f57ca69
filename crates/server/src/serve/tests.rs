//! What only a real connection can show: clients that vanish, bodies that are too large, the end of a server.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use protocol::Inference;
use protocol::scripted::{Gate, Script, Scripted};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Ending, serve};
use crate::{Limits, Settings, Timeouts};

const BODY: &str = r#"{"messages": [{"role": "user", "content": "Hi"}]"#;

/// A server on a port of its own.
struct Running {
    port: u16,
    scripted: Scripted,
    shutdown: oneshot::Sender<()>,
    ending: JoinHandle<Ending>,
}

impl Running {
    async fn start(script: Script, settings: Settings) -> Self {
        let scripted = Scripted::new().always(script);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (shutdown, asked) = oneshot::channel::<()>();
        let inference: Arc<dyn Inference> = Arc::new(scripted.clone());
        let ending = tokio::spawn(serve(listener, inference, settings, async { _ = asked.await }));
        Self { port, scripted, shutdown, ending }
    }

    async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(("127.0.0.1", self.port)).await.unwrap(), read: Vec::new() }
    }

    /// The whole answer to one request on a connection of its own.
    async fn ask(&self, request: &str) -> String {
        let mut client = self.connect().await;
        client.send(request.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n").as_bytes()).await;
        client.rest().await
    }
}

struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Reads until what was read holds `mark`, and returns all of it.
    async fn until(&mut self, mark: &str) -> String {
        soon(async {
            loop {
                let text = String::from_utf8_lossy(&self.read).into_owned();
                if text.contains(mark) {
                    self.read.clear();
                    return text;
                }
                let count = self.stream.read_buf(&mut self.read).await.unwrap();
                assert!(count > 0, "the connection ended before {mark:?} came, after {text:?}");
            }
        })
        .await
    }

    async fn rest(&mut self) -> String {
        soon(self.stream.read_to_end(&mut self.read)).await.unwrap();
        String::from_utf8(std::mem::take(&mut self.read)).unwrap()
    }
}

/// Fails the test rather than hanging it.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(90), future).await.expect("nothing happened for too long")
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: t\r\n\r\n")
}

fn post(fields: &str) -> String {
    let body = format!("{BODY}{fields}}}");
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn held(gate: &Gate) -> Script {
    Script::new().started().say("Hel").gate(gate).say("lo").finish_and_done()
}

#[tokio::test]
async fn a_client_that_vanishes_cancels_its_request() {
    let running = Running::start(held(&Gate::new()), Settings::default()).await;
    let mut streaming = running.connect().await;
    streaming.send(post(r#", "stream": true"#).as_bytes()).await;
    streaming.until("Hel").await;
    drop(streaming);
    soon(running.scripted.until(|ledger| ledger.cancelled.len() == 1)).await;
    let mut waiting = running.connect().await;
    waiting.send(post("").as_bytes()).await;
    soon(running.scripted.until(|ledger| ledger.accepted.len() == 2)).await;
    drop(waiting);
    soon(running.scripted.until(|ledger| ledger.cancelled.len() == 2)).await;
    let metrics = running.ask(&get("/metrics")).await;
    let gone = "tidegate_http_requests_total{route=\"/v1/chat/completions\",status=\"499\"} 2";
    assert!(metrics.contains(gone), "{metrics}");
}

#[tokio::test]
async fn a_connection_serves_one_request_after_another() {
    let running = Running::start(Script::text(&["Hi"]), Settings::default()).await;
    let mut client = running.connect().await;
    for _ in 0..2 {
        client.send(post(r#", "stream": true"#).as_bytes()).await;
        let answer = client.until("0\r\n\r\n").await;
        assert!(answer.contains("transfer-encoding: chunked"), "{answer}");
        assert!(answer.contains("data: [DONE]\n\n"), "{answer}");
        client.send(get("/v1/models").as_bytes()).await;
        client.until("}]}").await;
    }
}

fn small() -> Settings {
    Settings { limits: Limits { body_bytes: 1024, ..Limits::default() }, ..Settings::default() }
}

#[tokio::test]
async fn a_chunked_body_is_read_up_to_the_limit() {
    let running = Running::start(Script::text(&["Hi"]), small()).await;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n";
    let body = format!("{BODY}}}");
    let (first, second) = body.split_at(10);
    let mut client = running.connect().await;
    let chunks = format!("{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n", first.len(), second.len());
    client.send(format!("{head}{chunks}").as_bytes()).await;
    let answer = client.until("\"usage\"").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let mut client = running.connect().await;
    client.send(head.as_bytes()).await;
    for _ in 0..1000 {
        client.send(format!("400\r\n{}\r\n", "x".repeat(1024)).as_bytes()).await;
    }
    client.send(b"0\r\n\r\n").await;
    let answer = client.until("request_too_large").await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn who_sends_too_much_still_hears_why() {
    let running = Running::start(Script::text(&["Hi"]), small()).await;
    let big = vec![b'x'; 4 << 20];
    for (path, told) in [("/v1/completions", "HTTP/1.1 413"), ("/v1/nothing", "HTTP/1.1 404")] {
        let mut client = running.connect().await;
        let head = format!("POST {path} HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n", big.len());
        client.send(head.as_bytes()).await;
        client.send(&big).await;
        let answer = client.until("\"error\"").await;
        assert!(answer.starts_with(told), "{answer}");
    }
}

#[tokio::test]
async fn who_asks_before_sending_too_much_sends_nothing() {
    let running = Running::start(Script::text(&["Hi"]), small()).await;
    let mut client = running.connect().await;
    let head =
        "POST /v1/completions HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 9999\r\n\r\n";
    client.send(head.as_bytes()).await;
    let answer = client.until("request_too_large").await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn a_drain_finishes_what_runs_and_takes_nothing_new() {
    let gate = Gate::new();
    let running = Running::start(held(&gate), Settings::default()).await;
    let mut streaming = running.connect().await;
    streaming.send(post(r#", "stream": true"#).as_bytes()).await;
    streaming.until("Hel").await;
    assert!(running.ask(&get("/readyz")).await.starts_with("HTTP/1.1 200"));
    let shutdown = running.shutdown;
    let running = Running { shutdown: oneshot::channel().0, ..running };
    shutdown.send(()).unwrap();
    soon(running.scripted.until(|ledger| ledger.draining)).await;
    assert!(running.ask(&get("/readyz")).await.starts_with("HTTP/1.1 503"));
    assert!(running.ask(&get("/livez")).await.starts_with("HTTP/1.1 200"));
    let mut late = running.connect().await;
    late.send(post("").as_bytes()).await;
    let refused = late.rest().await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    for told in ["connection: close\r\n", "retry-after: 2\r\n", "not_ready"] {
        assert!(refused.contains(told), "{told} is missing in {refused}");
    }
    gate.open();
    assert!(streaming.rest().await.contains("data: [DONE]\n\n"));
    assert_eq!(soon(running.ending).await.unwrap(), Ending::Drained);
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_takes_too_long_says_so_and_ends() {
    let running = Running::start(held(&Gate::new()), Settings::default()).await;
    let mut streaming = running.connect().await;
    streaming.send(post(r#", "stream": true"#).as_bytes()).await;
    streaming.until("Hel").await;
    running.shutdown.send(()).unwrap();
    let rest = streaming.rest().await;
    assert!(rest.contains("data: {\"error\":{\"message\":\"the engine is shutting down\""), "{rest}");
    assert_eq!(soon(running.ending).await.unwrap(), Ending::TimedOut { connections: 1 });
    assert_eq!(running.scripted.ledger().cancelled.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_not_waited_for() {
    let timeouts = Timeouts { headers: Duration::from_secs(3), ..Timeouts::default() };
    let running = Running::start(Script::text(&["Hi"]), Settings { timeouts, ..Settings::default() }).await;
    let mut client = running.connect().await;
    client.send(b"GET /v1/models HTT").await;
    client.rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_not_waited_for() {
    let word = "tide ".repeat(20_000);
    let flood = (0..1000).fold(Script::new().started(), |script, _| script.say(&word)).finish_and_done();
    let running = Running::start(flood, Settings::default()).await;
    let mut client = running.connect().await;
    client.send(post(r#", "stream": true"#).as_bytes()).await;
    soon(running.scripted.until(|ledger| ledger.cancelled.len() == 1)).await;
}

#[tokio::test]
async fn connections_wait_for_room() {
    let running =
        Running::start(Script::text(&["Hi"]), Settings { connections: 1, ..Settings::default() }).await;
    let mut first = running.connect().await;
    first.send(get("/livez").as_bytes()).await;
    first.until("}]}").await;
    let mut second = running.connect().await;
    second.send(get("/livez").as_bytes()).await;
    drop(first);
    second.until("}]}").await;
}
