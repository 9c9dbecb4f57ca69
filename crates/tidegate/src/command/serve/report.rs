//! What a server has done, in one log line at its end.

use std::time::Duration;

use protocol::Status;
use protocol::status::Histogram;

/// Writes the line: requests by what became of them, tokens, and times that half and 99 of a hundred did not exceed.
pub(super) fn write(status: &Status, uptime: Duration) {
    let (counters, latency) = (&status.counters, &status.latency);
    let sum = |counts: &[(String, u64)]| counts.iter().map(|(_, count)| count).sum::<u64>();
    let millis = |times: &Histogram, share| (times.quantile(share).unwrap_or(0.0) * 1e4).round() / 10.0;
    tracing::info!(
        uptime_s = uptime.as_secs(),
        completed = sum(&counters.completed),
        failed = sum(&counters.failed),
        cancelled = sum(&counters.cancelled),
        refused = sum(&counters.refused),
        tokens_in = counters.prompt_tokens,
        tokens_out = counters.generated_tokens,
        ttft_p50_ms = millis(&latency.time_to_first_token, 0.5),
        ttft_p99_ms = millis(&latency.time_to_first_token, 0.99),
        itl_p50_ms = millis(&latency.inter_token, 0.5),
        itl_p99_ms = millis(&latency.inter_token, 0.99),
        restarts = counters.restarts,
        "served"
    );
}
