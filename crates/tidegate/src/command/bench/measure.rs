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

/// A figure's name, what it is in words, its unit, and how a run gives it.
type Row = (&'static str, &'static str, &'static str, fn(&Measured) -> Option<f64>);

const ROWS: &[Row] = &[
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
pub(super) fn summarise(runs: &[Measured]) -> Vec<Figure> {
    let figure = |&(name, words, unit, give): &Row| {
        let values: Vec<f64> = runs.iter().filter_map(give).collect();
        let least = values.iter().copied().min_by(f64::total_cmp)?;
        let most = values.iter().copied().max_by(f64::total_cmp)?;
        Some(Figure { name, words, unit, median: median(values)?, least, most })
    };
    ROWS.iter().filter_map(figure).collect()
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
        let found: Vec<_> = summarise(&[run]).iter().map(|figure| (figure.name, figure.median)).collect();
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
    fn medians_and_spread() {
        let run = |ms| Measured {
            prompt: 1,
            wall: Duration::from_millis(ms),
            streams: vec![stream(&[(ms, 1)])],
            cold: Some(stream(&[(2 * ms, 1)])),
            others: Others::default(),
        };
        let figures = summarise(&[run(30), run(10), run(20), run(100)]);
        let first = figures.iter().find(|figure| figure.name == "ttft_ms").unwrap();
        assert_eq!((first.median, first.least, first.most), (25.0, 10.0, 100.0));
        let names: Vec<_> = figures.iter().map(|figure| figure.name).collect();
        assert_eq!(names, ["ttft_ms", "cold_ttft_ms", "prefix_speedup", "total_tok_s"]);
        assert!((figures[2].median - 2.0).abs() < 1e-9);
        assert!(summarise(&[]).is_empty());
    }
}
