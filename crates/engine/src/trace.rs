//! What can be recorded of an engine's work and replayed without it: when requests came, how long they were, how large
//! the steps were and how long they took. Nothing of a prompt or a reply, and no name of a tenant.

use std::fmt;
use std::sync::Arc;

use protocol::Priority;
use serde::{Deserialize, Serialize};

/// One line of a trace. Times are microseconds since the engine's start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Entry {
    /// The engine has started.
    Start(Start),
    /// A request was accepted.
    Arrival(Arrival),
    /// A step was made.
    Step(Step),
    /// A request that had left the queue has left the engine.
    End(End),
    /// An object of the tier below memory was written or read.
    Use(Use),
}

/// What the engine ran with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// Most tokens of a step.
    pub max_batch_tokens: usize,
    /// Most sequences that run at once.
    pub max_sequences: usize,
    /// Pages for keys and values.
    pub kv_pages: usize,
    /// The order of the queue.
    pub policy: String,
    /// The time between tokens that the controller aims at, if it is on.
    pub target_us: Option<u64>,
}

/// A request as the engine sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Arrival {
    /// When.
    pub at_us: u64,
    /// Which one.
    pub order: u64,
    /// Whose: a digest of the tenant's name, which tells tenants apart.
    pub tenant: u64,
    /// How urgent it is.
    pub priority: Priority,
    /// Tokens of its prompt.
    pub prompt: u64,
    /// Tokens that it may write at most, for each of its choices.
    pub max_tokens: u64,
    /// Its continuations.
    pub choices: u32,
    /// Time from its arrival after which it is of no use.
    pub deadline_us: Option<u64>,
}

/// What a step computed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// When it ended.
    pub at_us: u64,
    /// How long it took, but for the vision tower.
    pub took_us: u64,
    /// Streams that got their next token.
    pub decode: u64,
    /// Tokens beside them.
    pub prompt: u64,
    /// Keys that all its tokens attended to.
    pub attended: u64,
    /// The work of the vision tower in it: tokens of a prompt that take as many multiplications.
    #[serde(default, skip_serializing_if = "is_none")]
    pub vision: u64,
    /// How long that took; it is no part of `took_us`.
    #[serde(default, skip_serializing_if = "is_none")]
    pub vision_us: u64,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// When.
    pub at_us: u64,
    /// Which one.
    pub order: u64,
    /// When its first token was there.
    pub first_us: Option<u64>,
    /// Tokens that were sampled, over all its choices.
    pub written: u64,
    /// Tokens of its prompt that a cache held.
    pub cached: u64,
    /// The work of the vision tower for its images, as in [`Step::vision`]; none for what had been seen before.
    #[serde(default, skip_serializing_if = "is_none")]
    pub vision: u64,
}

/// What says nothing is left out of a trace, as in those that were taken before it was known.
fn is_none(count: &u64) -> bool {
    *count == 0
}

/// A use of an object that may live on the disk, such as a page of keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Use {
    /// Which one: a number that stands for it in this trace and says nothing of its content.
    pub object: u64,
    /// Its length.
    pub bytes: usize,
}

/// Takes the entries of an engine, on its own thread: it must not wait for anything.
#[derive(Clone)]
pub struct Recorder(Arc<dyn Fn(Entry) + Send + Sync>);

impl Recorder {
    /// Hands every entry to `take`.
    pub fn new(take: impl Fn(Entry) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    /// Takes an entry.
    pub fn record(&self, entry: Entry) {
        (self.0)(entry);
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Recorder").finish_non_exhaustive()
    }
}

/// The same place to take entries to.
impl PartialEq for Recorder {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
