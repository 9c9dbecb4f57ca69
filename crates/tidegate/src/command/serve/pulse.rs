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
        let Beat { running, waiting, tokens_in_s, tokens_out_s, kv_used } = beat;
        match beat.busy() {
            true => tracing::info!(running, waiting, tokens_in_s, tokens_out_s, kv_used, "load"),
            false => tracing::debug!(running, waiting, tokens_in_s, tokens_out_s, kv_used, "load"),
        }
        before = now;
    }
}

/// What happened between two looks.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Beat {
    running: u64,
    waiting: u64,
    /// Prompt tokens read per second.
    tokens_in_s: f64,
    /// Tokens written per second.
    tokens_out_s: f64,
    /// Share of the KV pages that is in use.
    kv_used: f64,
}

impl Beat {
    fn between(before: &Status, now: &Status, period: Duration) -> Self {
        let rate = |before: u64, now: u64| round(now.saturating_sub(before) as f64 / period.as_secs_f64());
        Self {
            running: now.load.running,
            waiting: now.load.queued,
            tokens_in_s: rate(before.counters.prompt_tokens, now.counters.prompt_tokens),
            tokens_out_s: rate(before.counters.generated_tokens, now.counters.generated_tokens),
            kv_used: round(now.load.kv_pages_used as f64 / now.load.kv_pages_total.max(1) as f64),
        }
    }

    fn busy(&self) -> bool {
        self.running > 0 || self.waiting > 0 || self.tokens_in_s > 0.0 || self.tokens_out_s > 0.0
    }
}

fn round(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
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
        let expected = Beat { running: 2, waiting: 0, tokens_in_s: 10.0, tokens_out_s: 20.0, kv_used: 0.25 };
        assert_eq!(beat, expected);
        assert!(!Beat::between(&status(0, 9, 9), &status(0, 9, 9), PERIOD).busy());
        assert!(Beat::between(&status(0, 9, 9), &status(0, 9, 10), PERIOD).busy());
    }
}
