//! Values that were computed, and what is known of those that are gone.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::Fingerprint;
use super::sieve::Sieve;

/// A value whose type only its node knows.
pub(super) type Value = Arc<dyn Any + Send + Sync>;

/// What a node made.
pub(super) struct Product {
    pub(super) value: Value,
    /// None if its content cannot be told.
    pub(super) print: Option<Fingerprint>,
    pub(super) bytes: u64,
}

/// What an entry costs beside its value: its places in the table and in the order.
const ENTRY_BYTES: u64 = 96;

/// The share of the bound that remembers fingerprints of results whose values may be gone.
const PRINTS_SHARE: u64 = 16;

/// The cache of a graph, bounded in bytes: results by the fingerprint of what they were computed from.
///
/// Graphs may share one. A node is known by its name, its version, its parameters and its type, so that nodes of
/// different graphs which agree in these must compute the same.
#[derive(Clone)]
pub struct Memo {
    store: Arc<Mutex<Store>>,
}

struct Store {
    /// Values and their fingerprints.
    values: Sieve<(Value, Fingerprint)>,
    /// The fingerprints of results whose values are gone.
    prints: Sieve<Fingerprint>,
    stats: MemoStats,
}

impl Store {
    /// Remembers that the result for `key` has that fingerprint.
    fn note(&mut self, key: Fingerprint, print: Fingerprint) {
        self.prints.insert(key, print, ENTRY_BYTES);
    }

    /// Remembers the fingerprints of values that leave.
    fn part(&mut self, gone: Vec<(Fingerprint, (Value, Fingerprint))>) -> Vec<Value> {
        let part = |(key, (value, print))| {
            self.note(key, print);
            value
        };
        gone.into_iter().map(part).collect()
    }
}

/// What a cache has done and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoStats {
    /// Values that were there when they were needed.
    pub hits: u64,
    /// Values that were needed and had to be computed.
    pub misses: u64,
    /// Values that left to make room for others.
    pub evictions: u64,
    /// Values that alone are larger than the cache, and never entered.
    pub refused: u64,
    /// Values that are there.
    pub entries: usize,
    /// Bytes that they and their entries take up.
    pub bytes: u64,
    /// Bytes that they may take up.
    pub bound: u64,
}

impl Memo {
    /// A cache of at most so many bytes; a sixteenth of them remembers the fingerprints of results that had to leave.
    /// Values in use are alive beside it for as long as somebody holds them.
    pub fn new(bytes: u64) -> Self {
        let prints = bytes / PRINTS_SHARE;
        let store = Store {
            values: Sieve::new(bytes - prints),
            prints: Sieve::new(prints),
            stats: MemoStats::default(),
        };
        Self { store: Arc::new(Mutex::new(store)) }
    }

    /// What it has done and what it holds.
    pub fn stats(&self) -> MemoStats {
        self.with(|store| MemoStats {
            entries: store.values.len(),
            bytes: store.values.weight() + store.prints.weight(),
            bound: store.values.bound() + store.prints.bound(),
            ..store.stats
        })
    }

    /// Drops all values. What is known of them stays, so that only values which are needed are computed again.
    pub fn clear(&self) {
        let gone = self.with(|store| {
            let gone = store.values.clear();
            store.part(gone)
        });
        drop(gone);
    }

    /// A value that is needed.
    pub(super) fn get(&self, key: Fingerprint) -> Option<Value> {
        self.find(key).map(|(value, _)| value)
    }

    /// A value that is needed, and its fingerprint.
    pub(super) fn find(&self, key: Fingerprint) -> Option<(Value, Fingerprint)> {
        self.with(|store| {
            let found = store.values.get(key).cloned();
            store.stats.hits += u64::from(found.is_some());
            found
        })
    }

    pub(super) fn holds(&self, key: Fingerprint) -> bool {
        self.with(|store| store.values.peek(key).is_some())
    }

    pub(super) fn missed(&self) {
        self.with(|store| store.stats.misses += 1);
    }

    pub(super) fn print(&self, key: Fingerprint) -> Option<Fingerprint> {
        self.with(|store| {
            let kept = store.values.peek(key).map(|(_, print)| *print);
            kept.or_else(|| store.prints.get(key).copied())
        })
    }

    /// Remembers that the result for `key` has that fingerprint.
    pub(super) fn note(&self, key: Fingerprint, print: Fingerprint) {
        self.with(|store| store.note(key, print));
    }

    /// Keeps a value, and gives what had to leave, for the caller to drop once it holds no lock.
    pub(super) fn keep(&self, key: Fingerprint, kept: (Value, Fingerprint), bytes: u64) -> Vec<Value> {
        let weight = bytes.saturating_add(ENTRY_BYTES);
        self.with(|store| {
            let before = store.values.len() + usize::from(store.values.peek(key).is_none());
            let gone = store.values.insert(key, kept, weight);
            if weight > store.values.bound() {
                store.stats.refused += 1;
            } else {
                store.stats.evictions += (before - store.values.len()) as u64;
            }
            store.part(gone)
        })
    }

    pub(super) fn discard(&self, key: Fingerprint) -> Option<Value> {
        self.with(|store| {
            let (value, print) = store.values.remove(key)?;
            store.note(key, print);
            Some(value)
        })
    }

    fn with<R>(&self, act: impl FnOnce(&mut Store) -> R) -> R {
        act(&mut self.store.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Default for Memo {
    /// 256 MiB.
    fn default() -> Self {
        Self::new(256 << 20)
    }
}

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Memo").field(&self.stats()).finish()
    }
}
