//! What is logged.

use clap::{Args, ValueEnum};

/// What is logged.
#[derive(Args, Clone, Debug, Default, PartialEq)]
#[command(next_help_heading = "Log")]
pub struct LogSettings {
    /// Level (error, warn, info, debug, trace) or filter such as info,engine=debug; without it, info when serving and
    /// warn otherwise.
    #[arg(long, env = "TIDEGATE_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// Form of log lines; without it, human on a terminal and JSON elsewhere.
    #[arg(long, env = "TIDEGATE_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Coloured text for people.
    Human,
    /// One JSON object per line.
    Json,
}
