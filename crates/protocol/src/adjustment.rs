//! What can be changed while an engine runs.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

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
    /// Give up so much, because memory is short, or take it back.
    Relief(Relief),
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
    /// Let requests that wait for a replica of a model that has more to do than another wait for that one instead.
    Rebalance,
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

/// What is given up while memory is short: in this order, each with all that stand before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relief {
    /// Nothing.
    #[default]
    None,
    /// Answers that are kept; none are kept meanwhile.
    Results,
    /// What a vision tower has made of pictures that nobody waits for.
    Pictures,
    /// Keys and values that nobody uses; what has room on the disk goes there.
    Prefixes,
    /// Models that nobody asks for: they are loaded again when somebody does.
    Models,
    /// One waiting request at a time starts, after each reading.
    Slower,
    /// None starts while others run.
    Hold,
}

impl Relief {
    /// All of them, in order.
    pub const ALL: [Self; 7] =
        [Self::None, Self::Results, Self::Pictures, Self::Prefixes, Self::Models, Self::Slower, Self::Hold];

    /// One step more.
    pub fn next(self) -> Self {
        Self::ALL[(self as usize + 1).min(Self::ALL.len() - 1)]
    }

    /// One step less.
    pub fn before(self) -> Self {
        Self::ALL[(self as usize).saturating_sub(1)]
    }

    /// A word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Results => "results",
            Self::Pictures => "pictures",
            Self::Prefixes => "prefixes",
            Self::Models => "models",
            Self::Slower => "slower",
            Self::Hold => "hold",
        }
    }
}

impl fmt::Display for Relief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "nothing is given up",
            Self::Results => "no answers are kept",
            Self::Pictures => "no answers are kept, and no features of pictures",
            Self::Prefixes => "nothing is kept that nobody uses",
            Self::Models => "nothing is kept that nobody uses, models among it",
            Self::Slower => {
                "nothing is kept that nobody uses, models among it, and requests start one by one"
            }
            Self::Hold => {
                "nothing is kept that nobody uses, models among it, and no request starts while others run"
            }
        })
    }
}
