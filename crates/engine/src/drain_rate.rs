//! How fast requests leave the queue.

use std::time::Duration;

/// Events and time weigh less the longer ago they were; after this long, e times less.
const MEMORY: Duration = Duration::from_secs(20);
const SHORTEST: Duration = Duration::from_secs(1);
/// Clients of the OpenAI libraries do not try again at all when told to wait longer.
const LONGEST: Duration = Duration::from_secs(120);

/// An estimate of requests per second, recent ones weighing most.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DrainRate {
    requests: f64,
    seconds: f64,
    last: Option<Duration>,
}

impl DrainRate {
    /// Notes that so many requests left.
    pub(crate) fn record(&mut self, requests: usize, now: Duration) {
        let elapsed = self.last.map_or(0.0, |last| now.saturating_sub(last).as_secs_f64());
        let fade = (-elapsed / MEMORY.as_secs_f64()).exp();
        self.requests = self.requests * fade + requests as f64;
        self.seconds = self.seconds * fade + elapsed;
        self.last = Some(now);
    }

    /// How long so many requests need to leave, between one second and two minutes.
    pub(crate) fn time_for(&self, requests: usize) -> Duration {
        let seconds = if self.requests > 0.0 { requests as f64 * self.seconds / self.requests } else { 0.0 };
        Duration::from_secs_f64(seconds.min(LONGEST.as_secs_f64())).max(SHORTEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backlog_is_divided_by_the_recent_rate() {
        let mut rate = DrainRate::default();
        assert_eq!(rate.time_for(100), SHORTEST);
        let mut now = Duration::ZERO;
        let mut run = |rate: &mut DrainRate, every: Duration, times: usize| {
            for _ in 0..times {
                now += every;
                rate.record(1, now);
            }
        };
        run(&mut rate, Duration::from_millis(500), 100);
        assert!((49.0..51.0).contains(&rate.time_for(100).as_secs_f64()));
        run(&mut rate, Duration::from_secs(4), 100);
        assert!((38.0..42.0).contains(&rate.time_for(10).as_secs_f64()));
        assert_eq!(rate.time_for(1_000_000), LONGEST);
    }
}
