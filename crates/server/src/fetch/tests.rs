//! Fetching from servers on this machine, well-behaved ones and others.

use std::sync::Arc;
use std::time::Duration;

use protocol::scripted::{Script, Scripted};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::exchange::Line;
use super::{Fetcher, Fetching, Room};
use crate::Settings;
use crate::testing::Bench;

/// Four red pixels.
const RED: &[u8] = include_bytes!("../../test_data/fetch/red.png");
const CERTIFICATE: &[u8] = include_bytes!("../../test_data/fetch/cert.pem");
const KEY: &[u8] = include_bytes!("../../test_data/fetch/key.pem");

/// What a server answers, and what it does then.
enum Reply {
    /// Says it and hangs up.
    Says(Vec<u8>),
    /// Says it and then nothing, without hanging up.
    Stalls(Vec<u8>),
    /// Says the first once and the second without end.
    Endless(&'static str, &'static [u8]),
}

fn ok(headers: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\n{headers}\r\n").as_bytes(), body].concat()
}

fn sends_on(to: &str) -> Reply {
    Reply::Says(format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n").into_bytes())
}

/// What stands at a path of the server at `port`.
fn reply(path: &str, port: u16) -> Reply {
    let length = format!("content-length: {}\r\n", RED.len());
    let body = |headers: &str, bytes: &[u8]| Reply::Says(ok(headers, bytes));
    match path {
        "/red.png" | "/red.png?size=2" => body(&length, RED),
        "/until-closed" => body("", RED),
        "/chunked" => {
            let sizes = [format!("{:x}\r\n", RED.len()).as_bytes(), RED, b"\r\n0\r\n\r\n"].concat();
            body("transfer-encoding: chunked\r\n", &sizes)
        }
        "/text" => body("content-type: image/png\r\ncontent-length: 5\r\n", b"hello"),
        "/too-short" => body("content-length: 500\r\n", RED),
        "/too-long" => body("content-length: 40\r\n", RED),
        "/announced" => body("content-length: 999999999999\r\n", RED),
        "/compressed" => body("content-encoding: gzip\r\n", RED),
        "/torn-chunk" => body("transfer-encoding: chunked\r\n", b"ffffffffffffffffff\r\nx"),
        "/no-http" => Reply::Says(b"220 mail.example.org ESMTP\r\n".to_vec()),
        "/endless" => Reply::Endless("HTTP/1.1 200 OK\r\n\r\n", &[7; 4096]),
        "/endless-chunks" => {
            Reply::Endless("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"4\r\nabcd\r\n")
        }
        "/endless-head" => Reply::Endless("HTTP/1.1 200 OK\r\n", b"x-more: and more of it\r\n"),
        "/endless-hints" => Reply::Endless("", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        "/silent" => Reply::Stalls(Vec::new()),
        "/slow" => Reply::Stalls(ok(&length, &RED[..20])),
        "/moved" => sends_on("/red.png"),
        "/moved-away" => sends_on(&format!("http://localhost:{port}/red.png")),
        "/to-private" => sends_on(&format!("http://127.0.0.1:{port}/red.png")),
        "/to-metadata" => sends_on("http://169.254.169.254/latest/meta-data"),
        "/to-other-scheme" => sends_on("file:///etc/passwd"),
        "/to-itself" => sends_on("/to-itself"),
        "/to-nowhere" => Reply::Says(b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n".to_vec()),
        _ => Reply::Says(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec()),
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, port: u16) {
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => asked.push(byte),
            Err(_) => return,
        }
    }
    let asked = String::from_utf8(asked).unwrap();
    let path = asked.split(' ').nth(1).unwrap();
    // Whoever asks may hang up at any time, and here nobody minds.
    match reply(path, port) {
        Reply::Says(said) => {
            _ = stream.write_all(&said).await;
            _ = stream.shutdown().await;
        }
        Reply::Stalls(said) => {
            _ = stream.write_all(&said).await;
            _ = stream.read_u8().await;
        }
        Reply::Endless(first, again) => {
            _ = stream.write_all(first.as_bytes()).await;
            while stream.write_all(again).await.is_ok() {}
        }
    }
}

/// Starts a server and returns its port.
async fn start() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, port));
        }
    });
    port
}

