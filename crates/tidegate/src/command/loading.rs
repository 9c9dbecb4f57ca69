//! Loading a model with a sign of life at a terminal, until it is there or a signal comes.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use models::cache::CacheError;
use models::{ModelError, Watch};
use tidegate::settings::InferenceSettings;
use tidegate::{OpenError, Opened, open_watched};

use tokio::runtime::Runtime;

use super::Talk;
use super::interrupts::Interrupts;

/// What loads in less is not worth a sign.
const MOMENT: Duration = Duration::from_millis(400);

/// Opens what the settings name; `None` if a signal came first. What was begun has been cleared away by then, unless a
/// second signal asks not to wait for that.
pub(super) async fn open(
    settings: InferenceSettings,
    talk: Talk,
    interrupts: &mut Interrupts,
) -> anyhow::Result<Option<Opened>> {
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let mut opening = tokio::task::spawn_blocking(move || shown(&settings, talk, &told));
    tokio::select! {
        opened = &mut opening => return Ok(Some(opened.context("loading broke off")??)),
        () = interrupts.next() => stop.store(true, Ordering::Relaxed),
    }
    tokio::select! {
        _stopped = opening => {}
        () = interrupts.next() => {}
    }
    Ok(None)
}

/// As [`open`], for verbs that have nothing else to wait for.
pub(super) fn wait(
    runtime: &Runtime,
    settings: InferenceSettings,
    talk: Talk,
) -> anyhow::Result<Option<Opened>> {
    runtime.block_on(async {
        let mut interrupts = Interrupts::listen().context("cannot listen for Ctrl-C")?;
        open(settings, talk, &mut interrupts).await
    })
}

/// Shows on standard error how far it is, if that takes a while; never where standard error is not a terminal.
fn shown(settings: &InferenceSettings, talk: Talk, stop: &AtomicBool) -> Result<Opened, OpenError> {
    let started = Instant::now();
    let names: Vec<String> = settings.model.model.iter().map(ToString::to_string).collect();
    let bar = Bar::new(format!("loading {}", names.join(", ")));
    let waiting = Waiting { talk, stop, started, bar };
    let opened = open_watched(settings, &waiting);
    waiting.clear();
    // A signal that came with the last layer counts too.
    match opened {
        Ok(_) if stop.load(Ordering::Relaxed) => Err(ModelError::Stopped.into()),
        opened => opened,
    }
}

/// Someone at a terminal.
pub(super) struct Waiting<'a> {
    pub(super) talk: Talk,
    /// Set when a signal came.
    pub(super) stop: &'a AtomicBool,
    pub(super) started: Instant,
    pub(super) bar: Bar,
}

impl Waiting<'_> {
    /// Takes the bar away.
    pub(super) fn clear(&self) {
        self.bar.0.finish_and_clear();
    }
}

impl Watch for Waiting<'_> {
    fn packed(&self, done: u64, total: u64) -> ControlFlow<()> {
        if self.talk == Talk::Normal && self.started.elapsed() > MOMENT {
            self.bar.show(done, total);
        }
        if self.stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn cache_failed(&self, error: &CacheError) {
        self.clear();
        tracing::warn!("{error}; {}", error.consequence());
    }
}

/// A bar on standard error that appears when it is first moved.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new(words: String) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()).with_message(words);
        let style = ProgressStyle::with_template("{msg} {wide_bar} {percent:>3} %, {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar)
    }

    /// Shows that `done` of `total` is done.
    pub(super) fn show(&self, done: u64, total: u64) {
        if self.0.is_hidden() {
            self.0.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.0.set_length(total.max(1));
        self.0.set_position(done.min(total));
    }
}
