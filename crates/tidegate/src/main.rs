//! The `tidegate` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(tidegate::run_command(std::env::args_os()))
}
