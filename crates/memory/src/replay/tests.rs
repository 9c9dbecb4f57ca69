//! The optimum by hand and against all policies, and what the policies find where they are known to be good or bad.

use proptest::prelude::*;

use super::*;
use crate::eviction::{POLICIES, Policy};

fn uses(keys: impl IntoIterator<Item = u128>) -> Vec<Use> {
    keys.into_iter().map(|key| Use { key: Key(key), bytes: 100 }).collect()
}

fn policy(name: &str) -> PolicyChoice {
    PolicyChoice::Known(name.parse::<Policy>().unwrap())
}

#[test]
fn the_optimum_of_a_textbook() {
    // Belady's own kind of example: three places for five objects.
    let trace = uses([1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5]);
    assert_eq!(optimum(&trace, 300).hits, 5);
    assert_eq!(replay(&policy("lru"), &trace, 300).hits, 2);
    assert_eq!(optimum(&trace, 0).hits, 0);
    assert_eq!(optimum(&trace, distinct_bytes(&trace)).hits, 7);
    assert!((optimum(&trace, 300).byte_hit_rate() - 5.0 / 12.0).abs() < 1e-9);
}

#[test]
fn rounds_through_a_little_more_than_fits_keep_a_part() {
    let trace = uses((0..20).flat_map(|_| 0..120));
    let best = optimum(&trace, 10_000).hit_rate();
    assert_eq!(replay(&policy("lru"), &trace, 10_000).hits, 0);
    let found = replay(&policy("lirs"), &trace, 10_000).hit_rate();
    assert!(found > 0.9 * best, "{found} of {best}");
}

#[test]
fn scans_push_out_only_themselves() {
    // After every forty uses of forty objects come forty that are never used again.
    let trace = uses((0..50).flat_map(|round| (0..40).chain(1000 + 40 * round..1040 + 40 * round)));
    for name in ["lirs", "presence"] {
        let found = replay(&policy(name), &trace, 5_000).hit_rate();
        assert!(found > 0.45, "{name}: {found}");
    }
    assert_eq!(replay(&policy("lru"), &trace, 5_000).hits, 0);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn nothing_finds_more_than_the_optimum_and_all_find_everything_where_all_fits(
        keys in prop::collection::vec(0u128..30, 1..300),
        places in 0usize..40,
    ) {
        let trace = uses(keys);
        let best = optimum(&trace, places * 100);
        for policy in POLICIES {
            let found = replay(&PolicyChoice::Known(*policy), &trace, places * 100);
            prop_assert_eq!((found.uses, found.bytes), (best.uses, best.bytes));
            prop_assert!(found.hits <= best.hits, "{} finds {} of {}", policy.name, found.hits, best.hits);
            let all = replay(&PolicyChoice::Known(*policy), &trace, distinct_bytes(&trace));
            prop_assert_eq!(all.hits, all.uses - (distinct_bytes(&trace) / 100) as u64);
        }
    }
}
