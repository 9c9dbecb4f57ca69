//! A work queue of NATS JetStream, synced before each answer where the server can do that.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use super::super::{BATCH, ITEM, consumers};
use super::server::{self, Server};

const STREAM: &str =
    r#"{"name":"Q","subjects":["q"],"retention":"workqueue","storage":"file","num_replicas":1}"#;
const CONSUMER: &str =
    r#"{"stream_name":"Q","config":{"durable_name":"c","ack_policy":"explicit","max_ack_pending":100000}}"#;

/// A NATS with JetStream.
pub(crate) struct Nats {
    server: Server,
    runtime: Runtime,
    name: String,
}

/// Starts it, if it is installed.
pub(crate) fn start(folder: &Path) -> Option<Nats> {
    std::fs::create_dir_all(folder).expect("a folder for NATS");
    let port = server::free_port();
    let file = folder.join("nats.conf");
    let write = |sync: &str| {
        let store = folder.join("store");
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{}\"\n {sync} }}\n",
            store.display()
        );
        std::fs::write(&file, text).expect("the settings of NATS can be written");
    };
    write("sync_interval: always");
    let mut test = Command::new("nats-server");
    let can_sync = test.args(["-t", "-c"]).arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let how = if can_sync.is_ok_and(|status| status.success()) {
        "sync_interval always"
    } else {
        write("");
        "answers before it syncs: it cannot do otherwise"
    };
    let mut command = Command::new("nats-server");
    command.arg("-c").arg(&file);
    let server = server::start(command, port)?;
    let runtime = super::ours::runtime();
    let version = runtime.block_on(async {
        let mut connection = Connection::open(port).await;
        connection.ask("$JS.API.STREAM.CREATE.Q", STREAM.as_bytes()).await;
        connection.ask("$JS.API.CONSUMER.DURABLE.CREATE.Q.c", CONSUMER.as_bytes()).await;
        connection.version
    });
    Some(Nats { server, runtime, name: format!("JetStream {version}, {how}") })
}

impl Nats {
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
                connection.ask("q", &[7; ITEM]).await;
            }
        }));
    }
    for _ in 0..consumers(producers) {
        let left = Arc::clone(&left);
        tasks.push(tokio::spawn(async move {
            let mut connection = Connection::open(port).await;
            while left.load(Ordering::Relaxed) > 0 {
                let acknowledged = connection.take_and_acknowledge().await;
                left.fetch_sub(acknowledged, Ordering::Relaxed);
            }
        }));
    }
    for task in tasks {
        task.await.expect("no task panics");
    }
}

/// A message: where an answer to it goes, and how the line that carried it begins.
struct Message {
    reply: Option<String>,
    /// The status in its headers, if it has one: the end of a batch, say.
    is_status: bool,
}

struct Connection {
    stream: BufReader<TcpStream>,
    inbox: String,
    version: String,
}

impl Connection {
    async fn open(port: u16) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("NATS listens");
        stream.set_nodelay(true).expect("a socket can be set up");
        let mut stream = BufReader::new(stream);
        let mut info = String::new();
        stream.read_line(&mut info).await.expect("NATS says who it is");
        let version =
            info.split("\"version\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("?");
        let version = version.to_owned();
        let inbox = format!("_INBOX.{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let hello = format!("CONNECT {{\"verbose\":false,\"headers\":true}}\r\nSUB {inbox} 1\r\n");
        stream.write_all(hello.as_bytes()).await.expect("NATS is there");
        Self { stream, inbox, version }
    }

    async fn publish(&mut self, subject: &str, bytes: &[u8]) {
        let mut command = format!("PUB {subject} {} {}\r\n", self.inbox, bytes.len()).into_bytes();
        command.extend_from_slice(bytes);
        command.extend(b"\r\n");
        self.stream.write_all(&command).await.expect("NATS is there");
    }

    async fn ask(&mut self, subject: &str, bytes: &[u8]) {
        self.publish(subject, bytes).await;
        self.receive().await;
    }

    /// Takes a batch and acknowledges it, and answers with its size when the server has said that it knows.
    async fn take_and_acknowledge(&mut self) -> usize {
        let wanted = format!("{{\"batch\":{BATCH},\"expires\":20000000}}");
        self.publish("$JS.API.CONSUMER.MSG.NEXT.Q.c", wanted.as_bytes()).await;
        let mut replies = Vec::new();
        while replies.len() < BATCH {
            let message = self.receive().await;
            match message.reply {
                Some(reply) if !message.is_status => replies.push(reply),
                _ => break,
            }
        }
        for reply in &replies {
            self.publish(reply, b"+ACK").await;
        }
        for _ in &replies {
            self.receive().await;
        }
        replies.len()
    }

    async fn receive(&mut self) -> Message {
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).await.expect("NATS answers");
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["PING"] => self.stream.write_all(b"PONG\r\n").await.expect("NATS is there"),
                ["MSG" | "HMSG", _, _, .., size] => {
                    let mut body = vec![0; size.parse::<usize>().expect("a size") + 2];
                    self.stream.read_exact(&mut body).await.expect("NATS ends what it begins");
                    assert!(!body.starts_with(b"{\"error\""), "NATS says {}", String::from_utf8_lossy(&body));
                    let most = if words[0] == "MSG" { 5 } else { 6 };
                    let reply = (words.len() == most).then(|| words[3].to_owned());
                    return Message { reply, is_status: body.starts_with(b"NATS/1.0 ") };
                }
                _ => panic!("NATS says {line}"),
            }
        }
    }
}
