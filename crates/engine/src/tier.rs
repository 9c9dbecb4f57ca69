//! Pages of keys and values beyond the engine's own memory: what leaves it is written down, and comes back when a prompt
//! begins with it, also after a restart.
//!
//! A page that is full depends on nothing but the tokens up to its end, the scope and the model, so a digest of these names
//! it for good; the tokens are in its note and compared when it comes back. Loaded pages are put into the prefix cache as
//! pages that nobody holds, and are shared from there like all others: nothing else in the engine knows of the tier.
//!
//! The engine's thread only copies, to buffers that are free and from pages that have come. Pages are put in their places for
//! one sequence at a time, the next to run, once there is room for all of it: read for all who wait, the pages of one
//! would push out those of another before either runs. It waits meanwhile, while others run, and computes what has not
//! come in time. A sequence that gave its pages back is the next to run like any other, so it moves down and comes back.

mod loads;
mod worth;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use memory::ladder::{Raise, Stay, Terms};
use memory::rung::{Blob, Medium};
use memory::{Key, Ladder, LadderStatistics, PageId};
use protocol::status::TierPlace;
use sha2::{Digest, Sha256};
use tensor::PAGE_TOKENS;

use crate::plan::Rank;
use crate::prefix::Scope;
use worth::{ComputeRate, Rates, Writes};

/// Where pages go that the engine's memory has no room for.
#[derive(Clone, Debug)]
pub struct KvTier {
    ladder: Ladder,
    identity: [u8; 32],
    patience: Duration,
}

/// A request waits at least so long for its pages before it computes them after all.
const PATIENCE: Duration = Duration::from_millis(200);

impl KvTier {
    /// Pages on a ladder; it must be this engine's alone. `identity` says everything that the bytes of a page follow from,
    /// beside the tokens: files of the model, types, instruction set. Pages of another identity are never found.
    pub fn new(ladder: Ladder, identity: &str) -> Self {
        let identity = Sha256::digest(format!("{} {identity}", env!("CARGO_PKG_VERSION"))).into();
        Self { ladder, identity, patience: PATIENCE }
    }

    /// What it holds and has done.
    pub fn statistics(&self) -> LadderStatistics {
        self.ladder.statistics()
    }

    /// What is in places of that kind.
    pub(crate) fn place(&self, medium: Medium) -> TierPlace {
        let level = self.ladder.levels().into_iter().find(|level| level.medium == medium);
        level.map_or_else(TierPlace::default, |level| TierPlace {
            pages: level.objects as u64,
            bytes: level.used as u64,
            limit_bytes: level.budget as u64,
            written_bytes: level.written,
            read_bytes: level.read,
            faults: level.faults,
        })
    }

    #[cfg(test)]
    pub(crate) fn ladder_of_tests(&self) -> Ladder {
        self.ladder.clone()
    }

    #[cfg(test)]
    pub(crate) fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    pub(crate) fn digests(&self) -> Digests {
        Digests { identity: self.identity }
    }
}

