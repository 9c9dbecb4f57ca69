//! How a graph is put together.

use std::any::type_name;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::content::fingerprint_of;
use super::handles::{Kind, Reference};
use super::memo::{Memo, Value};
use super::node::{Begun, Computation, Settings};
use super::plan::{Draft, Given, Plan, Source};
use super::{
    BoxError, Content, Deps, Digest, Event, Fingerprint, Graph, GraphError, Input, Named, Node, fresh,
};
use crate::retry::{Class, Retry};
use crate::scheduler::{Needs, Scheduler, Terms};

/// How many nodes run at once if nobody says otherwise.
const CONCURRENCY: usize = 32;

/// Collects the nodes of a graph.
pub struct GraphBuilder {
    tag: u64,
    drafts: Vec<Draft>,
    concurrency: usize,
    memo: Memo,
    observer: Option<Observer>,
}

/// Is told what happens.
pub(super) type Observer = Arc<dyn Fn(&Event) + Send + Sync>;

impl GraphBuilder {
    pub(super) fn new() -> Self {
        static TAGS: AtomicU64 = AtomicU64::new(0);
        Self {
            tag: TAGS.fetch_add(1, Ordering::Relaxed),
            drafts: Vec::new(),
            concurrency: CONCURRENCY,
            memo: Memo::default(),
            observer: None,
        }
    }

    /// How many nodes may run at once, blocking ones included; 32 if nothing is said. At least 1.
    pub fn concurrency(&mut self, nodes: usize) -> &mut Self {
        self.concurrency = nodes.max(1);
        self
    }

    /// Where results are kept; a cache of its own of 256 MiB if nothing is said.
    pub fn memo(&mut self, memo: Memo) -> &mut Self {
        self.memo = memo;
        self
    }

    /// Tells `observer` what happens, on the threads on which it happens: it must be quick, and not use the graph.
    pub fn observer(&mut self, observer: impl Fn(&Event) + Send + Sync + 'static) -> &mut Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Adds an input with a value.
    pub fn input<A: Content + Send + Sync + 'static>(&mut self, name: &str, value: A) -> Input<A> {
        let given = given(value);
        self.add(name, Kind::of::<A>(), Vec::new(), Source::Given(Some(given)))
    }

    /// Adds an input that has no value until it is set, such as the element of a stream.
    pub fn unset_input<A: Content + Send + Sync + 'static>(&mut self, name: &str) -> Input<A> {
        self.add(name, Kind::of::<A>(), Vec::new(), Source::Given(None))
    }

    /// Starts a node that depends on `deps`; [`NodeBuilder::run`] or [`NodeBuilder::run_blocking`] adds it.
    pub fn node<D: Deps>(&mut self, name: &str, deps: D) -> NodeBuilder<'_, D> {
        let settings = Settings::default();
        NodeBuilder { graph: self, name: name.into(), deps, version: 0, params: None, settings }
    }

    /// A node by its name, for one that is added later or elsewhere.
    pub fn named<B>(&self, name: &str) -> Named<B> {
        Named::new(name)
    }

    /// Checks the graph: every name is there once, every type is the expected one, and no node waits for itself.
    ///
    /// # Errors
    /// Names the first node with which something is wrong.
    pub fn build(self) -> Result<Graph, GraphError> {
        let plan = Plan::new(self.tag, self.drafts)?;
        Ok(Graph::new(plan, self.memo, self.concurrency, self.observer))
    }

    fn add<A>(&mut self, name: &str, kind: Kind, deps: Vec<Reference>, source: Source) -> Input<A> {
        let index = self.drafts.len() as u32;
        self.drafts.push(Draft { name: name.into(), kind, deps, source });
        Input(Node::new(self.tag, index))
    }
}

impl fmt::Debug for GraphBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.drafts.iter().map(|draft| &draft.name);
        f.debug_struct("GraphBuilder").field("nodes", &names.collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

/// A value as it is given to a graph. What cannot be told from others gets a fingerprint that nothing else has.
pub(super) fn given<A: Content + Send + Sync + 'static>(value: A) -> Given {
    let print = fingerprint_of(&value).unwrap_or_else(fresh);
    Given { value: Arc::new(value), print }
}

/// A node that is being added.
#[must_use = "a node is added by `run` or `run_blocking`"]
pub struct NodeBuilder<'a, D> {
    graph: &'a mut GraphBuilder,
    name: Arc<str>,
    deps: D,
    version: u64,
    params: Option<Fingerprint>,
    settings: Settings,
}

