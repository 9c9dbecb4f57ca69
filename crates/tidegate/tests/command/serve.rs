//! `tidegate serve`: banner, port, one request, and the way out.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::interrupted::signal;
use crate::program::{Case, Folder, check, check_in, tidegate};

/// A server that is killed if a test gives up on it.
pub(crate) struct Server {
    child: Child,
    stderr: BufReader<ChildStderr>,
    banner: String,
    address: String,
}

impl Server {
    pub(crate) fn start(folder: &Folder, more: &[&str]) -> Self {
        Self::start_as(folder, more, |command| command)
    }

    /// As `start`, by the command that `around` makes of it.
    pub(crate) fn start_as(folder: &Folder, more: &[&str], around: impl FnOnce(Command) -> Command) -> Self {
        let arguments: Vec<_> = ["serve", "--port", "0"].iter().chain(more).copied().collect();
        let mut command = around(tidegate(folder, &arguments));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut server = Self { child, stderr, banner: String::new(), address: String::new() };
        while server.address.is_empty() {
            server.read_line();
        }
        server
    }

    fn read_line(&mut self) {
        let mut line = String::new();
        assert_ne!(self.stderr.read_line(&mut line).unwrap(), 0, "the server ended: {}", self.banner);
        if let Some(address) = line.trim().strip_prefix("listening on http://") {
            self.address = address.to_owned();
        }
        self.banner += &line;
    }

    /// Sends one request and returns the status and the body.
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n{headers}\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Sends SIGTERM and returns the exit code and what else was said.
    pub(crate) fn stop(mut self) -> (Option<i32>, String) {
        signal(&self.child, "TERM");
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn two_devices_serve_one_model() {
    let stderr = ["--devices 4096 does not fit: there are", "numa, or lists"];
    check(&Case {
        arguments: &["run", "hi", "--devices", "4096"],
        exit: 1,
        stderr: &stderr,
        ..Case::default()
    });
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        return;
    }
    let server = Server::start(&Folder::new(), &["--devices", "2", "--result-cache", "0"]);
    assert!(server.banner.contains("on each of 2 devices ("), "{}", server.banner);
    let body = json!({"prompt": "Once upon", "max_tokens": 8, "temperature": 0}).to_string();
    let texts = [0; 2].map(|_| {
        let (status, answer) = server.ask("POST", "/v1/completions", "", &body);
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str::<Value>(&answer).unwrap()["choices"].to_string()
    });
    assert_eq!(texts[0], texts[1], "both replicas say the same");
    let told: Value = serde_json::from_str(&server.ask("GET", "/metrics/performance", "", "").1).unwrap();
    let devices = told["devices"].as_array().unwrap();
    assert_eq!(devices.len(), 2);
    assert!(devices.iter().all(|device| device["utilization"].as_f64() > Some(0.0)), "{told}");
    assert_eq!((told["models"].as_array().unwrap().len(), server.stop().0), (1, Some(0)));
}

#[test]
fn banner_answer_and_graceful_end() {
    let server = Server::start(&Folder::new(), &[]);
    for part in ["tidegate-tiny", "compute", "weights", "KV", "bytes)", "ready in", "curl http://127.0.0.1:"]
    {
        assert!(server.banner.contains(part), "{part:?} is missing: {}", server.banner);
    }
    assert_eq!(server.ask("GET", "/readyz", "", "").0, 200);
    let body =
        json!({ "messages": [{ "role": "user", "content": "Hello" }], "max_tokens": 4, "temperature": 0 });
    let (status, answer) = server.ask("POST", "/v1/chat/completions", "", &body.to_string());
    assert_eq!(status, 200, "{answer}");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["object"], "chat.completion");
    assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() <= 4);
    let (code, rest) = server.stop();
    assert_eq!(code, Some(0), "{rest}");
    let lines: Vec<Value> = rest.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let [.., report, last] = lines.as_slice() else { panic!("{rest}") };
    assert_eq!((&report["message"], &report["completed"]), (&json!("served"), &json!(1)));
    assert!(report["ttft_p99_ms"].as_f64().unwrap() > 0.0, "{report}");
    assert_eq!(last["message"], "everything accepted was finished");
}

