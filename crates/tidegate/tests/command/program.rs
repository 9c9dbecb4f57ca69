//! Runs the program in an empty folder and an environment without our variables.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder of its own for one test, removed at the end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tidegate-command-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn with(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        std::fs::write(self.0.join(name), content).unwrap();
        self
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// The program, about to run in `folder`.
pub(crate) fn tidegate(folder: &Folder, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let ours = std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| name.to_string_lossy().starts_with("TIDEGATE_"));
    for name in ours {
        command.env_remove(name);
    }
    // What a test keeps on the disk is its own.
    command.env("XDG_CACHE_HOME", folder.path().join("cache"));
    command.args(arguments).current_dir(folder.path()).stdin(Stdio::null());
    command
}

/// One call and what must come of it.
#[derive(Default)]
pub(crate) struct Case<'a> {
    pub(crate) arguments: &'a [&'a str],
    pub(crate) stdin: Option<&'a str>,
    pub(crate) variables: &'a [(&'a str, &'a str)],
    pub(crate) exit: i32,
    /// Parts of standard output; with none given it must be empty.
    pub(crate) stdout: &'a [&'a str],
    /// Parts of standard error; with none given it must be empty.
    pub(crate) stderr: &'a [&'a str],
}

/// Runs a case in a folder and returns what was printed to standard output.
pub(crate) fn check_in(folder: &Folder, case: &Case<'_>) -> String {
    let mut command = tidegate(folder, case.arguments);
    command.envs(case.variables.iter().copied());
    let output = feed(&mut command, case.stdin);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    let told = format!("{:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}", case.arguments);
    assert_eq!(output.status.code(), Some(case.exit), "{told}");
    for (parts, found, name) in [(case.stdout, &stdout, "stdout"), (case.stderr, &stderr, "stderr")] {
        assert!(!parts.is_empty() || found.is_empty(), "{name} should be empty: {told}");
        for part in parts {
            assert!(found.contains(part), "{name} should contain {part:?}: {told}");
        }
    }
    stdout
}

pub(crate) fn check(case: &Case<'_>) -> String {
    check_in(&Folder::new(), case)
}

fn feed(command: &mut Command, stdin: Option<&str>) -> Output {
    let Some(input) = stdin else { return command.output().unwrap() };
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A program that has ended without reading its input is judged by what it printed.
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