impl<D: Deps> NodeBuilder<'_, D> {
    /// The version of the node's code; 0 if nothing is said. Results of other versions are not served.
    pub fn version(mut self, version: u64) -> Self {
        self.version = version;
        self
    }

    /// What the node's function has captured and its result depends on. Results of other parameters are not served.
    pub fn params(mut self, params: &impl Content) -> Self {
        self.params = Some(fingerprint_of(params).unwrap_or_else(fresh));
        self
    }

    /// How long one attempt may take. An asynchronous one is dropped then. A blocking one cannot be stopped: the node
    /// fails at once and is not tried again, and its place among those that run is free when it ends.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = Some(timeout);
        self
    }

    /// Tries again after errors and timeouts, but not after panics. A node that waits for its next attempt keeps its place
    /// among those that run.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.settings.retry = retry;
        self
    }

    /// Tries again as the class of the error says, instead of after every error.
    pub fn retry_by_class<C>(mut self, retry: Retry, class: C) -> Self
    where
        C: Fn(&(dyn Error + Send + Sync + 'static)) -> Class + Send + Sync + 'static,
    {
        self.settings.retry = retry;
        self.settings.judge = Some(Box::new(class));
        self
    }

    /// Lets the node run only on a reservation of what it needs. While it waits for that it holds a place among the
    /// nodes that run.
    pub fn needs(self, scheduler: &Scheduler, needs: &Needs, terms: Terms) -> Self {
        let (scheduler, needs) = (scheduler.clone(), needs.clone());
        self.holding(move || {
            let (scheduler, needs, terms) = (scheduler.clone(), needs.clone(), terms.clone());
            async move { scheduler.acquire(&needs, terms).await }
        })
    }

    /// Holds something while the node runs, such as a permit: `acquire` is awaited before the node's first attempt, and
    /// what it gives is dropped after its last. A failure to acquire is the node's failure.
    pub fn holding<G, E, Fut>(mut self, acquire: impl Fn() -> Fut + Send + Sync + 'static) -> Self
    where
        G: Send + 'static,
        E: Into<BoxError>,
        Fut: Future<Output = Result<G, E>> + Send + 'static,
    {
        self.settings.acquire = Some(Box::new(move || {
            let acquired = acquire();
            Box::pin(async move { Ok(Box::new(acquired.await.map_err(Into::into)?) as Box<dyn Send>) })
        }));
        self
    }

    /// Takes the result to be determined by what it was computed from and does not look at it: for results whose
    /// fingerprint costs more than what it might spare behind the node.
    pub fn uncompared(mut self) -> Self {
        self.settings.comparison = Comparison::Inputs;
        self
    }

    /// Never keeps the result: for results that are cheaper to compute than to keep.
    pub fn unkept(mut self) -> Self {
        self.settings.keeps = false;
        self
    }

    /// Adds the node. Its function gets the values of the inputs that it depends on; it must make the same of the same.
    pub fn run<B, E, F, Fut>(self, function: F) -> Node<B>
    where
        B: Content + Send + Sync + 'static,
        E: Into<BoxError>,
        F: Fn(D::Values) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<B, E>> + Send + 'static,
    {
        let (function, deps) = (Arc::new(function), self.deps.clone());
        let comparison = self.settings.comparison;
        self.add(move |values| {
            let values = deps.collect(&mut values.iter());
            let function = Arc::clone(&function);
            Begun::Future(Box::pin(async move {
                let result = function(values).await.map_err(Into::into)?;
                Ok(comparison.appraise(result))
            }))
        })
    }

    /// Adds a node whose function blocks its thread; it runs on the threads that the runtime keeps for that. Once begun
    /// it runs to its end, whoever goes away.
    pub fn run_blocking<B, E, F>(mut self, function: F) -> Node<B>
    where
        B: Content + Send + Sync + 'static,
        E: Into<BoxError>,
        F: Fn(D::Values) -> Result<B, E> + Send + Sync + 'static,
    {
        self.settings.blocks = Blocks::Thread;
        let (function, deps) = (Arc::new(function), self.deps.clone());
        let comparison = self.settings.comparison;
        self.add(move |values| {
            let values = deps.collect(&mut values.iter());
            let function = Arc::clone(&function);
            Begun::Blocking(Box::new(move || {
                let result = function(values).map_err(Into::into)?;
                Ok(comparison.appraise(result))
            }))
        })
    }

    fn add<B: 'static>(self, begin: impl Fn(&[Value]) -> Begun + Send + Sync + 'static) -> Node<B> {
        let kind = Kind::of::<B>();
        let mut seed = Digest::new();
        (&*self.name, kind.name, type_name::<D>(), self.version, self.params).feed(&mut seed);
        self.deps.feed_shape(&mut seed);
        let seed = seed.finish().unwrap_or_else(fresh);
        let mut references = Vec::new();
        self.deps.list(&mut references);
        let computation = Computation { seed, begin: Box::new(begin), settings: self.settings };
        self.graph.add(&self.name, kind, references, Source::Computed(computation)).node()
    }
}

impl<D: fmt::Debug> fmt::Debug for NodeBuilder<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeBuilder")
            .field("name", &self.name)
            .field("deps", &self.deps)
            .finish_non_exhaustive()
    }
}

/// What stands for a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Comparison {
    /// Its content.
    #[default]
    Result,
    /// What it was computed from.
    Inputs,
}

/// What a node's function keeps busy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Blocks {
    #[default]
    Nothing,
    Thread,
}
