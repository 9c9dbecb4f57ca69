//! Log lines on standard error: human on a terminal, JSON elsewhere.

use std::io::{IsTerminal, stderr};

use tidegate::settings::{LogFormat, LogSettings};
use tracing_subscriber::EnvFilter;

use super::exit::Misuse;

/// Starts logging; `level` holds where the settings name none.
pub(super) fn start(settings: &LogSettings, level: &str) -> Result<(), Misuse> {
    let filter = settings.log.as_deref().unwrap_or(level);
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Misuse(format!("'{filter}' is not a log filter ({error}); try info, or info,engine=debug"))
    })?;
    let terminal = stderr().is_terminal();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    let automatic = if terminal { LogFormat::Human } else { LogFormat::Json };
    // A second start, as in a test, keeps the first.
    match settings.log_format.unwrap_or(automatic) {
        LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
        }
        // Without this call, the subscriber itself minds NO_COLOR.
        LogFormat::Human if terminal => lines.with_target(false).try_init(),
        LogFormat::Human => lines.with_target(false).with_ansi(false).try_init(),
    }
    .ok();
    Ok(())
}
