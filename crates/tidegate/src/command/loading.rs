//! A sign of life while a model is loaded, at a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tidegate::settings::InferenceSettings;
use tidegate::{OpenError, Opened};

use super::Talk;

/// Opens what the settings name. A model from a folder may take seconds, so standard error shows that it is at work; the
/// sign is gone when this returns, and never shown where standard error is not a terminal.
pub(super) fn open(settings: &InferenceSettings, talk: Talk) -> Result<Opened, OpenError> {
    let sign = match (talk, settings.model.model.as_slice()) {
        (Talk::Normal, chosen @ [_, ..]) => {
            let names: Vec<String> = chosen.iter().map(ToString::to_string).collect();
            let sign = ProgressBar::new_spinner().with_message(format!("loading {}", names.join(", ")));
            let style = ProgressStyle::with_template("{spinner} {msg}, {elapsed}");
            sign.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            sign.enable_steady_tick(Duration::from_millis(100));
            sign
        }
        _ => ProgressBar::hidden(),
    };
    let opened = tidegate::open(settings);
    sign.finish_and_clear();
    opened
}
