//! From the moments at which tokens arrived to figures. Nothing here looks at a clock.

use std::time::Duration;

use super::host::Others;

/// Tokens that arrived together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    /// Since the start of the run.
    pub(super) at: Duration,
    pub(super) tokens: u64,
}

/// What one request received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) arrivals: Vec<Arrival>,
}

impl Stream {
    pub(super) fn tokens(&self) -> u64 {
        self.arrivals.iter().map(|arrival| arrival.tokens).sum()
    }

    /// Times between its tokens; those that arrived together are no time apart.
    fn gaps(&self) -> impl Iterator<Item = Duration> + '_ {
        let after = self.arrivals.windows(2).flat_map(|pair| {
            let together = (1..pair[1].tokens).map(|_| Duration::ZERO);
            std::iter::once(pair[1].at.saturating_sub(pair[0].at)).chain(together)
        });
        let first = self.arrivals.first().map_or(0, |arrival| arrival.tokens);
        (1..first).map(|_| Duration::ZERO).chain(after)
    }

    fn first(&self) -> Option<f64> {
        Some(self.arrivals.first()?.at.as_secs_f64())
    }

    /// Tokens per second from the first arrival to the last.
    fn rate(&self) -> Option<f64> {
        let (first, last) = (self.arrivals.first()?, self.arrivals.last()?);
        per_second(self.tokens() - first.tokens, (last.at.checked_sub(first.at)?).as_secs_f64())
    }
}

/// One run: requests that arrived together, followed to their ends.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    /// Tokens of each prompt.
    pub(super) prompt: usize,
    pub(super) wall: Duration,
    pub(super) streams: Vec<Stream>,
    /// What a request heard that had to read the beginning which those above share, if they share one.
    pub(super) cold: Option<Stream>,
    /// What else kept the machine busy meanwhile.
    pub(super) others: Others,
}

impl Measured {
    fn first_token_ms(&self) -> Option<f64> {
        median(self.streams.iter().filter_map(Stream::first).collect()).map(|seconds| seconds * 1e3)
    }

    /// Prompt tokens over the time to the first token; of one request alone, since others would share that time.
    fn prefill(&self) -> Option<f64> {
        match self.streams.as_slice() {
            [stream] if self.cold.is_none() => per_second(self.prompt as u64, stream.first()?),
            _ => None,
        }
    }

    fn cold_first_token_ms(&self) -> Option<f64> {
        Some(self.cold.as_ref()?.first()? * 1e3)
    }

    /// How many times sooner the first token comes when the beginning is held.
    fn prefix_speedup(&self) -> Option<f64> {
        Some(self.cold_first_token_ms()? / self.first_token_ms()?)
    }

    /// Output tokens per second of one request, after its first one.
    fn stream_decode(&self) -> Option<f64> {
        median(self.streams.iter().filter_map(Stream::rate).collect())
    }

    fn decode(&self) -> Option<f64> {
        if self.streams.len() == 1 { self.stream_decode() } else { None }
    }

    /// Output tokens per second of all requests together.
    fn total(&self) -> Option<f64> {
        per_second(self.streams.iter().map(Stream::tokens).sum(), self.wall.as_secs_f64())
    }

    /// Output tokens per second of all requests together after the last of them has got its first token.
    fn steady(&self) -> Option<f64> {
        if self.streams.len() < 2 {
            return None;
        }
        let all_run = self.streams.iter().map(|stream| Some(stream.arrivals.first()?.at)).max()??;
        let after =
            self.streams.iter().flat_map(|stream| &stream.arrivals).filter(|arrival| arrival.at > all_run);
        let (tokens, last) = after
            .fold((0, all_run), |(tokens, last), arrival| (tokens + arrival.tokens, last.max(arrival.at)));
        per_second(tokens, (last - all_run).as_secs_f64())
    }
}

fn per_second(tokens: u64, seconds: f64) -> Option<f64> {
    (tokens > 0 && seconds > 0.0).then(|| tokens as f64 / seconds)
}