/// The same for those who speak TLS.
async fn start_secret() -> u16 {
    let certificates = vec![CertificateDer::from_pem_slice(CERTIFICATE).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(KEY).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    answer(stream, port).await;
                }
            });
        }
    });
    port
}

fn settings(hosts: &[String]) -> Fetching {
    let hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
    // Long enough for a loaded machine; what is to be late is tried with less.
    Fetching { hosts, time: Duration::from_secs(30), ..Fetching::default() }
}

const MOST: usize = 100_000;

async fn fetched(fetcher: &Fetcher, url: &str) -> Result<Vec<u8>, String> {
    let found = fetcher.fetch(url, MOST, &Room::of(10 * MOST)).await;
    found.map_err(|error| error.to_string())
}

async fn refused(fetcher: &Fetcher, url: &str, told: &str) {
    let found = fetched(fetcher, url).await;
    assert!(found.as_ref().is_err_and(|error| error.contains(told)), "{url}: {found:?} lacks '{told}'");
}

#[tokio::test]
async fn listed_hosts_give_their_pictures() {
    let port = start().await;
    let fetcher = Fetcher::new(settings(&[format!("localhost:{port}=private")]));
    let there = |path: &str| format!("http://localhost:{port}{path}");
    for path in ["/red.png", "/red.png?size=2", "/until-closed", "/chunked", "/moved", "/moved-away"] {
        assert_eq!(fetched(&fetcher, &there(path)).await.as_deref(), Ok(RED), "{path}");
    }
    let other_writing = format!("HTTP://LOCALHOST:{port}/red.png#top");
    assert_eq!(fetched(&fetcher, &other_writing).await.as_deref(), Ok(RED));
}

#[tokio::test]
async fn what_is_not_listed_or_private_is_not_connected_to() {
    let port = start().await;
    let listed =
        [format!("localhost:{port}"), format!("127.0.0.1:{port}"), "169.254.169.254=private".to_owned()];
    let fetcher = Fetcher::new(settings(&listed));
    refused(&fetcher, &format!("http://localhost:{port}/red.png"), "has no address that everyone can reach")
        .await;
    refused(
        &fetcher,
        &format!("http://127.0.0.1:{port}/red.png"),
        &format!("--image-hosts 127.0.0.1:{port}=private"),
    )
    .await;
    refused(&fetcher, "http://169.254.169.254/latest/meta-data", "has no address that everyone").await;
    for url in [
        format!("http://localhost:{}/", port ^ 1),
        "http://localhost/red.png".to_owned(),
        "https://localhost.evil.example/".to_owned(),
        format!("http://2130706433:{port}/red.png"),
        format!("http://[::ffff:127.0.0.1]:{port}/red.png"),
    ] {
        refused(&fetcher, &url, "this server fetches no images from").await;
    }
    let named = format!("http://localhost:{port}@evil.example/");
    for url in [
        "http://",
        "http:///x",
        "ftp://localhost/x",
        "localhost",
        &named,
        "http://ex ample/",
        "http://a:0/",
        "http://a:99999/",
    ] {
        refused(&fetcher, url, "is no address of a picture").await;
    }
}

#[tokio::test]
async fn redirects_are_looked_at_like_addresses() {
    let port = start().await;
    let fetcher = Fetcher::new(settings(&[format!("localhost:{port}=private"), "127.0.0.1".to_owned()]));
    let there = |path: &str| format!("http://localhost:{port}{path}");
    refused(&fetcher, &there("/to-private"), "sent on to where no image is fetched from").await;
    refused(&fetcher, &there("/to-metadata"), "fetches no images from '169.254.169.254'").await;
    refused(&fetcher, &there("/to-other-scheme"), "'file:///etc/passwd' is no address").await;
    refused(&fetcher, &there("/to-nowhere"), "'' is no address").await;
    refused(&fetcher, &there("/to-itself"), "more than 3 redirects").await;
    let listed = [format!("localhost:{port}=private"), format!("127.0.0.1:{port}")];
    let fetcher = Fetcher::new(settings(&listed));
    refused(&fetcher, &there("/to-private"), "has no address that everyone can reach").await;
}

