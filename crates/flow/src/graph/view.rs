//! A graph under a set of inputs of its own.

use std::fmt;
use std::sync::Arc;

use super::evaluation::{Edit, Evaluation, ViewId};
use super::memo::Value;
use super::worker::Shared;
use super::{Content, Deps, Get, GetMany, Graph, GraphError, Input, Node};

/// A graph under a set of inputs that does not change. Views share their graph's cache, limit and runs: where two need
/// the same result it is computed once.
pub struct View {
    pub(super) shared: Arc<Shared>,
    pub(super) id: ViewId,
}

impl View {
    /// Takes over one holding of a view.
    pub(super) fn new(shared: Arc<Shared>, id: ViewId) -> Self {
        Self { shared, id }
    }

    /// Like [`Graph::get`], under the inputs of this view.
    pub fn get<D: Deps>(&self, nodes: D) -> Get<D> {
        Get::new(self.clone(), nodes)
    }

    /// Like [`Graph::get_many`], under the inputs of this view.
    pub fn get_many<B: Send + Sync + 'static>(&self, nodes: impl IntoIterator<Item = Node<B>>) -> GetMany<B> {
        GetMany::new(self.clone(), nodes.into_iter().collect())
    }

    /// A view that differs from this one in one input.
    ///
    /// # Errors
    /// If the handle belongs to another graph.
    pub fn with<A: Content + Send + Sync + 'static>(
        &self,
        input: Input<A>,
        value: A,
    ) -> Result<Self, GraphError> {
        let edit = self.graph().giving(input, value)?;
        Ok(self.vary(edit))
    }

    pub(super) fn vary(&self, edit: Edit) -> Self {
        let id = self.shared.enter(|evaluation| evaluation.vary(self.id, edit));
        Self::new(Arc::clone(&self.shared), id)
    }

    pub(super) fn graph(&self) -> Graph {
        Graph { shared: Arc::clone(&self.shared) }
    }

    /// The values of all targets if they are there.
    pub(super) fn at_hand(
        &self,
        evaluation: &Evaluation,
        targets: &[u32],
    ) -> Option<Vec<Result<Value, GraphError>>> {
        targets.iter().map(|target| evaluation.at_hand(self.id, *target).map(Ok)).collect()
    }
}

impl Clone for View {
    fn clone(&self) -> Self {
        let id = self.shared.enter(|evaluation| evaluation.hold(self.id));
        Self::new(Arc::clone(&self.shared), id)
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.shared.enter(|evaluation| evaluation.release(self.id));
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}