impl PartialEq for KvTier {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

/// Names pages for good.
#[derive(Clone, Debug)]
pub(crate) struct Digests {
    identity: [u8; 32],
}

impl Digests {
    /// The name of the page that holds `tokens` behind the page of a name, or at the beginning of a scope. What belongs to a
    /// single request has none, and neither have words of pictures: how those are read may be another after a restart.
    pub(crate) fn name(&self, scope: &Scope, before: Option<Key>, tokens: &[u32]) -> Option<Key> {
        let Scope::Tenant { name, salt } = scope else { return None };
        if tokens.iter().any(|token| *token >= 1 << 31) {
            return None;
        }
        let mut digest = Sha256::new();
        match before {
            Some(before) => digest.update(before.0.to_le_bytes()),
            None => {
                digest.update(self.identity);
                // Lengths keep a name that ends like a salt from being taken for one with that salt.
                for text in [Some(&**name), salt.as_deref()] {
                    digest.update(text.map_or(u64::MAX, |text| text.len() as u64).to_le_bytes());
                    digest.update(text.unwrap_or_default());
                }
            }
        }
        digest.update(note(tokens));
        let mut key = [0; 16];
        key.copy_from_slice(&digest.finalize()[..16]);
        Some(Key(u128::from_le_bytes(key)))
    }
}

/// What is noted with a page: its tokens.
fn note(tokens: &[u32]) -> Box<[u8]> {
    tokens.iter().flat_map(|token| token.to_le_bytes()).collect()
}

/// A page whose content would be lost.
#[derive(Clone, Debug)]
pub(crate) struct Leaving {
    pub(crate) page: PageId,
    pub(crate) key: Key,
    pub(crate) tokens: Box<[u32]>,
    /// Whether a sequence will go on with it, as far as is known.
    pub(crate) is_due: bool,
}

/// The tier as the engine's thread has it.
pub(crate) struct Tier {
    ladder: Ladder,
    digests: Digests,
    patience: Duration,
    fetch: Option<Fetch>,
    /// For whom was looked last: once is enough.
    sought: Option<Rank>,
    writes: Writes,
    compute: ComputeRate,
}

/// Pages that are being read for the sequence that is to run next.
struct Fetch {
    rank: Rank,
    scope: Arc<Scope>,
    /// What it begins with, as far as that may be shared.
    tokens: Box<[u32]>,
    /// The page that comes next, counted from its beginning.
    next: usize,
    /// Names of those that are to come: the first ones are asked for already.
    keys: VecDeque<Key>,
    /// Names of all of them.
    names: Vec<Key>,
    raises: VecDeque<Raise>,
    /// When it is given up.
    until: Duration,
}

impl Tier {
    pub(crate) fn new(tier: &KvTier) -> Self {
        Self {
            ladder: tier.ladder.clone(),
            digests: tier.digests(),
            patience: tier.patience,
            fetch: None,
            sought: None,
            writes: Writes::default(),
            compute: ComputeRate::default(),
        }
    }

    /// Learns how fast prompts are computed.
    pub(crate) fn observe(&mut self, prompt_rows: u64, other_rows: u64, took: Duration) {
        self.compute.observe(prompt_rows, other_rows, took);
    }

    /// Forgets all that it holds, and reads nothing more.
    pub(crate) fn clear(&mut self) {
        self.fetch = None;
        self.ladder.clear();
    }

    /// Nobody waits for pages of this sequence any more, until it is looked for again.
    pub(crate) fn forget(&mut self, rank: Rank) {
        self.fetch.take_if(|fetch| fetch.rank == rank);
        self.sought.take_if(|sought| *sought == rank);
    }

    /// Names of the pages with which `tokens` go on behind those that are held, the last of which has that name.
    fn continuation(&self, scope: &Scope, tokens: &[u32], (held, last): (usize, Option<Key>)) -> Vec<Key> {
        let mut before = last;
        let mut names = Vec::new();
        for tokens in tokens.chunks_exact(PAGE_TOKENS).skip(held) {
            before = self.digests.name(scope, before, tokens);
            match before.filter(|name| self.ladder.contains(*name)) {
                Some(name) => names.push(name),
                None => break,
            }
        }
        names
    }

    fn rates(&self) -> Rates {
        Rates { load: self.ladder.statistics().rates.up, compute: self.compute.tokens_per_second() }
    }

    /// Keeps a copy of a page, if a buffer is free for it. False if none is.
    fn keep(&self, leaving: &Leaving, bytes: &[u8]) -> bool {
        let Some(mut buffer) = self.ladder.try_reserve(bytes.len()) else { return false };
        buffer.copy_from_slice(bytes);
        let blob = Blob { note: note(&leaving.tokens), bytes: buffer };
        self.ladder.put(leaving.key, blob, Terms { stay: Stay::WhileRoom, cost: 0.0 });
        true
    }
}
