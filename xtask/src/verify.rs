//! `cargo xtask test`: every test there is, in steps, with a summary at the end.

mod clients;
mod environment;
mod python;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::floors::metadata;
use crate::tree::root;

/// What to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Only these steps.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = PossibleValuesParser::new(NAMES))]
    only: Vec<String>,
}

/// One part of the test suite.
struct Step {
    name: &'static str,
    about: &'static str,
    run: fn(&Path) -> Result<()>,
}

const STEPS: [Step; 8] = [
    Step { name: "fmt", about: "sources are formatted", run: format },
    Step { name: "clippy", about: "no lint warns", run: lint },
    Step { name: "test", about: "tests of all crates, the rules of the house among them", run: test },
    Step { name: "doc", about: "documentation builds without broken links", run: document },
    Step { name: "tools", about: "tests of the Python tools", run: test_tools },
    Step { name: "load", about: "a server under the load of three tenants and of bursts", run: load },
    Step { name: "python", about: "the Python package: wheel, types, stubs, tests", run: python::run },
    Step { name: "clients", about: "real clients against a running server", run: clients::run },
];

const NAMES: [&str; STEPS.len()] = {
    let mut names = [""; STEPS.len()];
    let mut index = 0;
    while index < STEPS.len() {
        names[index] = STEPS[index].name;
        index += 1;
    }
    names
};

/// Runs the steps, those after a failed one too; the exit code is 1 if one failed.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let root = root();
    let is_wanted =
        |step: &&Step| options.only.is_empty() || options.only.iter().any(|name| name == step.name);
    let mut summary = Vec::new();
    for step in STEPS.iter().filter(is_wanted) {
        println!("\n== {}: {}", step.name, step.about);
        let start = Instant::now();
        let outcome = (step.run)(&root);
        let took = start.elapsed();
        println!("== {}: {} after {}", step.name, verdict(&outcome), seconds(took));
        summary.push((step, outcome, took));
    }
    println!("\n== summary");
    for (step, outcome, took) in &summary {
        println!("{:<8} {:>9}  {}", step.name, seconds(*took), verdict(outcome));
    }
    let total: Duration = summary.iter().map(|(_, _, took)| *took).sum();
    let failed = summary.iter().filter(|(_, outcome, _)| outcome.is_err()).count();
    println!(
        "{:<8} {:>9}  {} of {} steps passed",
        "total",
        seconds(total),
        summary.len() - failed,
        summary.len()
    );
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn verdict(outcome: &Result<()>) -> String {
    outcome.as_ref().err().map_or("ok".to_owned(), |error| format!("FAILED ({error:#})"))
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// The program as tests use it: a debug build. It is made in the way of the tests of all crates, so when they have run it
/// is there already.
pub(crate) fn built_program() -> Result<PathBuf> {
    let root = root();
    cargo(&root, &["test", "--workspace", "--no-run"])?;
    let target = metadata(&root)?["target_directory"].as_str().map(PathBuf::from);
    let target = target.context("cargo metadata does not say where it builds")?;
    Ok(target.join("debug").join(format!("tidegate{}", std::env::consts::EXE_SUFFIX)))
}

/// Wrong shares, lost requests and leaks show under any load; speed does not count here.
fn load(root: &Path) -> Result<()> {
    let options = ["xtask", "load", "--lenient", "--bursts", "3"];
    cargo(root, &options)
}

fn format(root: &Path) -> Result<()> {
    ensure_component(root, "fmt", "rustfmt")?;
    cargo(root, &["fmt", "--all", "--check"])
}

fn lint(root: &Path) -> Result<()> {
    ensure_component(root, "clippy", "clippy")?;
    cargo(root, &["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"])
}

fn test(root: &Path) -> Result<()> {
    cargo(root, &["test", "--workspace", "--no-fail-fast"])
}

fn document(root: &Path) -> Result<()> {
    const DENIED: &str =
        "-D rustdoc::broken_intra_doc_links -D rustdoc::invalid_html_tags -D rustdoc::bare_urls";
    let mut command = program(root, "cargo", &["doc", "--workspace", "--no-deps"]);
    command.env("RUSTDOCFLAGS", DENIED);
    succeed(&mut command)
}

/// These need nothing but Python itself.
fn test_tools(root: &Path) -> Result<()> {
    let mut unittest = program(&root.join("tools/embedded_chat"), "python3", &["-m", "unittest", "-q"]);
    succeed(unittest.env("PYTHONDONTWRITEBYTECODE", "1"))
}

/// Minimal toolchains come without `cargo fmt` and `cargo clippy`.
fn ensure_component(root: &Path, subcommand: &str, component: &str) -> Result<()> {
    let mut probe = program(root, "cargo", &[subcommand, "--version"]);
    if probe.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return Ok(());
    }
    succeed(&mut program(root, "rustup", &["component", "add", component]))
        .with_context(|| format!("`cargo {subcommand}` is missing and cannot be added"))
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<()> {
    succeed(&mut program(root, "cargo", arguments))
}

/// A command in a folder, with nothing to read from.
fn program(folder: &Path, name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    command
}

/// Runs a command whose output is shown, and fails if it does.
fn succeed(command: &mut Command) -> Result<()> {
    let name = shown(command);
    println!("$ {name}");
    match command.status() {
        Ok(status) => {
            ensure!(status.success(), "`{name}` ended with {status}");
            Ok(())
        }
        Err(error) => bail!("cannot run `{name}`: {error}"),
    }
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(name).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_fails_says_which_command() {
        let here = root();
        assert!(succeed(&mut program(&here, "cargo", &["--version"])).is_ok());
        let failed = succeed(&mut program(&here, "cargo", &["no-such-command"])).unwrap_err().to_string();
        assert!(failed.contains("`cargo no-such-command` ended with"), "{failed}");
        let absent = succeed(&mut program(&here, "no-such-program", &["x"])).unwrap_err().to_string();
        assert!(absent.contains("cannot run `no-such-program x`"), "{absent}");
    }

    #[test]
    fn names_are_those_of_the_steps() {
        assert_eq!(NAMES.to_vec(), STEPS.iter().map(|step| step.name).collect::<Vec<_>>());
    }
}
