//! Several models behind one [`Inference`]: requests go by the name of the model, or to the first that can.

mod members;
mod sum;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use protocol::{
    Adjustment, EmbedRequest, Embeddings, GenerateRequest, Generation, Inference, ModelCard, Refusal,
    ScoreRequest, Scores, Status, Task, Unserved,
};

use members::{Member, Members};

/// Several inferences as one. Models can be loaded and unloaded while it serves.
pub struct Router {
    members: Arc<Members>,
}

/// Where a router gets models that it does not have yet.
pub trait Supply: Send + Sync {
    /// Loads a model, written `PATH` or `NAME=PATH`, and starts an engine on it. Blocks for as long as that takes; it is
    /// asked for one model at a time.
    ///
    /// # Errors
    /// Why there is no such model, or no room for it.
    fn open(&self, model: &str) -> Result<Arc<dyn Inference>, Refusal>;
}

impl Router {
    /// Routes to `members`; the first that can do what is asked serves requests that name no model.
    pub fn new(members: Vec<Arc<dyn Inference>>) -> Self {
        Self { members: Arc::new(Members::new(members, None)) }
    }

    /// As [`Router::new`], and loads further models from `supply` when told to.
    pub fn with_supply(members: Vec<Arc<dyn Inference>>, supply: Arc<dyn Supply>) -> Self {
        Self { members: Arc::new(Members::new(members, Some(supply))) }
    }

    /// The member that serves a request.
    fn find(&self, model: Option<&str>, task: Task) -> Result<Arc<dyn Inference>, Refusal> {
        let members = self.members.all();
        let cards = || members.iter().flat_map(|member| member.cards.iter().map(move |card| (member, card)));
        let able = || cards().filter(|(_, card)| card.can(task));
        let names = |cards: &mut dyn Iterator<Item = (&Member, &ModelCard)>| {
            cards.map(|(_, card)| card.id.clone()).collect::<Vec<_>>()
        };
        let asked = match model {
            Some(model) => cards().find(|(_, card)| card.id == model),
            None => able().next().or_else(|| cards().next()),
        };
        match (asked, model) {
            (Some((member, card)), _) if card.can(task) => Ok(Arc::clone(&member.inference)),
            (Some((_, card)), _) => {
                Err(Refusal::Unable { model: card.id.clone(), task, able: names(&mut able()) })
            }
            (None, Some(model)) => {
                Err(Refusal::UnknownModel { model: model.to_owned(), near: names(&mut cards()) })
            }
            (None, None) => Err(Refusal::NotReady { reason: "no model is loaded".to_owned() }),
        }
    }

    /// Adjusts every member that generates: the others have nothing of what can be adjusted.
    async fn adjust_all(&self, adjustment: Adjustment) -> Result<(), Refusal> {
        let mut able = self.members.all();
        able.retain(|member| member.cards.iter().any(|card| card.can(Task::Generate)));
        let adjusted = able.iter().map(|member| member.inference.adjust(adjustment.clone()));
        join_all(adjusted).await.into_iter().collect()
    }
}

impl Inference for Router {
    fn models(&self) -> Vec<ModelCard> {
        self.members.all().iter().flat_map(|member| member.cards.to_vec()).collect()
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<Generation, Refusal>> {
        let member = self.find(request.model.as_deref(), Task::Generate);
        async move { member?.generate(request).await }.boxed()
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, Unserved>> {
        let member = self.find(request.model.as_deref(), Task::Embed);
        async move { member?.embed(request).await }.boxed()
    }

    fn score(&self, request: ScoreRequest) -> BoxFuture<'_, Result<Scores, Unserved>> {
        let member = self.find(request.model.as_deref(), Task::Score);
        async move { member?.score(request).await }.boxed()
    }

    /// All members together: the earliest or the latest phase that any of them is in, the worst health with the model's
    /// name, and the sums of everything that is counted.
    fn status(&self) -> Status {
        self.members.status()
    }

    fn adjust(&self, adjustment: Adjustment) -> BoxFuture<'_, Result<(), Refusal>> {
        match adjustment {
            Adjustment::Load { model } => Arc::clone(&self.members).load(model).boxed(),
            Adjustment::Unload { model, grace } => Arc::clone(&self.members).unload(model, grace).boxed(),
            other => self.adjust_all(other).boxed(),
        }
    }

    fn drain(&self) -> BoxFuture<'_, ()> {
        let members = self.members.all();
        async move {
            join_all(members.iter().map(|member| member.inference.drain())).await;
        }
        .boxed()
    }
}
