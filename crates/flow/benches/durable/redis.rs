//! A stream of Redis with a consumer group, each command in the append-only file and synced before its answer.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use futures::future::BoxFuture;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use super::super::{BATCH, ITEM, consumers};
use super::server::{self, Server};

/// A Redis that syncs always.
pub(crate) struct Redis {
    server: Server,
    runtime: Runtime,
    name: String,
}

/// Starts it, if it is installed.
pub(crate) fn start(folder: &Path) -> Option<Redis> {
    std::fs::create_dir_all(folder).expect("a folder for Redis");
    let port = server::free_port();
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"]).arg(folder);
    command.args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""]);
    let server = server::start(command, port)?;
    let runtime = super::ours::runtime();
    let name = "Redis stream, appendfsync always".to_owned();
    runtime.block_on(async {
        let mut connection = Connection::open(port).await;
        connection.ask(&[b"XGROUP", b"CREATE", b"queue", b"group", b"$", b"MKSTREAM"]).await;
    });
    Some(Redis { server, runtime, name })
}

impl Redis {
    /// How it is called in the table.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Items per second.
    pub(crate) fn round(&self, producers: usize, items: usize) -> f64 {
        let start = Instant::now();
        self.runtime.block_on(pass(self.server.port, producers, items));
        items as f64 / start.elapsed().as_secs_f64()
    }
}

async fn pass(port: u16, producers: usize, items: usize) {
    let left = Arc::new(AtomicUsize::new(items / producers * producers));
    let mut tasks = Vec::new();
    for _ in 0..producers {
        tasks.push(tokio::spawn(async move {
            let mut connection = Connection::open(port).await;
            for _ in 0..items / producers {
                connection.ask(&[b"XADD", b"queue", b"*", b"item", &[7; ITEM]]).await;
            }
        }));
    }
    for number in 0..consumers(producers) {
        let left = Arc::clone(&left);
        tasks.push(tokio::spawn(async move {
            let mut connection = Connection::open(port).await;
            let (name, batch) = (number.to_string(), BATCH.to_string());
            while left.load(Ordering::Relaxed) > 0 {
                let read: [&[u8]; 10] = [
                    b"XREADGROUP",
                    b"GROUP",
                    b"group",
                    name.as_bytes(),
                    b"COUNT",
                    batch.as_bytes(),
                    b"BLOCK",
                    b"20",
                    b"STREAMS",
                    b"queue",
                ];
                let answer = connection.ask(&[&read[..], &[b">"]].concat()).await;
                let ids = answer.ids();
                if !ids.is_empty() {
                    let mut command: Vec<&[u8]> = vec![b"XACK", b"queue", b"group"];
                    command.extend(ids.iter().map(Vec::as_slice));
                    connection.ask(&command).await;
                    let mut command: Vec<&[u8]> = vec![b"XDEL", b"queue"];
                    command.extend(ids.iter().map(Vec::as_slice));
                    connection.send(&command).await;
                    connection.receive().await;
                    left.fetch_sub(ids.len(), Ordering::Relaxed);
                }
            }
        }));
    }
    for task in tasks {
        task.await.expect("no task panics");
    }
}

/// An answer in the protocol of Redis.
enum Answer {
    Nothing,
    Word(Vec<u8>),
    List(Vec<Answer>),
}

impl Answer {
    /// The ids in the answer to XREADGROUP: of one stream, the first of each entry.
    fn ids(self) -> Vec<Vec<u8>> {
        let first = |answer: Answer, at: usize| match answer {
            Self::List(list) => list.into_iter().nth(at),
            Self::Nothing | Self::Word(_) => None,
        };
        let entries = first(self, 0).and_then(|stream| first(stream, 1));
        let Some(Self::List(entries)) = entries else { return Vec::new() };
        let ids = entries.into_iter().filter_map(|entry| first(entry, 0));
        ids.filter_map(|id| if let Self::Word(id) = id { Some(id) } else { None }).collect()
    }
}

struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    async fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("Redis listens");
        stream.set_nodelay(true).expect("a socket can be set up");
        Self { stream: BufReader::new(stream) }
    }

    async fn ask(&mut self, words: &[&[u8]]) -> Answer {
        self.send(words).await;
        self.receive().await
    }

    async fn send(&mut self, words: &[&[u8]]) {
        let mut command = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            command.extend(format!("${}\r\n", word.len()).into_bytes());
            command.extend_from_slice(word);
            command.extend(b"\r\n");
        }
        self.stream.write_all(&command).await.expect("Redis is there");
    }

    fn receive(&mut self) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            let mut line = String::new();
            self.stream.read_line(&mut line).await.expect("Redis answers");
            let (kind, rest) = line.trim_end().split_at(1);
            let count = rest.parse::<i64>().unwrap_or(0);
            match kind {
                "+" | ":" => Answer::Word(rest.as_bytes().to_vec()),
                "$" | "*" if count < 0 => Answer::Nothing,
                "$" => {
                    let mut word = vec![0; count as usize + 2];
                    self.stream.read_exact(&mut word).await.expect("Redis ends what it begins");
                    word.truncate(count as usize);
                    Answer::Word(word)
                }
                "*" => {
                    let mut list = Vec::new();
                    for _ in 0..count {
                        list.push(self.receive().await);
                    }
                    Answer::List(list)
                }
                _ => panic!("Redis says {line}"),
            }
        })
    }
}
