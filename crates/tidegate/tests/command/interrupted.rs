//! Ctrl-C while an answer is being written.

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::program::{Folder, tidegate};

pub(crate) fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn interrupt_ends_the_answer_with_130() {
    // A socket takes a few hundred small lines and then makes the writer wait, so the program cannot have come to its
    // end by itself before the signal reaches it.
    let (ours, theirs) = UnixStream::pair().unwrap();
    let folder = Folder::new();
    let mut command = tidegate(&folder, &["run", "--json=lines", "--ignore-eos", "Once upon a tide"]);
    let mut child = command.stdout(OwnedFd::from(theirs)).stderr(Stdio::inherit()).spawn().unwrap();
    // The command holds the other end as well, and while it does the stream has no end.
    drop(command);
    let mut lines =
        BufReader::new(ours).lines().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    assert_eq!(lines.next().unwrap()["event"], "accepted");
    assert_eq!(lines.next().unwrap()["event"], "delta");
    signal(&child, "INT");
    let last = lines.last().unwrap();
    assert_eq!(last["event"], "done");
    assert_eq!(last["finish_reason"], "interrupted");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