#[tokio::test]
async fn hostile_answers_end_within_their_bounds() {
    let port = start().await;
    let fetcher = Fetcher::new(settings(&[format!("localhost:{port}=private")]));
    let there = |path: &str| format!("http://localhost:{port}{path}");
    for (path, told) in [
        ("/endless", "has more than the 100000 bytes"),
        ("/endless-chunks", "has more than the 100000 bytes"),
        ("/announced", "has more than the 100000 bytes"),
        ("/endless-head", "broke off or is no HTTP"),
        ("/too-short", "broke off or is no HTTP"),
        ("/torn-chunk", "broke off or is no HTTP"),
        ("/no-http", "broke off or is no HTTP"),
        ("/compressed", "compressed once more, as 'gzip'"),
        ("/missing", "answered 404 and no image"),
    ] {
        refused(&fetcher, &there(path), told).await;
    }
    assert_eq!(fetched(&fetcher, &there("/too-long")).await.as_deref(), Ok(&RED[..40]));
    let little = Room::of(RED.len() + 10);
    let first = fetcher.fetch(&there("/red.png"), MOST, &little).await;
    let second = fetcher.fetch(&there("/red.png"), MOST, &little).await;
    assert!(first.is_ok() && second.is_err(), "{first:?} and {second:?} share the room of one");
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let fetcher = Fetcher::new(settings(&[format!("localhost:{closed}=private")]));
    refused(&fetcher, &format!("http://localhost:{closed}/"), "could not be reached").await;
}

#[tokio::test]
async fn slow_hosts_are_given_up_and_hold_no_place() {
    let port = start().await;
    let hosts = settings(&[format!("localhost:{port}=private")]);
    let fetcher = Fetcher::new(Fetching { time: Duration::from_millis(50), at_once: 1, ..hosts });
    for path in ["/silent", "/slow", "/endless-hints", "/silent"] {
        refused(&fetcher, &format!("http://localhost:{port}{path}"), "did not arrive within 0.05 s").await;
    }
    assert_eq!(fetcher.free.available_permits(), 1);
}

#[tokio::test]
async fn only_trusted_hosts_are_spoken_to_in_secret() {
    let secret = start_secret().await;
    let listed = [format!("localhost:{secret}=private"), format!("127.0.0.1:{secret}=private")];
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(CERTIFICATE).unwrap()).unwrap();
    let trusting = |roots| Fetcher { line: Line::trusting(roots), ..Fetcher::new(settings(&listed)) };
    let fetcher = trusting(roots);
    let there = format!("https://localhost:{secret}/red.png");
    assert_eq!(fetched(&fetcher, &there).await.as_deref(), Ok(RED));
    refused(
        &fetcher,
        &format!("https://127.0.0.1:{secret}/red.png"),
        "no connection to '127.0.0.1' that can be",
    )
    .await;
    refused(&trusting(RootCertStore::empty()), &there, "no connection to 'localhost' that can be").await;
}

#[tokio::test]
async fn a_conversation_may_name_its_pictures() {
    let port = start().await;
    let bench = |hosts: &[String]| {
        Bench::with(
            Scripted::new().always(Script::text(&["Red."])),
            Settings { fetching: settings(hosts), ..Settings::default() },
        )
    };
    let open = bench(&[format!("localhost:{port}=private")]);
    let show = |path: &str| {
        format!(
            r#"POST /v1/chat/completions

{{"messages": [{{"role": "user", "content": [{{"type": "image_url", "image_url": {{"url": "http://localhost:{port}{path}"}}}}]}}]}}"#
        )
    };
    open.json(&show("/red.png")).await;
    let asked = open.scripted.ledger().accepted;
    assert_eq!(asked.last().map(|request| &*request.images[0].bytes), Some(RED));
    let told = |answer: serde_json::Value| answer["error"]["message"].as_str().unwrap_or_default().to_owned();
    let text = told(open.json(&show("/text")).await);
    assert!(text.contains("the image is neither PNG"), "{text}");
    let closed = told(bench(&[]).json(&show("/red.png")).await);
    assert!(closed.contains("fetches nothing from other places ('http:')"), "{closed}");
    let page = open.send("GET /metrics").await;
    let page = axum::body::to_bytes(page.into_body(), usize::MAX).await.unwrap();
    let page = String::from_utf8(page.to_vec()).unwrap();
    assert!(page.contains(r#"tidegate_image_fetches_total{outcome="fetched"} 2"#), "{page}");
}
