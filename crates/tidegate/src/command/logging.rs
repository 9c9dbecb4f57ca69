//! Log lines on standard error: human on a terminal, JSON elsewhere.

use std::io::{IsTerminal, stderr};

use tidegate::settings::{LogFormat, LogSettings};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt};

use super::exit::Misuse;

/// Somebody beside the log who hears of events and spans.
pub(super) type Listener = Box<dyn Layer<Registry> + Send + Sync>;

/// Starts logging; `level` holds where the settings name none.
pub(super) fn start(settings: &LogSettings, level: &str) -> Result<(), Misuse> {
    start_beside(settings, level, None)
}

/// The same with a listener.
pub(super) fn start_beside(
    settings: &LogSettings,
    level: &str,
    listener: Option<Listener>,
) -> Result<(), Misuse> {
    let filter = settings.log.as_deref().unwrap_or(level);
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Misuse(format!("'{filter}' is not a log filter ({error}); try info, or info,engine=debug"))
    })?;
    let terminal = stderr().is_terminal();
    let lines = fmt::layer().with_writer(stderr);
    let automatic = if terminal { LogFormat::Human } else { LogFormat::Json };
    let lines = match settings.log_format.unwrap_or(automatic) {
        LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
        // Without this call, the subscriber itself minds NO_COLOR.
        LogFormat::Human if terminal => lines.with_target(false).boxed(),
        LogFormat::Human => lines.with_target(false).with_ansi(false).boxed(),
    };
    let heard = Registry::default().with(listener).with(lines.with_filter(filter));
    // A second start, as in a test, keeps the first.
    heard.try_init().ok();
    Ok(())
}
