//! Buckets, percentiles and their error.

use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{BUCKETS, Histogram, HistogramSnapshot, VALUE_BITS, bucket_of, middle_of};

fn recorded(values: &[u64]) -> HistogramSnapshot {
    let histogram = Histogram::new();
    for value in values {
        histogram.record(Duration::from_nanos(*value));
    }
    histogram.snapshot()
}

#[test]
fn buckets_follow_each_other_without_gap() {
    for bucket in 0..BUCKETS {
        assert_eq!(bucket_of(middle_of(bucket)), bucket);
    }
    for power in 0..VALUE_BITS {
        let value = 1_u64 << power;
        let below = bucket_of(value - 1);
        assert_eq!(bucket_of(value), if value == 1 { 1 } else { below + 1 }, "2^{power}");
    }
    assert_eq!(bucket_of((1 << VALUE_BITS) - 1), BUCKETS - 1);
}

#[test]
fn an_empty_histogram_answers_with_zero() {
    let empty = Histogram::new().snapshot();
    let zero = Duration::ZERO;
    assert_eq!((empty.count(), empty.sum(), empty.min(), empty.max()), (0, zero, zero, zero));
    assert_eq!((empty.mean(), empty.quantile(0.99), empty.count_up_to(Duration::MAX)), (zero, zero, 0));
}

#[test]
fn what_is_beyond_the_range_counts_as_its_end() {
    let histogram = Histogram::new();
    histogram.record(Duration::MAX);
    histogram.record_many(Duration::from_secs(1), 0);
    let snapshot = histogram.snapshot();
    assert_eq!(snapshot.count(), 1);
    assert_eq!(snapshot.max(), Duration::from_nanos((1 << VALUE_BITS) - 1));
    assert_eq!(snapshot.quantile(0.5), snapshot.max());
}

#[test]
fn threads_record_together() {
    let histogram = Arc::new(Histogram::new());
    let threads: Vec<_> = (1..=20_u64)
        .map(|thread| {
            let histogram = Arc::clone(&histogram);
            std::thread::spawn(move || {
                for _ in 0..1000 {
                    histogram.record(Duration::from_micros(thread));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let snapshot = histogram.snapshot();
    assert_eq!(snapshot.count(), 20_000);
    assert_eq!(snapshot.sum(), Duration::from_micros(210 * 1000));
    assert_eq!((snapshot.min(), snapshot.max()), (Duration::from_micros(1), Duration::from_micros(20)));
}

proptest! {
    #[test]
    fn a_percentile_is_within_a_64th_of_the_truth(
        mut values in vec((0_u32..VALUE_BITS).prop_flat_map(|bits| 0_u64..(2 << bits)), 1..400),
        q in 0.0_f64..=1.0,
    ) {
        let snapshot = recorded(&values);
        values.iter_mut().for_each(|value| *value = (*value).min((1 << VALUE_BITS) - 1));
        values.sort_unstable();
        let rank = ((q * values.len() as f64).ceil() as usize).clamp(1, values.len());
        let truth = values[rank - 1];
        let found = snapshot.quantile(q).as_nanos() as u64;
        prop_assert!(found.abs_diff(truth) * 64 <= truth, "{found} instead of {truth}");
        prop_assert_eq!(snapshot.count(), values.len() as u64);
        prop_assert_eq!(snapshot.sum().as_nanos(), values.iter().map(|v| u128::from(*v)).sum::<u128>());
        prop_assert_eq!(snapshot.min().as_nanos(), u128::from(values[0]));
        prop_assert_eq!(snapshot.max().as_nanos(), u128::from(values[values.len() - 1]));
        let up_to = snapshot.count_up_to(Duration::from_nanos(truth));
        let surely = values.iter().filter(|value| **value <= truth).count() as u64;
        let at_most = values.iter().filter(|value| **value <= truth + truth / 32).count() as u64;
        prop_assert!((surely..=at_most).contains(&up_to), "{surely} <= {up_to} <= {at_most}");
    }

    #[test]
    fn merged_parts_equal_the_whole(
        first in vec(0_u64..1 << 40, 0..50),
        second in vec(0_u64..1 << 40, 0..50),
    ) {
        let mut merged = recorded(&first);
        merged.merge(&recorded(&second));
        prop_assert_eq!(merged, recorded(&[first, second].concat()));
    }
}
