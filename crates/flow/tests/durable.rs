//! A durable queue on real files, in processes that are killed, denied room, and started twice.
//!
//! This program starts itself again as the process that is killed; what that one says on its standard output is what
//! its callers were told before it died.

#![expect(clippy::unwrap_used, reason = "the process that is killed is a test as well")]

mod durable {
    pub(crate) mod child;
    pub(crate) mod witness;
}

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use durable::child::{CHILD, OPTIONS};
use durable::witness::Witness;
use flow::Random;
use flow::queue::store::{DiskStore, StoreError};

/// How often the process is killed, unless [`KILLS_WANTED`] says otherwise.
const KILLS: u64 = 200;

/// Says how often the process is to be killed.
const KILLS_WANTED: &str = "FLOW_STORE_KILLS";

/// A folder that goes when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        let _none_was_left = fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _it_is_temporary = fs::remove_dir_all(&self.0);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "only tests ask how long they should run, or which part they play"
)]
fn wanted(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The part of the process that is killed. As a test of its own it does nothing.
#[test]
fn child() {
    if let Some(part) = wanted(CHILD) {
        durable::child::play(&part);
    }
}

/// This program as the other process, started by `command`.
fn start(mut command: Command, part: &str) -> (Child, impl Iterator<Item = String> + use<>) {
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]);
    command.env(CHILD, part).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    // The test harness itself says things as well.
    let said =
        output.lines().map_while(Result::ok).filter_map(|line| line.strip_prefix("> ").map(str::to_owned));
    (child, said)
}

fn this_program() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

#[test]
fn a_process_that_is_killed_at_any_instant_loses_nothing_and_repeats_nothing() {
    let kills = wanted(KILLS_WANTED).map_or(KILLS, |kills| kills.parse().unwrap());
    let folder = Folder::new("killed");
    let mut random = Random::seeded(11);
    let mut witness = Witness::default();
    for life in 0..kills {
        let (mut child, said) = start(this_program(), &format!("work {life} {}", folder.0.display()));
        let mut last_words = random.below(300);
        for line in said {
            witness.hear(&line);
            if last_words == 0 {
                child.kill().unwrap();
            }
            last_words = last_words.saturating_sub(1);
        }
        child.wait().unwrap();
        witness.next_life();
    }
    println!("{kills} kills: {witness:?}");
    assert!(witness.accepted() as u64 > kills && witness.done() as u64 > kills, "{witness:?}");
}

/// Runs this program with files that may not become larger than some tens of KiB.
fn with_small_files() -> Command {
    let mut command = Command::new("sh");
    // Without the trap the system ends the process instead of telling it.
    let script = "trap '' XFSZ; ulimit -S -f 64; exec \"$0\" \"$@\"";
    command.args(["-c", script]).arg(std::env::current_exe().unwrap());
    command
}

#[test]
fn a_full_disk_is_said_so_and_a_second_process_is_kept_out() {
    let folder = Folder::new("full");
    let (mut child, mut said) = start(with_small_files(), &format!("fill {}", folder.0.display()));
    let mut accepted: Vec<u64> = Vec::new();
    let mut put = |line: &str| accepted.extend(line.strip_prefix("P ").map(|id| id.parse::<u64>().unwrap()));
    let full = said.by_ref().inspect(|line| put(line)).find(|line| line.starts_with("full"));
    assert!(full.is_some_and(|line| line.contains("is full; nothing accepted is lost")));

    let refused = DiskStore::open(&folder.0, OPTIONS).unwrap_err();
    assert_eq!(refused, StoreError::Locked { place: folder.0.display().to_string() });

    let pid = child.id().to_string();
    let lifted = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited:"]).status();
    if lifted.is_ok_and(|status| status.success()) {
        child.stdin.as_mut().unwrap().write_all(b"there is room\n").unwrap();
        let more = said.by_ref().take(5).inspect(|line| put(line)).count();
        assert_eq!(more, 5, "the same process goes on");
    } else {
        println!("prlimit is not here, so the same process cannot be given room");
    }
    child.kill().unwrap();
    said.for_each(|line| put(&line));
    child.wait().unwrap();

    let (_, recovered) = DiskStore::open(&folder.0, OPTIONS).unwrap();
    let mut found: Vec<u64> = recovered.items.iter().map(|item| u64::from(item.id)).collect();
    // One put may have been on its way when the process was killed.
    found.truncate(accepted.len());
    assert_eq!((found, recovered.damage), (accepted, Vec::new()));
}