/// A figure over several runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) words: &'static str,
    pub(super) unit: &'static str,
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

/// A run of streams that write while bursts of prompts come.
#[derive(Clone, Debug)]
pub(super) struct Bursts {
    pub(super) wall: Duration,
    /// Tokens of all prompts.
    pub(super) read: u64,
    pub(super) streams: Vec<Stream>,
    /// When each request of a burst came, and what it received.
    pub(super) readers: Vec<(Duration, Stream)>,
}

impl Bursts {
    /// Time between two tokens of the streams, in ms, that this share of them keeps to.
    fn gap_ms(&self, share: f64) -> Option<f64> {
        let gaps = self.streams.iter().flat_map(Stream::gaps);
        percentile(gaps.map(|gap| gap.as_secs_f64() * 1e3).collect(), share)
    }

    /// Time to the first token of the requests of bursts, in ms, that this share of them keeps to.
    fn first_token_ms(&self, share: f64) -> Option<f64> {
        let first = |(came, stream): &(Duration, Stream)| Some((stream.first()? - came.as_secs_f64()) * 1e3);
        percentile(self.readers.iter().filter_map(first).collect(), share)
    }

    /// Tokens read and written per second.
    fn total(&self) -> Option<f64> {
        let streams = self.streams.iter().chain(self.readers.iter().map(|(_, stream)| stream));
        per_second(self.read + streams.map(Stream::tokens).sum::<u64>(), self.wall.as_secs_f64())
    }
}

/// The value that this share of the others does not exceed.
fn percentile(mut values: Vec<f64>, share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(((values.len() as f64 * share).ceil() as usize).saturating_sub(1)).copied()
}

