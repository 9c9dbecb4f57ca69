//! A lazy, incremental, asynchronous computation graph.
//!
//! Nodes are functions of other nodes and of inputs. Asking for a node runs what it needs and nothing else, independent
//! nodes at once within a limit, and one result for all who ask at the same time. Results are remembered under the
//! fingerprint of what they were computed from, in a cache bounded in bytes, so that after a change of an input only
//! that runs again which depends on a value that really came out differently.
//!
//! ```
//! use std::convert::Infallible;
//! use std::sync::Arc;
//! use flow::graph::{Graph, GraphError};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), GraphError> {
//! let mut graph = Graph::builder();
//! let text = graph.input("text", "the tide turns the gate".to_owned());
//! let words = graph.node("words", text).run(async |text: Arc<String>| {
//!     Ok::<_, Infallible>(text.split(' ').map(str::to_owned).collect::<Vec<_>>())
//! });
//! let count = graph.node("count", words).run(async |words: Arc<Vec<String>>| Ok::<_, Infallible>(words.len()));
//! let graph = graph.build()?;
//!
//! assert_eq!(*graph.get(count).await?, 5);
//! graph.set(text, "the gate turns the tide".to_owned())?;
//! assert_eq!(*graph.get((count, words)).await?.0, 5);
//! assert_eq!(graph.stats().runs, 4);
//! # Ok(())
//! # }
//! ```
//!
//! A graph refuses to know what its values are beyond [`Content`]: what tells one from another, and how many bytes it
//! holds. It takes every node for a function: the same inputs, version and parameters make the same result. Where the
//! world outside matters, say so with [`Graph::invalidate`].
//!
//! Read `graph/evaluation.rs` for how it works.

mod builder;
mod content;
mod draw;
mod error;
mod evaluation;
mod explain;
mod fingerprint;
mod get;
mod handles;
mod memo;
mod node;
mod plan;
mod sieve;
mod sketch;
mod slab;
mod stream;
#[cfg(test)]
mod tests;
mod view;
mod worker;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use builder::{GraphBuilder, NodeBuilder};
pub use content::{Content, Opaque};
pub use draw::{Drawing, NodeState};
pub use error::{BoxError, Cause, GraphError, NodePath};
pub use evaluation::Change;
pub use explain::{Explanation, Reason, Step, Verdict};
pub use fingerprint::{Digest, Fingerprint};
pub use get::{Get, GetMany};
pub use handles::{Deps, Input, Named, Node, Reference};
pub use memo::{Memo, MemoStats};
pub use sketch::{Executed, Sketch, SketchNode};
pub use view::View;
pub use worker::{Event, Happening};

use builder::Observer;
use evaluation::{Edit, Evaluation};
use handles::Kind;
use plan::Plan;
use worker::Shared;

/// A fingerprint that nothing else in this process has.
fn fresh() -> Fingerprint {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut digest = Digest::new();
    digest.bytes(b"fresh");
    digest.number(COUNT.fetch_add(1, Ordering::Relaxed));
    digest.finish().expect("nothing opaque was fed")
}

/// A graph of computations; clones are the same graph. It is put together by [`Graph::builder`].
///
/// It holds one set of given inputs, which [`Graph::set`] changes, and answers for these; a [`View`] answers for others
/// at the same time.
#[derive(Clone)]
pub struct Graph {
    shared: Arc<Shared>,
}

/// What a graph has done and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GraphStats {
    /// The cache.
    pub memo: MemoStats,
    /// Runs of nodes that were begun.
    pub runs: u64,
    /// Times that somebody joined a run instead of beginning one, for other inputs with the same outcome.
    pub joined: u64,
    /// Runs that came to no result.
    pub failures: u64,
    /// Runs that were dropped because nobody waited for them any more, before or after they began.
    pub cancelled: u64,
    /// Workers that run nodes now.
    pub workers: usize,
}

impl Graph {
    /// Collects the nodes of a graph.
    pub fn builder() -> GraphBuilder {
        GraphBuilder::new()
    }

    fn new(plan: Plan, memo: Memo, concurrency: usize, observer: Option<Observer>) -> Self {
        let evaluation = Evaluation::new(Arc::new(plan), memo, concurrency);
        Self { shared: Arc::new(Shared::new(evaluation, observer)) }
    }

    /// The values of the nodes or inputs that are asked for, under the inputs as they are now, whatever is set while
    /// it is waited for. It runs what is needed for them and not there, and ends with the first error.
    ///
    /// Dropping the future cancels whatever nobody else waits for. A node's function must not wait for a `get` of its
    /// own graph, since it would hold a place among those that run while it does.
    ///
    /// # Panics
    /// The future panics if something must run and it is polled outside of a tokio runtime.
    pub fn get<D: Deps>(&self, nodes: D) -> Get<D> {
        self.snapshot().get(nodes)
    }

