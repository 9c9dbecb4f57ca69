//! The caches of others, as they come, told the same uses: what is not found is put there.

use memory::Key;
use memory::replay::{Found, Use};
use moka::policy::EvictionPolicy;
use quick_cache::Weighter;

/// What `find` finds; it is to put there what it does not find.
fn found(uses: &[Use], mut find: impl FnMut(Use) -> Option<usize>) -> Found {
    let mut found = Found::default();
    for used in uses {
        match find(*used) {
            Some(_) => found.hit(*used),
            None => found.miss(*used),
        }
    }
    found
}

fn moka(uses: &[Use], budget: usize, policy: EvictionPolicy) -> Found {
    let cache = moka::sync::Cache::builder()
        .max_capacity(budget as u64)
        .weigher(|_: &Key, bytes: &usize| u32::try_from(*bytes).unwrap_or(u32::MAX))
        .eviction_policy(policy)
        .build();
    found(uses, |used| {
        let held = cache.get(&used.key);
        if held.is_none() {
            cache.insert(used.key, used.bytes);
        }
        // It notes uses in batches; here every use counts before the next one, as with the others.
        cache.run_pending_tasks();
        held
    })
}

pub(crate) fn moka_tiny_lfu(uses: &[Use], budget: usize) -> Found {
    moka(uses, budget, EvictionPolicy::tiny_lfu())
}

pub(crate) fn moka_lru(uses: &[Use], budget: usize) -> Found {
    moka(uses, budget, EvictionPolicy::lru())
}

#[derive(Clone)]
struct Bytes;

impl Weighter<Key, usize> for Bytes {
    fn weight(&self, _key: &Key, bytes: &usize) -> u64 {
        *bytes as u64
    }
}

pub(crate) fn quick_cache(uses: &[Use], budget: usize) -> Found {
    let items = budget / 16_384;
    let mut cache = quick_cache::unsync::Cache::with_weighter(items, budget as u64, Bytes);
    found(uses, |used| {
        let held = cache.get(&used.key).copied();
        if held.is_none() {
            cache.insert(used.key, used.bytes);
        }
        held
    })
}