#[test]
fn a_second_signal_waits_for_nothing() {
    let mut server = Server::start(&Folder::new(), &[]);
    // More than a server would finish by itself before both signals have reached it.
    let body = json!({
        "prompt": vec!["Once upon a tide"; 64], "max_tokens": 400, "ignore_eos": true, "stream": true,
    })
    .to_string();
    let mut stream = TcpStream::connect(&server.address).unwrap();
    let head = format!("host: x\r\ncontent-type: application/json\r\ncontent-length: {}", body.len());
    write!(stream, "POST /v1/completions HTTP/1.1\r\n{head}\r\n\r\n{body}").unwrap();
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.starts_with("data:")), "something is written");
    signal(&server.child, "TERM");
    while !server.banner.contains("a second signal ends at once") {
        server.read_line();
    }
    let (code, rest) = server.stop();
    assert_eq!(code, Some(130), "{rest}");
    assert!(lines.all(|line| line != "data: [DONE]"), "the stream was cut");
}

#[test]
fn command_line_of_the_banner_works_as_printed() {
    let server = Server::start(&Folder::new(), &["--model-name", "my-model"]);
    let line = server.banner.lines().find(|line| line.trim_start().starts_with("curl ")).unwrap();
    let body = line.split("-d '").nth(1).unwrap().trim_end_matches('\'');
    let path = line.split(&server.address).nth(1).unwrap().split(' ').next().unwrap();
    let (status, answer) = server.ask("POST", path, "", body);
    assert_eq!(status, 200, "{answer}");
    assert!(answer.contains("my-model"), "{answer}");
}

#[test]
fn keys_are_needed_where_set() {
    let folder = Folder::new().with("keys", "# people\nalice opensesame\n");
    let server = Server::start(&folder, &["--api-keys-file", "keys", "--api-key", "second", "--quiet"]);
    assert_eq!(server.banner.lines().count(), 1, "{}", server.banner);
    let status = |headers: &str| server.ask("GET", "/v1/models", headers, "").0;
    assert_eq!(status(""), 401);
    assert_eq!(status("authorization: Bearer wrong\r\n"), 401);
    assert_eq!(status("authorization: Bearer opensesame\r\n"), 200);
    assert_eq!(status("authorization: Bearer second\r\n"), 200);
    assert_eq!(server.ask("GET", "/readyz", "", "").0, 200);
}

/// A sentence that makes a long text.
const TIDE: &str = "The tide comes in and the tide goes out. ";

/// Asks for what follows a sentence that is said thirty times; returns the text of the answer, how much of the prompt was not computed, and how many
/// tokens have keys and values in the end.
fn continue_text(server: &Server, sentence: &str) -> (String, u64, u64) {
    let body = json!({ "prompt": sentence.repeat(30), "max_tokens": 8, "temperature": 0 });
    let (status, answer) = server.ask("POST", "/v1/completions", "", &body.to_string());
    assert_eq!(status, 200, "{answer}");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let usage = &answer["usage"];
    let cached = &usage["prompt_tokens_details"]["cached_tokens"];
    let text = answer["choices"][0]["text"].as_str().unwrap().to_owned();
    (text, cached.as_u64().unwrap(), usage["total_tokens"].as_u64().unwrap() - 1)
}

/// A figure of the server about keys and values.
fn kv_figure(server: &Server, name: &str) -> f64 {
    let page = server.ask("GET", "/metrics", "", "").1;
    let value = page.lines().find_map(|line| line.strip_prefix(&format!("tidegate_kv_{name} ")));
    value.unwrap_or_else(|| panic!("{name} in {page}")).parse().unwrap()
}

/// Waits for what comes by itself, but not for ever.
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
    }
}