/// A figure's name, what it is in words, its unit, and how a run gives it.
pub(super) type Row<R> = (&'static str, &'static str, &'static str, fn(&R) -> Option<f64>);

pub(super) const BURST_ROWS: &[Row<Bursts>] = &[
    ("itl_p50_ms", "between tokens, median", "ms", |run| run.gap_ms(0.5)),
    ("itl_p90_ms", "between tokens, 90th percentile", "ms", |run| run.gap_ms(0.9)),
    ("itl_p99_ms", "between tokens, 99th percentile", "ms", |run| run.gap_ms(0.99)),
    ("ttft_p50_ms", "first token of a burst, median", "ms", |run| run.first_token_ms(0.5)),
    ("ttft_p99_ms", "and its 99th percentile", "ms", |run| run.first_token_ms(0.99)),
    ("all_tok_s", "read and written", "tokens/s", Bursts::total),
];

pub(super) const ROWS: &[Row<Measured>] = &[
    ("prefill_tok_s", "reading the prompt", "tokens/s", Measured::prefill),
    ("ttft_ms", "first token after", "ms", Measured::first_token_ms),
    ("cold_ttft_ms", "the same where nothing is held", "ms", Measured::cold_first_token_ms),
    ("prefix_speedup", "first token sooner by", "times", Measured::prefix_speedup),
    ("decode_tok_s", "writing", "tokens/s", Measured::decode),
    ("stream_decode_tok_s", "writing, each request", "tokens/s", Measured::stream_decode),
    ("steady_tok_s", "writing, all requests", "tokens/s", Measured::steady),
    ("total_tok_s", "output over the whole run", "tokens/s", Measured::total),
];

/// Every figure that the runs give: medians, and the least and the most.
pub(super) fn summarise<R>(runs: &[R], rows: &[Row<R>]) -> Vec<Figure> {
    let figure = |&(name, words, unit, give): &Row<R>| {
        let values: Vec<f64> = runs.iter().filter_map(give).collect();
        let least = values.iter().copied().min_by(f64::total_cmp)?;
        let most = values.iter().copied().max_by(f64::total_cmp)?;
        Some(Figure { name, words, unit, median: median(values)?, least, most })
    };
    rows.iter().filter_map(figure).collect()
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(arrivals: &[(u64, u64)]) -> Stream {
        let arrival = |&(ms, tokens): &(u64, u64)| Arrival { at: Duration::from_millis(ms), tokens };
        Stream { arrivals: arrivals.iter().map(arrival).collect() }
    }

    fn check(streams: &[&[(u64, u64)]], wall_ms: u64, expected: &[(&str, f64)]) {
        let run = Measured {
            prompt: 100,
            wall: Duration::from_millis(wall_ms),
            streams: streams.iter().map(|arrivals| stream(arrivals)).collect(),
            cold: None,
            others: Others::default(),
        };
        let found: Vec<_> =
            summarise(&[run], ROWS).iter().map(|figure| (figure.name, figure.median)).collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for ((name, value), (expected_name, expected)) in found.iter().zip(expected) {
            assert_eq!(name, expected_name);
            assert!((value - expected).abs() < 1e-9, "{name}: {value} instead of {expected}");
        }
    }

    #[test]
    fn one_request() {
        let expected = [
            ("prefill_tok_s", 200.0),
            ("ttft_ms", 500.0),
            ("decode_tok_s", 4.0),
            ("stream_decode_tok_s", 4.0),
            ("total_tok_s", 2.0),
        ];
        check(&[&[(500, 1), (750, 1), (1000, 1)]], 1500, &expected);
    }

    #[test]
    fn tokens_that_arrive_together_are_counted() {
        let expected = [
            ("prefill_tok_s", 1000.0),
            ("ttft_ms", 100.0),
            ("decode_tok_s", 30.0),
            ("stream_decode_tok_s", 30.0),
            ("total_tok_s", 25.0),
        ];
        check(&[&[(100, 2), (200, 3)]], 200, &expected);
    }

    #[test]
    fn one_token_has_no_rate() {
        check(&[&[(100, 1)]], 100, &[("prefill_tok_s", 1000.0), ("ttft_ms", 100.0), ("total_tok_s", 10.0)]);
    }

    #[test]
    fn two_requests() {
        let expected = [
            ("ttft_ms", 150.0),
            ("stream_decode_tok_s", 10.0),
            ("steady_tok_s", 12.5),
            ("total_tok_s", 16.0),
        ];
        check(&[&[(100, 1), (200, 1), (300, 1)], &[(200, 1), (400, 3), (600, 1)]], 500, &expected);
    }

    #[test]
    fn streams_beside_bursts() {
        let run = Bursts {
            wall: Duration::from_secs(2),
            read: 1000,
            streams: vec![stream(&[(100, 1), (150, 1), (350, 2)]), stream(&[(100, 2), (200, 1)])],
            readers: vec![(Duration::from_millis(500), stream(&[(900, 1)]))],
        };
        let found: Vec<_> =
            summarise(&[run], BURST_ROWS).iter().map(|f| (f.name, f.median.round())).collect();
        let expected = [
            ("itl_p50_ms", 50.0),
            ("itl_p90_ms", 200.0),
            ("itl_p99_ms", 200.0),
            ("ttft_p50_ms", 400.0),
            ("ttft_p99_ms", 400.0),
            ("all_tok_s", 504.0),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn medians_and_spread() {
        let run = |ms| Measured {
            prompt: 1,
            wall: Duration::from_millis(ms),
            streams: vec![stream(&[(ms, 1)])],
            cold: Some(stream(&[(2 * ms, 1)])),
            others: Others::default(),
        };
        let figures = summarise(&[run(30), run(10), run(20), run(100)], ROWS);
        let first = figures.iter().find(|figure| figure.name == "ttft_ms").unwrap();
        assert_eq!((first.median, first.least, first.most), (25.0, 10.0, 100.0));
        let names: Vec<_> = figures.iter().map(|figure| figure.name).collect();
        assert_eq!(names, ["ttft_ms", "cold_ttft_ms", "prefix_speedup", "total_tok_s"]);
        assert!((figures[2].median - 2.0).abs() < 1e-9);
        assert!(summarise(&[], ROWS).is_empty());
    }
}
