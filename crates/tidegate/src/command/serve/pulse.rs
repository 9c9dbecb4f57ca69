//! One log line every few seconds while there is work.

use std::sync::Arc;
use std::time::Duration;

use protocol::{Inference, Status};
use tokio::time::{MissedTickBehavior, interval};

const PERIOD: Duration = Duration::from_secs(5);

/// Writes the line for ever, at info while something runs or ran since the last one, and at debug otherwise.
pub(super) async fn report(inference: Arc<dyn Inference>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut before = inference.status();
    loop {
        ticks.tick().await;
        let now = inference.status();
        let beat = Beat::between(&before, &now, PERIOD);
        match beat.busy() {
            true => tracing::info!("{}", beat.line()),
            false => tracing::debug!("{}", beat.line()),
        }
        before = now;
    }
}

/// What happened between two looks.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Beat {
    running: u64,
    queued: u64,
    read: f64,
    written: f64,
    pages: f64,
}

impl Beat {
    fn between(before: &Status, now: &Status, period: Duration) -> Self {
        let rate = |before: u64, now: u64| now.saturating_sub(before) as f64 / period.as_secs_f64();
        let pages = now.load.kv_pages_used as f64 / now.load.kv_pages_total.max(1) as f64;
        Self {
            running: now.load.running,
            queued: now.load.queued,
            read: rate(before.counters.prompt_tokens, now.counters.prompt_tokens),
            written: rate(before.counters.generated_tokens, now.counters.generated_tokens),
            pages,
        }
    }

    fn busy(&self) -> bool {
        self.running > 0 || self.queued > 0 || self.read > 0.0 || self.written > 0.0
    }

    fn line(&self) -> String {
        let Self { running, queued, read, written, pages } = self;
        let pages = 100.0 * pages;
        format!(
            "{running} running, {queued} waiting, reading {read:.1} and writing {written:.1} tokens/s, KV {pages:.0} % used"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(running: u64, prompt: u64, generated: u64) -> Status {
        let mut status = Status::default();
        status.load.running = running;
        status.load.kv_pages_used = 1;
        status.load.kv_pages_total = 4;
        status.counters.prompt_tokens = prompt;
        status.counters.generated_tokens = generated;
        status
    }

    #[test]
    fn beats() {
        let beat = Beat::between(&status(0, 10, 20), &status(2, 60, 120), Duration::from_secs(5));
        assert!(beat.busy());
        assert_eq!(beat.line(), "2 running, 0 waiting, reading 10.0 and writing 20.0 tokens/s, KV 25 % used");
        assert!(!Beat::between(&status(0, 9, 9), &status(0, 9, 9), PERIOD).busy());
        assert!(Beat::between(&status(0, 9, 9), &status(0, 9, 10), PERIOD).busy());
    }
}
