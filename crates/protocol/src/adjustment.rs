//! What can be changed while an engine runs.

use std::num::NonZeroU32;
use std::time::Duration;

/// A change to a running engine. It concerns everybody, so it is for whoever runs the engine and not for its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Adjustment {
    /// Forget the keys and values of all prompts, as when they must not be reused after a test. What runs keeps its own.
    ClearPrefixCache,
    /// Forget the answers that are kept.
    ClearResults,
    /// Keep answers within so many bytes; 0 keeps none.
    KeepResults {
        /// The bound.
        bytes: usize,
    },
    /// Aim at this time between two tokens of a stream; `None` is throughput mode.
    InterTokenTarget(Option<Duration>),
    /// Serve what waits in another order. What is left out stays as it is.
    Queue {
        /// Name of the policy.
        policy: Option<String>,
        /// Time of waiting that makes a request one level more urgent.
        age_step: Option<Duration>,
        /// Shares of tenants. Those that are not named keep theirs.
        weights: Vec<(String, NonZeroU32)>,
    },
    /// Load one more model, and serve it once it is ready. It goes on though nobody waits for it any more.
    Load {
        /// Where it is, and under which name requests ask for it: `PATH` or `NAME=PATH`.
        model: String,
    },
    /// Accept no more requests for a model, let those that were accepted end, and give its memory back.
    Unload {
        /// Its name.
        model: String,
        /// How long they have; those that have not ended then fail.
        grace: Duration,
    },
}
