//! Where a tenant stands, in the headers of a response.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use flow::rate::TokenBucket;

/// Sets `x-ratelimit-limit-…`, `-remaining-…` and `-reset-…` for requests or tokens.
pub(super) fn tell(what: &str, bucket: &TokenBucket, now: Duration, headers: &mut HeaderMap) {
    let standing = [
        ("limit", bucket.burst().to_string()),
        ("remaining", bucket.available(now).to_string()),
        ("reset", spelled(bucket.full_after(now))),
    ];
    for (of, value) in standing {
        let name = HeaderName::try_from(format!("x-ratelimit-{of}-{what}"));
        if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
}

/// A time as OpenAI's servers spell it: `12ms`, `1s`, `8.64s`, `6m0s`, `1h0m0s`. Rounded up, so that nobody comes early.
fn spelled(time: Duration) -> String {
    let millis = time.as_nanos().div_ceil(1_000_000);
    if millis > 0 && millis < 1000 {
        return format!("{millis}ms");
    }
    if millis < 60_000 {
        return format!("{}s", millis as f64 / 1e3);
    }
    let seconds = millis.div_ceil(1000);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let hours = if hours > 0 { format!("{hours}h") } else { String::new() };
    format!("{hours}{minutes}m{}s", seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_spelled_as_client_libraries_know_them() {
        let check = |micros, expected: &str| assert_eq!(spelled(Duration::from_micros(micros)), expected);
        check(0, "0s");
        check(1, "1ms");
        check(12_000, "12ms");
        check(1_000_000, "1s");
        check(8_640_000, "8.64s");
        check(59_999_001, "1m0s");
        check(360_000_000, "6m0s");
        check(3_600_000_000, "1h0m0s");
    }
}
