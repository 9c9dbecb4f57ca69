//! `tidegate completions`: a completion script for a shell.

use std::io::{Write, stdout};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Exit};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Which shell.
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "tidegate", &mut script);
    stdout().write_all(&script)?;
    Ok(Exit::Done)
}
