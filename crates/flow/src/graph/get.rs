//! Waiting for values.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::runtime::Handle;

use super::evaluation::{CallerId, Patience};
use super::memo::Value;
use super::{Deps, GraphError, Node, View};

/// Completes with the values that were asked for, or with the first error. Dropping it cancels what nobody else waits
/// for.
#[must_use = "nothing runs until the future is awaited"]
pub struct Get<D: Deps> {
    deps: D,
    question: Result<Question, Option<GraphError>>,
}

/// Completes with one value or error for every node that was asked for.
#[must_use = "nothing runs until the future is awaited"]
pub struct GetMany<B> {
    nodes: Vec<Node<B>>,
    question: Result<Question, Option<GraphError>>,
}

impl<D: Deps> Get<D> {
    pub(super) fn new(view: View, deps: D) -> Self {
        let question = Question::new(view, &deps, Patience::UntilError).map_err(Some);
        Self { deps, question }
    }
}

impl<B: Send + Sync + 'static> GetMany<B> {
    pub(super) fn new(view: View, nodes: Vec<Node<B>>) -> Self {
        let question = Question::new(view, &nodes, Patience::UntilEnd).map_err(Some);
        Self { nodes, question }
    }
}

impl<D: Deps + Unpin> Future for Get<D> {
    type Output = Result<D::Values, GraphError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answers = match &mut self.question {
            Ok(question) => ready!(question.poll(context)),
            Err(error) => {
                return Poll::Ready(Err(error.take().expect("a future is not polled after its end")));
            }
        };
        // Those that came before the error stand before it, so the first error is what ends the collecting.
        let values: Result<Vec<Value>, GraphError> = answers.into_iter().collect();
        Poll::Ready(values.map(|values| self.deps.collect(&mut values.iter())))
    }
}

impl<B: Send + Sync + 'static> Future for GetMany<B> {
    type Output = Result<Vec<Result<Arc<B>, GraphError>>, GraphError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answers = match &mut self.question {
            Ok(question) => ready!(question.poll(context)),
            Err(error) => {
                return Poll::Ready(Err(error.take().expect("a future is not polled after its end")));
            }
        };
        let typed = |(node, answer): (&Node<B>, Result<Value, _>)| {
            answer.map(|value| node.collect(&mut [value].iter()))
        };
        Poll::Ready(Ok(self.nodes.iter().zip(answers).map(typed).collect()))
    }
}

impl<D: Deps> fmt::Debug for Get<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Get").finish_non_exhaustive()
    }
}

impl<B> fmt::Debug for GetMany<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetMany").field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

/// What somebody asked of a view.
struct Question {
    view: View,
    targets: Arc<[u32]>,
    patience: Patience,
    caller: Option<CallerId>,
}

impl Question {
    fn new(view: View, deps: &impl Deps, patience: Patience) -> Result<Self, GraphError> {
        let mut references = Vec::new();
        deps.list(&mut references);
        let asker = "get".into();
        let plan = &view.shared.plan;
        let targets: Result<_, _> =
            references.iter().map(|reference| plan.resolve(reference, &asker)).collect();
        Ok(Self { targets: targets?, view, patience, caller: None })
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Vec<Result<Value, GraphError>>> {
        let Self { view, targets, patience, caller } = self;
        let waker = context.waker();
        let answers = match *caller {
            Some(caller) => view.shared.enter(|evaluation| evaluation.answers(caller, waker)),
            None => match view.shared.enter(|evaluation| view.at_hand(evaluation, targets)) {
                Some(answers) => Some(answers),
                None => {
                    // Says at once what is wrong where there is no runtime to run nodes on.
                    let _runtime = Handle::current();
                    view.shared.enter(|evaluation| {
                        let asked = evaluation.ask(view.id, Arc::clone(targets), *patience, waker.clone());
                        *caller = Some(asked);
                        evaluation.settle_down();
                        evaluation.answers(asked, waker)
                    })
                }
            },
        };
        if answers.is_some() {
            *caller = None;
        }
        answers.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if let Some(caller) = self.caller {
            self.view.shared.enter(|evaluation| evaluation.leave(caller));
        }
    }
}
