//! Traces to a collector that a test plays: `cargo test -p tidegate --features otlp --test command traces`.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use crate::program::{Case, Folder, check};
use crate::serve::Server;

/// A span, as far as it matters here.
#[derive(Debug, Default)]
struct Span {
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
    name: String,
    start: u64,
    end: u64,
}

/// A field of a protobuf message: a number, or bytes.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message with their numbers, as https://protobuf.dev/programming-guides/encoding writes them.
fn fields(mut message: &[u8]) -> Vec<(u64, Value<'_>)> {
    fn varint(message: &mut &[u8]) -> u64 {
        let length = message.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
        let (number, rest) = message.split_at(length);
        *message = rest;
        number.iter().rev().fold(0, |sum, byte| sum << 7 | u64::from(byte & 0x7f))
    }
    let mut fields = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut message)),
            1 => Value::Number(u64::from_le_bytes(message.split_off(..8).unwrap().try_into().unwrap())),
            2 => {
                let length = varint(&mut message) as usize;
                Value::Bytes(message.split_off(..length).unwrap())
            }
            5 => {
                Value::Number(u32::from_le_bytes(message.split_off(..4).unwrap().try_into().unwrap()).into())
            }
            wire => panic!("wire type {wire}"),
        };
        fields.push((tag >> 3, value));
    }
    fields
}

fn parts(message: &[u8], number: u64) -> Vec<&[u8]> {
    let bytes = fields(message).into_iter().filter_map(|(found, value)| match value {
        Value::Bytes(bytes) if found == number => Some(bytes),
        _ => None,
    });
    bytes.collect()
}

/// `ExportTraceServiceRequest` of opentelemetry-proto 1.x: resource spans (1), scope spans (2), spans (2).
fn spans(request: &[u8]) -> Vec<Span> {
    let scopes = parts(request, 1).into_iter().flat_map(|resource| parts(resource, 2));
    let spans = scopes.flat_map(|scope| parts(scope, 2)).map(|message| {
        let mut span = Span::default();
        for field in fields(message) {
            match field {
                (1, Value::Bytes(trace)) => span.trace = trace.to_vec(),
                (2, Value::Bytes(id)) => span.id = id.to_vec(),
                (4, Value::Bytes(parent)) => span.parent = parent.to_vec(),
                (5, Value::Bytes(name)) => span.name = String::from_utf8(name.to_vec()).unwrap(),
                (7, Value::Number(start)) => span.start = start,
                (8, Value::Number(end)) => span.end = end,
                _ => {}
            }
        }
        span
    });
    spans.collect()
}

/// Takes what is exported and hands on its head and its body.
fn collector() -> (String, Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (taken, all) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert_ne!(stream.read_line(&mut head).unwrap(), 0);
            }
            let length = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            let mut body = vec![0; length.unwrap()];
            stream.read_exact(&mut body).unwrap();
            // Whoever hears the answer may end, and then all is to be there.
            if taken.send((head, body)).is_err() {
                return;
            }
            let answer =
                "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    (address, all)
}

#[test]
fn a_collector_gets_the_stages_of_a_request_below_its_clients_span() {
    let (endpoint, exported) = collector();
    let server = Server::start(&Folder::new(), &["--otlp-endpoint", &endpoint]);
    let body = r#"{"messages": [{"role": "user", "content": "secret-prompt"}], "max_tokens": 5}"#;
    let parent = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
    assert_eq!(server.ask("POST", "/v1/chat/completions", parent, body).0, 200);
    // What is not sent yet is sent at the end.
    assert_eq!(server.stop().0, Some(0));
    let mut all = Vec::new();
    for (head, body) in exported.try_iter() {
        assert!(
            head.starts_with("POST /v1/traces HTTP/1.1") && head.contains("application/x-protobuf"),
            "{head}"
        );
        assert!(!body.windows(6).any(|part| part == b"secret"));
        all.extend(spans(&body));
    }
    let trace =
        [0x0a, 0xf7, 0x65, 0x19, 0x16, 0xcd, 0x43, 0xdd, 0x84, 0x48, 0xeb, 0x21, 0x1c, 0x80, 0x31, 0x9c];
    assert!(
        all.iter().all(|span| span.trace == trace && span.start > 0 && span.start <= span.end),
        "{all:?}"
    );
    let named: HashMap<&str, &Span> = all.iter().map(|span| (&*span.name, span)).collect();
    let root = named["POST /v1/chat/completions"];
    assert_eq!(root.parent, [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
    for stage in ["receive", "prepare", "queue", "prefill", "decode", "stream"] {
        assert!(named[stage].parent == root.id && named[stage].end <= root.end, "{stage}: {all:?}");
    }
}

#[test]
fn a_collector_that_cannot_be_is_refused_and_one_that_is_not_there_harms_nobody() {
    check(&Case {
        arguments: &["serve", "--port", "0", "--otlp-endpoint", "https://collector:4318"],
        exit: 2,
        stderr: &["'https://collector:4318' is no collector of traces: expected http://HOST:PORT"],
        ..Case::default()
    });
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Server::start(&Folder::new(), &["--otlp-endpoint", &format!("http://{gone}")]);
    let body = r#"{"prompt": "Once", "max_tokens": 3}"#;
    assert_eq!(server.ask("POST", "/v1/completions", "", body).0, 200);
    let (exit, said) = server.stop();
    assert_eq!(exit, Some(0), "{said}");
    assert!(said.contains("export"), "{said}");
}
