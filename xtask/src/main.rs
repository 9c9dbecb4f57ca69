//! The developer's commands, run as `cargo xtask COMMAND`.

mod fixtures;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The developer's commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run every case of a folder of recorded references; exit code 1 on any miss.
    Fixtures(fixtures::Options),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Fixtures(options) => fixtures::run(&options),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
