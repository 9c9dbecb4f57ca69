//! A graph over a stream of elements.

use std::num::NonZeroUsize;
use std::sync::Arc;

use futures::Stream;
use futures::StreamExt;

use super::{Content, Graph, GraphError, Input, Node};

impl Graph {
    /// The values of `node` for each element of `stream` in place of `input`, in the order of the elements.
    ///
    /// At most `at_once` elements are in the graph at once, those included whose results wait for their turn, so memory
    /// is bounded by these and the cache, however long the stream is. The other inputs are as they were at the call;
    /// nodes that do not depend on `input` run once. An element that fails yields its error and harms no other. To
    /// gather the results into one, fold the stream.
    pub fn map_stream<A, B, S>(
        &self,
        stream: S,
        input: Input<A>,
        node: Node<B>,
        at_once: NonZeroUsize,
    ) -> impl Stream<Item = Result<Arc<B>, GraphError>> + Send
    where
        A: Content + Send + Sync + 'static,
        B: Send + Sync + 'static,
        S: Stream<Item = A> + Send,
    {
        self.mapped(stream, input, node).buffered(at_once.get())
    }

    /// Like [`Graph::map_stream`], in the order in which the results are there.
    pub fn map_stream_unordered<A, B, S>(
        &self,
        stream: S,
        input: Input<A>,
        node: Node<B>,
        at_once: NonZeroUsize,
    ) -> impl Stream<Item = Result<Arc<B>, GraphError>> + Send
    where
        A: Content + Send + Sync + 'static,
        B: Send + Sync + 'static,
        S: Stream<Item = A> + Send,
    {
        self.mapped(stream, input, node).buffer_unordered(at_once.get())
    }

    fn mapped<A, B, S>(
        &self,
        stream: S,
        input: Input<A>,
        node: Node<B>,
    ) -> impl Stream<Item = impl Future<Output = Result<Arc<B>, GraphError>> + Send> + Send
    where
        A: Content + Send + Sync + 'static,
        B: Send + Sync + 'static,
        S: Stream<Item = A> + Send,
    {
        let view = self.snapshot();
        stream.map(move |element| {
            let asked = view.with(input, element).map(|view| view.get(node));
            async move { asked?.await }
        })
    }
}
