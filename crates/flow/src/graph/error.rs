//! What can go wrong when a graph is built or asked.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What a function of a node may fail with.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// What can go wrong when a graph is built or asked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// Two nodes have one name.
    #[error(
        "two nodes are called '{name}'; a name is what a node's results are remembered by, so give each its own"
    )]
    Duplicate {
        /// The name.
        name: Arc<str>,
    },
    /// A node asks for an input that is not there.
    #[error("node '{node}' asks for '{input}', and there is no such node; add it, or name one that is there")]
    Missing {
        /// The node that asks.
        node: Arc<str>,
        /// What it asks for.
        input: Arc<str>,
    },
    /// Nobody has that name.
    #[error("there is no node '{name}' in this graph")]
    Unknown {
        /// The name that was given.
        name: Arc<str>,
    },
    /// A node is asked for a type that it does not make.
    #[error("'{node}' expects '{input}' to be {expected}, and it is {found}; change the one or the other")]
    Mismatch {
        /// Who asks.
        node: Arc<str>,
        /// Who is asked.
        input: Arc<str>,
        /// The type that is asked for.
        expected: &'static str,
        /// The type that is made.
        found: &'static str,
    },
    /// Nodes wait for one another in a circle.
    #[error("nodes wait for one another in a circle, {}; take out one of these edges", Chain(.nodes, " → "))]
    Cycle {
        /// The circle in the direction in which values would flow, with its first node again at its end.
        nodes: Vec<Arc<str>>,
    },
    /// A handle was given out by another graph.
    #[error(
        "the handle that '{node}' was given belongs to another graph; use the handles of this graph's builder"
    )]
    Foreign {
        /// Who was given it.
        node: Arc<str>,
    },
    /// A node could not make its value, and so neither could those that need it.
    #[error("node '{}' {cause}{}", .path.node(), .path.reason())]
    Node {
        /// The node that failed, and for whom it was needed.
        path: NodePath,
        /// Why.
        #[source]
        cause: Cause,
    },
}

impl GraphError {
    /// The node that failed, if this is the failure of a node.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Node { path, .. } => Some(path.node()),
            _ => None,
        }
    }
}

/// Why a node has no value.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Cause {
    /// Its function said so.
    Error {
        /// What it said, at its last attempt.
        error: Arc<dyn Error + Send + Sync>,
        /// How often it was tried.
        attempts: u32,
    },
    /// Its function panicked.
    Panic {
        /// What it said.
        message: String,
    },
    /// It took longer than it may.
    Timeout {
        /// How long it may take.
        after: Duration,
        /// How often it was tried.
        attempts: u32,
    },
    /// It is an input, and nobody has set it.
    Unset,
    /// The runtime that ran it was shut down.
    Abandoned,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error { error, attempts: 1 } => write!(f, "failed: {error}"),
            Self::Error { error, attempts } => write!(f, "failed {attempts} times, at last with: {error}"),
            Self::Panic { message } => write!(f, "panicked: {message}"),
            Self::Timeout { after, attempts: 1 } => write!(f, "did not finish within {after:?}"),
            Self::Timeout { after, attempts } => {
                write!(f, "did not finish within {after:?} in any of {attempts} attempts")
            }
            Self::Unset => f.write_str("is an input without a value; set it before asking"),
            Self::Abandoned => f.write_str("ran on a runtime that has been shut down; ask again on another"),
        }
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Error { error, .. } => Some(error.as_ref()),
            _ => None,
        }
    }
}

/// The way from the node that was asked for down to the one that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePath(pub(super) Vec<Arc<str>>);

impl NodePath {
    /// The node that failed.
    pub fn node(&self) -> &str {
        self.0.last().map_or("", |name| name)
    }

    /// All nodes on the way, the one that was asked for first, the one that failed last.
    pub fn names(&self) -> &[Arc<str>] {
        &self.0
    }

    fn reason(&self) -> String {
        match self.0.as_slice() {
            [] | [_] => String::new(),
            names => format!(" (on the way {})", Chain(names, " ← ")),
        }
    }
}

/// Names in a row, the middle left out where it would be long.
struct Chain<'a>(&'a [Arc<str>], &'static str);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const EACH_END: usize = 8;
        let Self(names, between) = self;
        let last = names.len().saturating_sub(EACH_END);
        for (place, name) in names.iter().enumerate() {
            if place < EACH_END || place >= last {
                write!(f, "{}{name}", if place > 0 { between } else { "" })?;
            } else if place == EACH_END {
                write!(f, "{between}… {} more …", last - EACH_END)?;
            }
        }
        Ok(())
    }
}
