//! A limit on memory that is tightened and loosened again: what is given up for it, in which order, and what comes back.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use protocol::Relief;
use serde_json::{Value, json};

use crate::program::Folder;
use crate::serve::Server;

/// Nothing here takes so long, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(300);

/// A control group of its own with a limit on memory; removed at the end.
struct Group {
    folder: PathBuf,
    limit: &'static str,
    usage: &'static str,
}

impl Group {
    /// Of either version of control groups, or none where this process may not make one.
    fn new() -> Option<Self> {
        let name = format!("tidegate-pressure-{}", std::process::id());
        let (old, new) =
            (["memory.limit_in_bytes", "memory.usage_in_bytes"], ["memory.max", "memory.current"]);
        [("/sys/fs/cgroup/memory", old), ("/sys/fs/cgroup", new)].into_iter().find_map(
            |(top, [limit, usage])| {
                let folder = PathBuf::from(top).join(&name);
                fs::create_dir(&folder).ok()?;
                let group = Self { folder, limit, usage };
                // A folder that is no group has no such file.
                fs::read_to_string(group.folder.join(limit)).is_ok().then_some(group)
            },
        )
    }

    /// The command, inside of the group from its first instruction on.
    fn around(&self, inner: &Command) -> Command {
        let mut outer = Command::new("sh");
        outer.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(self.folder.join("cgroup.procs"));
        outer.arg(inner.get_program()).args(inner.get_args());
        outer.current_dir(inner.get_current_dir().unwrap());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => outer.env(name, value),
                None => outer.env_remove(name),
            };
        }
        outer
    }

    /// Leaves so many bytes to the group.
    fn allow(&self, bytes: u64) {
        fs::write(self.folder.join(self.limit), bytes.to_string()).unwrap();
    }

    /// Leaves so much that a share of it is used.
    fn tighten(&self, share: f64) {
        let used: u64 = fs::read_to_string(self.folder.join(self.usage)).unwrap().trim().parse().unwrap();
        self.allow((used as f64 / share) as u64);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel takes a moment to let go of a process that has ended.
        let began = Instant::now();
        while fs::remove_dir(&self.folder).is_err() && began.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

const MODELS: [&str; 2] = ["first", "second"];

fn start(folder: &Folder, threshold: &str, around: impl FnOnce(Command) -> Command) -> Server {
    let models = ["--model", "first=chat", "--model", "second=chat", "--kv-memory", "8MB"];
    let more = ["--memory-threshold", threshold, "--result-cache", "16MB", "--admin-key", "key"];
    Server::start_as(folder, &[&models[..], &more].concat(), around)
}

fn status(server: &Server) -> Value {
    let (code, body) = server.ask("GET", "/admin/status", "authorization: Bearer key\r\n", "");
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Waits until the status is as expected.
fn wait(server: &Server, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let status = status(server);
        if is(&status) {
            return status;
        }
        assert!(began.elapsed() < PATIENCE, "{what} does not come: {status}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// What a model says to a prompt of its own.
fn answer(server: &Server, model: &str) -> String {
    let body = json!({"model": model, "prompt": "Once upon", "max_tokens": 200, "temperature": 0});
    let (code, answer) = server.ask("POST", "/v1/completions", "", &body.to_string());
    assert_eq!(code, 200, "{model}: {answer}");
    serde_json::from_str::<Value>(&answer).unwrap()["choices"][0]["text"].to_string()
}

/// What was given up, as the log tells it, and where in it models were put to sleep: a step at a time, in the documented
/// order and back, and models not before it is their turn.
fn check_order(log: &str) -> Vec<Relief> {
    let mut steps = vec![Relief::None];
    for line in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        if line["message"] == "memory" {
            let told = line["given_up"].as_str().unwrap();
            let next = Relief::ALL.into_iter().find(|relief| relief.to_string() == told).unwrap();
            let before = *steps.last().unwrap();
            assert!(next == before.next() || next == before.before(), "{next:?} after {steps:?}");
            steps.push(next);
        } else if line["message"] == "a model was put to sleep" && line["why"] == "memory is short" {
            assert!(steps.contains(&Relief::Models), "a model slept after {steps:?}: {log}");
        }
    }
    steps
}

#[test]
fn a_tightening_limit_takes_in_order_what_can_be_had_again_and_all_of_it_comes_back() {
    let folder = Folder::new();
    let Some(group) = Group::new() else {
        eprintln!("no control group can be made here: shown by a threshold that any machine is above");
        return in_order_above_a_threshold(&folder);
    };
    group.allow(1 << 30);
    let server = start(&folder, "0.8", |command| group.around(&command));
    let said = MODELS.map(|model| answer(&server, model));
    let before = status(&server);
    assert_eq!(
        (&before["pressure"]["relief"], &before["sleep"]["asleep"]),
        (&json!("none"), &json!(0)),
        "{before}"
    );
    assert!(before["reuse"]["kept"].as_u64() > Some(0), "{before}");

    // Short, though not so short that everything that has nothing to do must go at once.
    group.tighten(0.85);
    let short = wait(&server, "sleep", |status| status["sleep"]["asleep"] == 1);
    assert_eq!(short["sleep"]["short"], 1, "{short}");
    assert_eq!(short["reuse"]["kept"], 0, "answers went before models: {short}");
    // Work goes on beside whoever makes memory shorter still.
    let awake = short["models"].as_array().unwrap().iter().find(|model| model["phase"] == "ready").unwrap();
    let index = MODELS.iter().position(|name| awake["id"] == *name).unwrap();
    thread::scope(|scope| {
        let working: Vec<_> = (0..4).map(|_| scope.spawn(|| answer(&server, MODELS[index]))).collect();
        // What the model that sleeps has left, and what the kernel takes back at a limit, comes free in its own time, so the limit
        // follows.
        wait(&server, "the last step", |status| {
            group.tighten(0.97);
            status["pressure"]["relief"] == "hold"
        });
        assert!(working.into_iter().all(|answer| answer.join().unwrap() == said[index]), "the same answers");
    });
    assert_eq!(answer(&server, MODELS[index]), said[index], "one request is served, however short memory is");

    group.allow(1 << 30);
    wait(&server, "recovery", |status| status["pressure"]["relief"] == "none");
    assert_eq!(MODELS.map(|model| answer(&server, model)), said);
    let after = status(&server);
    assert_eq!(
        (&after["sleep"]["asleep"], &after["health"]["state"]),
        (&json!(0), &json!("healthy")),
        "{after}"
    );
    assert!(after["reuse"]["kept"].as_u64() > Some(0), "{after}");
    let (code, log) = server.stop();
    assert_eq!(code, Some(0), "{log}");
    let steps = check_order(&log);
    assert!(steps.contains(&Relief::Hold) && steps.last() == Some(&Relief::None), "{steps:?}");
}

/// Where there is no limit to be tightened: memory is short from the beginning, and the way down is the same.
fn in_order_above_a_threshold(folder: &Folder) {
    let server = start(folder, "0.0001", |command| command);
    let short = wait(&server, "sleep", |status| status["sleep"]["asleep"] == 1);
    assert_eq!(short["sleep"]["short"], 1, "{short}");
    wait(&server, "slower starts", |status| {
        ["slower", "hold"].iter().any(|relief| status["pressure"]["relief"] == *relief)
    });
    let awake = short["models"].as_array().unwrap().iter().find(|model| model["phase"] == "ready").unwrap();
    assert!(!answer(&server, awake["id"].as_str().unwrap()).is_empty());
    let (code, log) = server.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(check_order(&log).contains(&Relief::Slower), "{log}");
}
