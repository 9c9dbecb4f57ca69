//! When pages are worth writing and reading: pure, by what was measured.

use std::time::Duration;

use tensor::PAGE_TOKENS;

/// What a load takes beside the bytes: asking for it, waiting for a step's end, putting the pages in their places.
const OVERHEAD: f64 = 0.002;

/// So many pages are written without one being found again before only some are.
const TRUST: u64 = 1024;

/// And then one of so many.
const SAMPLE: u64 = 16;

/// What a new measurement weighs.
const WEIGHT: f64 = 0.2;

/// How fast pages are read, and prompts computed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    /// Bytes per second; `None` before anything was read.
    pub(crate) load: Option<f64>,
    /// Tokens per second; `None` before anything was computed.
    pub(crate) compute: Option<f64>,
}

impl Rates {
    /// How long it takes to read so many bytes, as far as is known.
    pub(crate) fn load_time(self, bytes: usize) -> Option<Duration> {
        let seconds = bytes as f64 / self.load?.max(1.0) + OVERHEAD;
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// How long pages are waited for before they are computed after all: while it takes a few times as long as was
    /// measured, and no longer than computing takes, so that a disk that has become slow costs that much at most.
    pub(crate) fn patience(self, pages: usize, page_bytes: usize) -> Duration {
        let expected = self.load_time(pages.saturating_mul(page_bytes)).unwrap_or_default();
        let computing = |rate: f64| Duration::try_from_secs_f64((pages * PAGE_TOKENS) as f64 / rate).ok();
        let most = self.compute.and_then(computing).unwrap_or(Duration::MAX);
        expected.saturating_mul(4).min(most)
    }

    /// Whether pages are better read than computed. What was not measured yet is tried.
    pub(crate) fn favour_loading(self, pages: usize, page_bytes: usize) -> bool {
        match (self.load_time(pages.saturating_mul(page_bytes)), self.compute) {
            (Some(load), Some(compute)) => {
                load.as_secs_f64() < (pages * PAGE_TOKENS) as f64 / compute.max(1e-3)
            }
            _ => pages > 0,
        }
    }
}

/// How fast prompts are computed, from steps that were mostly that.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ComputeRate {
    rate: Option<f64>,
}

impl ComputeRate {
    pub(crate) fn observe(&mut self, prompt_rows: u64, other_rows: u64, took: Duration) {
        if prompt_rows < PAGE_TOKENS as u64 || prompt_rows < 2 * other_rows || took.is_zero() {
            return;
        }
        let measured = prompt_rows as f64 / took.as_secs_f64();
        self.rate = Some(self.rate.map_or(measured, |rate| rate + WEIGHT * (measured - rate)));
    }

    pub(crate) fn tokens_per_second(self) -> Option<f64> {
        self.rate
    }
}

/// Whether what leaves memory is written down: as long as some of it is found again, and now and then to see whether it
/// is by now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Writes {
    unfound: u64,
}

impl Writes {
    /// Something was found.
    pub(crate) fn found(&mut self) {
        self.unfound = 0;
    }

    /// Whether the page that leaves now is written.
    pub(crate) fn wanted(&mut self) -> bool {
        self.unfound += 1;
        self.unfound <= TRUST || self.unfound.is_multiple_of(SAMPLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read_where_that_is_faster_than_computing_them() {
        let check = |load, compute, pages, is_read| {
            let rates = Rates { load, compute };
            assert_eq!(rates.favour_loading(pages, 3_670_016), is_read, "{rates:?} {pages}");
        };
        // Qwen3-0.6B in bf16: 32 tokens take 32 ms at 1000 a second, and their page 3.7 ms at 1 GB/s.
        check(Some(1e9), Some(1000.0), 1, true);
        check(Some(1e9), Some(1000.0), 300, true);
        check(Some(100e6), Some(1000.0), 300, false);
        check(Some(1e9), Some(20_000.0), 1, false);
        check(Some(1e9), None, 1, true);
        check(None, Some(1e9), 1, true);
        check(None, None, 0, false);
        check(Some(0.0), Some(0.0), 1, false);
    }

    #[test]
    fn pages_are_waited_for_no_longer_than_computing_them_takes() {
        let rates = Rates { load: Some(1e9), compute: Some(1000.0) };
        assert_eq!(rates.patience(10, 9_800_000), Duration::from_millis(320));
        assert_eq!(rates.patience(10, 980_000).as_millis(), 47);
        assert_eq!(Rates { load: None, ..rates }.patience(10, 980_000), Duration::ZERO);
    }

    #[test]
    fn writing_stops_but_for_samples_while_nothing_is_found() {
        let mut writes = Writes::default();
        let count = |writes: &mut Writes, times: u64| (0..times).filter(|_| writes.wanted()).count() as u64;
        assert_eq!(count(&mut writes, TRUST), TRUST);
        assert_eq!(count(&mut writes, 10 * SAMPLE), 10);
        writes.found();
        assert_eq!(count(&mut writes, TRUST), TRUST);
    }

    #[test]
    fn the_rate_is_that_of_steps_that_read_prompts() {
        let mut rate = ComputeRate::default();
        rate.observe(1, 31, Duration::from_millis(1));
        rate.observe(64, 40, Duration::from_millis(1));
        assert_eq!(rate.tokens_per_second(), None);
        rate.observe(512, 10, Duration::from_millis(512));
        assert_eq!(rate.tokens_per_second(), Some(1000.0));
        rate.observe(512, 0, Duration::from_millis(256));
        assert_eq!(rate.tokens_per_second(), Some(1200.0));
    }
}