    /// Like [`Graph::get`], with a value or an error of its own for every node. Fails as a whole only if a handle
    /// belongs to another graph.
    pub fn get_many<B: Send + Sync + 'static>(&self, nodes: impl IntoIterator<Item = Node<B>>) -> GetMany<B> {
        self.snapshot().get_many(nodes)
    }

    /// Gives an input another value. Nothing runs; what depends on the input is looked into when it is asked for. Work
    /// that goes on for earlier callers goes on.
    ///
    /// # Errors
    /// If the handle belongs to another graph.
    pub fn set<A: Content + Send + Sync + 'static>(
        &self,
        input: Input<A>,
        value: A,
    ) -> Result<Change, GraphError> {
        let edit = self.giving(input, value)?;
        Ok(self.shared.enter(|evaluation| evaluation.edit(edit)))
    }

    /// Declares what is remembered of a node void, because something has changed that is not among its inputs. It runs
    /// again when it is needed; what depends on it only if its result comes out differently.
    ///
    /// # Errors
    /// If the handle belongs to another graph.
    pub fn invalidate<B: Send + Sync + 'static>(&self, node: Node<B>) -> Result<(), GraphError> {
        let node = self.own(node)?;
        self.shared.enter(|evaluation| evaluation.edit(Edit::Void(node, fresh())));
        Ok(())
    }

    /// Drops the value that is kept of a node. It is computed again if it is needed; merely knowing that it has not
    /// changed does not need it.
    ///
    /// # Errors
    /// If the handle belongs to another graph.
    pub fn evict<B: Send + Sync + 'static>(&self, node: Node<B>) -> Result<(), GraphError> {
        let node = self.own(node)?;
        self.shared.enter(|evaluation| evaluation.discard(evaluation.current(), node));
        Ok(())
    }

    /// The graph under the inputs as they are now, which does not change any more.
    pub fn snapshot(&self) -> View {
        let id = self.shared.enter(|evaluation| evaluation.hold(evaluation.current()));
        View::new(Arc::clone(&self.shared), id)
    }

    /// The graph under the inputs as they are now but for one.
    ///
    /// # Errors
    /// If the handle belongs to another graph.
    pub fn with<A: Content + Send + Sync + 'static>(
        &self,
        input: Input<A>,
        value: A,
    ) -> Result<View, GraphError> {
        let edit = self.giving(input, value)?;
        let id = self.shared.enter(|evaluation| evaluation.vary(evaluation.current(), edit));
        Ok(View::new(Arc::clone(&self.shared), id))
    }

    /// Takes over the inputs of a view, all at once, and what is known under them.
    ///
    /// # Errors
    /// If the view is one of another graph.
    pub fn adopt(&self, view: &View) -> Result<(), GraphError> {
        if !Arc::ptr_eq(&self.shared, &view.shared) {
            return Err(GraphError::Foreign { node: "adopt".into() });
        }
        self.shared.enter(|evaluation| evaluation.adopt(view.id));
        Ok(())
    }

    /// The node with that name.
    ///
    /// # Errors
    /// If there is none, or it makes another type.
    pub fn node<B: Send + Sync + 'static>(&self, name: &str) -> Result<Node<B>, GraphError> {
        let plan = &self.shared.plan;
        let index = plan.find(name).ok_or_else(|| GraphError::Unknown { name: name.into() })?;
        let (found, expected) = (plan.nodes[index as usize].kind, Kind::of::<B>());
        if found != expected {
            let (expected, found) = (expected.name, found.name);
            return Err(GraphError::Mismatch { node: "node".into(), input: name.into(), expected, found });
        }
        Ok(Node::new(plan.tag, index))
    }

    /// The names of all nodes and inputs, in the order in which they were added.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.shared.plan.nodes.iter().map(|node| &*node.name)
    }

    /// What it has done and what it holds.
    pub fn stats(&self) -> GraphStats {
        self.shared.enter(|evaluation| {
            let counts = evaluation.counts;
            GraphStats {
                memo: evaluation.memo.stats(),
                runs: counts.runs,
                joined: counts.joined,
                failures: counts.failures,
                cancelled: counts.cancelled,
                workers: evaluation.workers,
            }
        })
    }

    fn giving<A: Content + Send + Sync + 'static>(
        &self,
        input: Input<A>,
        value: A,
    ) -> Result<Edit, GraphError> {
        Ok(Edit::Give(self.own(input.node())?, builder::given(value)))
    }

    /// The index of a node of this graph.
    fn own<B: Send + Sync + 'static>(&self, node: Node<B>) -> Result<u32, GraphError> {
        if node.graph == self.shared.plan.tag {
            Ok(node.index)
        } else {
            Err(GraphError::Foreign { node: format!("{node:?}").into() })
        }
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph").field("nodes", &self.names().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}
