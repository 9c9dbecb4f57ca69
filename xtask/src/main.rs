//! The developer's commands, run as `cargo xtask COMMAND`.
//!
//! `cargo xtask test` is the whole test suite, the same on a laptop as anywhere else. The rules of the house that a
//! compiler does not check stand in `tidy.rs` and `floors.rs`; they are tests too, so `cargo test` checks them.

mod bench;
mod fixtures;
mod floors;
mod load;
mod tidy;
mod tree;
mod verify;

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
    /// Run all tests: format, lints, tests, documentation, real clients. Installs what that needs.
    Test(verify::Options),
    /// Check the rules of the house.
    Tidy,
    /// Check that crates depend on lower floors only.
    Floors,
    /// Measure a part of the project beside its peers.
    Bench(bench::Options),
    /// Load a server with thousands of mixed requests of three tenants, and with bursts.
    Load(load::Options),
    /// Run every case of a folder of recorded references; exit code 1 on any miss.
    Fixtures(fixtures::Options),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Test(options) => verify::run(&options),
        Command::Tidy => tidy::run(),
        Command::Floors => floors::run(),
        Command::Bench(options) => bench::run(&options),
        Command::Load(options) => load::run(&options),
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
