//! `cargo xtask bench`: the benches of a crate, each a table of figures and of ratios to peers in the same run.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::tree::root;

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// The part to measure.
    part: Part,
    /// Only these benches of it, by the name of their file under `benches/`.
    benches: Vec<String>,
    /// What the benches are told, such as the file of a recorded trace.
    #[arg(last = true)]
    arguments: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Part {
    /// Queues, pipelines, graphs, the scheduler, metrics and the durable store, beside their peers.
    Flow,
    /// Eviction policies beside those of other caches and beside the optimum, to which `-- FILE` adds a recorded trace; rungs
    /// of the ladder beside a copy in memory.
    Memory,
}

impl Part {
    fn package(self) -> &'static str {
        match self {
            Self::Flow => "tidegate-flow",
            Self::Memory => "tidegate-memory",
        }
    }
}

/// Builds and runs the benches; a bar that is missed is printed as such and fails nothing.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let mut command = Command::new("cargo");
    command.current_dir(root()).args(["bench", "--package", options.part.package()]);
    if options.benches.is_empty() {
        command.arg("--benches");
    }
    for bench in &options.benches {
        command.args(["--bench", bench]);
    }
    if !options.arguments.is_empty() {
        command.arg("--").args(&options.arguments);
    }
    let status = command.status().context("cargo could not be started")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
