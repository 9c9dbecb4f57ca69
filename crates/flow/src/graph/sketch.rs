//! A graph drawn by name, for those who put it together at run time.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::{BoxError, Content, Graph, GraphError, Input, Memo, Named, Node};

/// What the input of a sketch is called.
const INPUT: &str = "(input)";

/// A graph of nodes that all make the same type, drawn by name: add nodes, add edges, execute. Nodes without an edge to
/// them get what is executed; those without an edge from them are what it comes to.
///
/// It is checked whenever it is executed after a change. Results are remembered across changes, by the names and
/// versions of nodes, so that drawing on runs only what is new.
pub struct Sketch<V> {
    nodes: Vec<SketchNode<V>>,
    edges: Vec<(Arc<str>, Arc<str>)>,
    memo: Memo,
    concurrency: usize,
    built: Option<Built<V>>,
}

/// A node of a sketch.
pub struct SketchNode<V> {
    name: Arc<str>,
    version: u64,
    function: Function<V>,
}

enum Function<V> {
    Async(Arc<Taking<V, BoxFuture<'static, Made<V>>>>),
    Blocking(Arc<Taking<V, Made<V>>>),
}

/// A function of the values of the nodes before it.
type Taking<V, R> = dyn Fn(Vec<Arc<V>>) -> R + Send + Sync;

type Made<V> = Result<V, BoxError>;

/// A sketch that was checked.
struct Built<V> {
    graph: Graph,
    input: Input<V>,
    outputs: Vec<(Arc<str>, Node<V>)>,
}

impl<V> Clone for Built<V> {
    fn clone(&self) -> Self {
        Self { graph: self.graph.clone(), input: self.input, outputs: self.outputs.clone() }
    }
}

impl<V: Content + Send + Sync + 'static> SketchNode<V> {
    /// A node whose function gets the values of the nodes with an edge to it, in the order of the edges.
    pub fn new<E, Fut>(name: &str, function: impl Fn(Vec<Arc<V>>) -> Fut + Send + Sync + 'static) -> Self
    where
        E: Into<BoxError>,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
    {
        let function = move |values| -> BoxFuture<'static, Made<V>> {
            let made = function(values);
            Box::pin(async move { made.await.map_err(Into::into) })
        };
        Self { name: name.into(), version: 0, function: Function::Async(Arc::new(function)) }
    }

    /// A node whose function blocks its thread.
    pub fn blocking<E>(
        name: &str,
        function: impl Fn(Vec<Arc<V>>) -> Result<V, E> + Send + Sync + 'static,
    ) -> Self
    where
        E: Into<BoxError>,
    {
        let function = move |values| function(values).map_err(Into::into);
        Self { name: name.into(), version: 0, function: Function::Blocking(Arc::new(function)) }
    }

    /// The version of its code; 0 if nothing is said. Results of other versions are not served.
    pub fn version(mut self, version: u64) -> Self {
        self.version = version;
        self
    }
}

impl<V: Content + Send + Sync + 'static> Sketch<V> {
    /// An empty sketch that remembers results in `memo` and runs at most so many nodes at once.
    pub fn new(memo: Memo, concurrency: usize) -> Self {
        Self { nodes: Vec::new(), edges: Vec::new(), memo, concurrency, built: None }
    }

    /// Adds a node.
    pub fn add_node(&mut self, node: SketchNode<V>) -> &mut Self {
        self.built = None;
        self.nodes.push(node);
        self
    }

    /// Lets the value of `from` flow to `to`. Either may be added later.
    pub fn add_edge(&mut self, from: &str, to: &str) -> &mut Self {
        self.built = None;
        self.edges.push((from.into(), to.into()));
        self
    }

    /// Takes out a node and its edges.
    pub fn remove_node(&mut self, name: &str) -> &mut Self {
        self.built = None;
        self.nodes.retain(|node| &*node.name != name);
        self.edges.retain(|(from, to)| &**from != name && &**to != name);
        self
    }

    /// Takes out an edge.
    pub fn remove_edge(&mut self, from: &str, to: &str) -> &mut Self {
        self.built = None;
        self.edges.retain(|(source, target)| &**source != from || &**target != to);
        self
    }

    /// The graph that was drawn, checked.
    ///
    /// # Errors
    /// Names the circle, the node that is not there, or the name that is there twice.
    pub fn graph(&mut self) -> Result<Graph, GraphError> {
        self.built().map(|built| built.graph)
    }

    /// What the nodes without an edge from them make of `value`, by name. Several executions may go on at once.
    ///
    /// # Errors
    /// What is wrong with the sketch at once; what became of the nodes, in the future.
    pub fn execute(&mut self, value: V) -> Result<Executed<V>, GraphError> {
        let Built { graph, input, outputs } = self.built()?;
        let (names, nodes): (Vec<Arc<str>>, Vec<Node<V>>) = outputs.into_iter().unzip();
        let values = graph.with(input, value)?.get(nodes);
        Ok(Box::pin(async move { Ok(names.into_iter().zip(values.await?).collect()) }))
    }

    fn built(&mut self) -> Result<Built<V>, GraphError> {
        if let Some(built) = &self.built {
            return Ok(built.clone());
        }
        let mut feeding: HashMap<&str, Vec<Named<V>>> = HashMap::new();
        for (from, to) in &self.edges {
            if self.nodes.iter().all(|node| node.name != *to) {
                return Err(GraphError::Unknown { name: Arc::clone(to) });
            }
            feeding.entry(to).or_default().push(Named::new(from));
        }
        let mut graph = Graph::builder();
        graph.memo(self.memo.clone()).concurrency(self.concurrency);
        let input = graph.unset_input(INPUT);
        let mut outputs = Vec::new();
        for SketchNode { name, version, function } in &self.nodes {
            let deps = feeding.remove(&**name).unwrap_or_else(|| vec![Named::new(INPUT)]);
            let node = graph.node(name, deps).version(*version);
            let node = match function.clone() {
                Function::Async(function) => node.run(move |values| function(values)),
                Function::Blocking(function) => node.run_blocking(move |values| function(values)),
            };
            if self.edges.iter().all(|(from, _)| from != name) {
                outputs.push((Arc::clone(name), node));
            }
        }
        let built = Built { graph: graph.build()?, input, outputs };
        self.built = Some(built.clone());
        Ok(built)
    }
}

/// The values of the last nodes of a sketch, by name.
pub type Executed<V> = BoxFuture<'static, Result<Vec<(Arc<str>, Arc<V>)>, GraphError>>;

impl<V> Clone for Function<V> {
    fn clone(&self) -> Self {
        match self {
            Self::Async(function) => Self::Async(Arc::clone(function)),
            Self::Blocking(function) => Self::Blocking(Arc::clone(function)),
        }
    }
}

impl<V> fmt::Debug for Sketch<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.nodes.iter().map(|node| &*node.name).collect();
        f.debug_struct("Sketch").field("nodes", &names).field("edges", &self.edges).finish_non_exhaustive()
    }
}

impl<V> fmt::Debug for SketchNode<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, version, .. } = self;
        f.debug_struct("SketchNode").field("name", name).field("version", version).finish_non_exhaustive()
    }
}