#[test]
fn after_a_kill_a_known_beginning_is_read_from_the_disk_and_the_answer_is_the_same() {
    let folder = Folder::new();
    let server = Server::start(&folder, &["--kv-dir", "kv"]);
    let (answer, cached, computed) = continue_text(&server, TIDE);
    assert_eq!(cached, 0);
    // All full pages are written once there is nothing else to do.
    wait_until("pages on the disk", || kv_figure(&server, "disk_pages") >= (computed / 32) as f64);
    let taken = ["error: cannot keep keys and values in kv/kv-tidegate-tiny", "is used by another process"];
    let again =
        Case { arguments: &["run", "--kv-dir", "kv", "Hello"], exit: 1, stderr: &taken, ..Case::default() };
    check_in(&folder, &again);
    signal(&server.child, "KILL");
    drop(server);
    let server = Server::start(&folder, &["--kv-dir", "kv"]);
    let (after, cached, _) = continue_text(&server, TIDE);
    assert_eq!(after, answer);
    assert!(cached >= 64 && cached.is_multiple_of(32), "{cached}");
    let server = Server::start(&folder, &[]);
    assert_eq!(continue_text(&server, TIDE), (answer, 0, computed), "without the disk it is the same");
}

#[test]
fn keys_and_values_go_to_a_device_and_come_back() {
    let folder = Folder::new();
    for (place, room) in [(["--kv-dir", "kv"], "--kv-disk"), (["--kv-device", "0"], "--kv-device-memory")] {
        let small = [&format!("error: {room} must be room for at least two pages")[..]];
        let arguments = [&["run"][..], &place, &[room, "1KiB", "Hello"]].concat();
        check_in(&folder, &Case { arguments: &arguments, exit: 1, stderr: &small, ..Case::default() });
    }
    let unknown = ["error: cannot keep keys and values on the device 'none such': "];
    let arguments = ["run", "--kv-device", "none such", "Hello"];
    check_in(&folder, &Case { arguments: &arguments, exit: 1, stderr: &unknown, ..Case::default() });
    if !crate::opencl::is_there() {
        return;
    }
    let device = ["--kv-device", "0", "--kv-device-memory", "128MiB"];
    // Memory for keys and values holds one text or two, that for pages on their way 64 MiB.
    let server = Server::start(&folder, &[&device[..], &["--kv-memory", "1MiB"]].concat());
    let ask = |number: usize| continue_text(&server, &format!("Ship {number} goes out with the tide. "));
    let answers: Vec<_> = (0..160).map(|number| ask(number).0).collect();
    assert_eq!(kv_figure(&server, "device_read_bytes_total"), 0.0);
    // They come back where that is measured to be quicker than to compute them, which one moment does not decide.
    let again: Vec<_> = (0..10).map(ask).collect();
    assert!(again.iter().map(|(answer, ..)| answer).eq(&answers[..10]));
    assert!(again.iter().any(|(_, cached, _)| *cached >= 64), "{again:?}");
    assert!(kv_figure(&server, "device_read_bytes_total") > 0.0);
    assert!(kv_figure(&server, "device_bytes") <= kv_figure(&server, "device_limit_bytes"));
    assert_eq!(
        (kv_figure(&server, "device_faults_total"), kv_figure(&server, "disk_limit_bytes")),
        (0.0, 0.0)
    );
    drop(server);
    let server = Server::start(&folder, &[&device[..], &["--kv-dir", "kv"]].concat());
    let computed = continue_text(&server, TIDE).2;
    for place in ["device_pages", "disk_pages"] {
        wait_until(place, || kv_figure(&server, place) >= (computed / 32) as f64);
    }
}

#[test]
fn port_in_use_is_said_with_a_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let stderr = [&format!("error: port {port} is in use; try --port 0")[..]];
    check(&Case { arguments: &["serve", "--port", &port], exit: 1, stderr: &stderr, ..Case::default() });
}

#[test]
fn key_files_without_keys_do_not_open_the_server() {
    let folder = Folder::new().with("keys", "# nobody yet\n");
    let check = |file: &str, exit: i32, stderr: &[&str]| {
        let arguments = ["serve", "--port", "0", "--api-keys-file", file];
        check_in(&folder, &Case { arguments: &arguments, exit, stderr, ..Case::default() });
    };
    check("keys", 2, &["error: keys holds no API key"]);
    check("gone", 1, &["error: cannot read the API keys in gone"]);
}
