//! The verbs of the command line and what surrounds each of them: settings, logging, messages, exit codes.
//!
//! Standard output carries data only; everything for people goes to standard error.

mod answer;
mod bench;
mod cache;
mod completions;
mod config;
mod embed;
mod exit;
mod form;
mod interrupts;
mod loading;
mod logging;
mod pictures;
mod prompt;
mod quantize;
#[cfg(test)]
mod reference;
mod repl;
mod run;
mod sampling;
mod serve;
mod sim;
mod summary;
mod traces;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tidegate::settings::{Layers, SettingsError, layer};

use exit::Exit;

/// An asynchronous inference engine: text in, tokens out, many requests at once.
#[derive(Parser, Debug)]
#[command(name = "tidegate", version, max_term_width = 110, after_help = exit::TABLE)]
struct Cli {
    /// Configuration file; without it, ./tidegate.toml if it exists.
    #[arg(long, global = true, env = "TIDEGATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Say nothing on standard error but warnings and errors.
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Answer a prompt, or open a chat where none is given.
    Run(Box<run::Arguments>),
    /// Serve one model or several over HTTP in the OpenAI dialect.
    Serve(Box<serve::Arguments>),
    /// Make vectors of texts.
    Embed(Box<embed::Arguments>),
    /// Measure prompt reading, decoding and memory with made-up prompts.
    Bench(Box<bench::Arguments>),
    /// Run a recorded trace again under other settings, without computing anything.
    Sim(Box<sim::Arguments>),
    /// Write a model folder with quantised weights.
    Quantize(Box<quantize::Arguments>),
    /// Show or remove what is kept on the disk.
    Cache(Box<cache::Arguments>),
    /// Show the configuration.
    Config(Box<config::Arguments>),
    /// Print a completion script for a shell.
    Completions(completions::Arguments),
}

/// How much is said on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Talk {
    /// What helps a person.
    Normal,
    /// Warnings and errors.
    Quiet,
}

/// Runs the `tidegate` command on a command line, whose first word is the program's name, and answers its exit code.
/// Logging is set up and signals are listened to as a program of its own does.
pub fn run_command(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let exit = match parse(arguments) {
        Ok((cli, layers)) => dispatch(cli, &layers).unwrap_or_else(|error| exit::report(&error)),
        Err(error) => exit::report_settings(error),
    };
    exit.code()
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<(Cli, Layers), SettingsError> {
    let layers = layer(&Cli::command(), arguments)?;
    let cli = Cli::from_arg_matches(layers.matches()).map_err(SettingsError::Arguments)?;
    Ok((cli, layers))
}

fn dispatch(cli: Cli, layers: &Layers) -> anyhow::Result<Exit> {
    let talk = if cli.quiet { Talk::Quiet } else { Talk::Normal };
    for warning in layers.warnings() {
        eprintln!("warning: {warning}");
    }
    match cli.verb {
        Verb::Run(arguments) => run::run(*arguments, talk),
        Verb::Serve(arguments) => serve::run(*arguments, talk),
        Verb::Embed(arguments) => embed::run(*arguments, talk),
        Verb::Bench(arguments) => bench::run(*arguments, talk),
        Verb::Sim(arguments) => sim::run(&arguments),
        Verb::Quantize(arguments) => quantize::run(*arguments, talk),
        Verb::Cache(arguments) => cache::run(&arguments, talk),
        Verb::Config(arguments) => config::run(&arguments, layers),
        Verb::Completions(arguments) => completions::run(&arguments),
    }
}
