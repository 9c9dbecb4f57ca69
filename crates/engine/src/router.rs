//! Several models behind one [`Inference`]: requests go by the name of the model, or to the first that can.

mod members;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use protocol::status::MemoryPlan;
use protocol::{
    Adjustment, EmbedRequest, Embeddings, GenerateRequest, Generation, Inference, ModelCard, Refusal,
    ScoreRequest, Scores, Status, Task, Unserved,
};

use members::{Hand, Member, Members};

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

    /// Whether there is room for a model that has planned with so much before. What nobody uses is put to sleep until there is.
    fn has_room(&self, memory: &MemoryPlan) -> bool;
}

/// A model that is awake, and stays so while it is held.
struct Reached {
    inference: Arc<dyn Inference>,
    _hand: Hand,
}

impl Router {
    /// Routes to `members`; the first that can do what is asked serves requests that name no model.
    pub fn new(members: Vec<Arc<dyn Inference>>) -> Self {
        let members = members.into_iter().map(|member| Member::new(member, None)).collect();
        Self { members: Arc::new(Members::new(members, None)) }
    }

    /// As [`Router::new`], with what each member can be loaded from again, if it can. Loads further models from `supply` when
    /// told to.
    pub fn with_supply(members: Vec<(Arc<dyn Inference>, Option<String>)>, supply: Arc<dyn Supply>) -> Self {
        let member = |(member, origin): (_, Option<String>)| Member::new(member, origin.as_deref());
        let members = members.into_iter().map(member).collect();
        Self { members: Arc::new(Members::new(members, Some(supply))) }
    }

    /// From now on, models that nobody has asked for so long end, and are loaded again when they are asked for.
    ///
    /// # Errors
    /// When the system refuses the thread that looks after that.
    pub fn rest_after(&self, idle: Duration) -> std::io::Result<()> {
        let members = Arc::downgrade(&self.members);
        let pause = (idle / 8).clamp(Duration::from_millis(1), Duration::from_secs(1));
        let body = move || {
            while let Some(members) = members.upgrade() {
                members.rest(idle);
                drop(members);
                std::thread::sleep(pause);
            }
        };
        std::thread::Builder::new().name("tidegate-rest".to_owned()).spawn(body).map(drop)
    }

    /// The member that serves a request, loaded first if it sleeps.
    async fn awake(&self, model: Option<String>, task: Task) -> Result<Reached, Refusal> {
        let model = self.choose(model, task)?;
        let gone = || Refusal::UnknownModel { model: model.clone(), near: self.names(|_| true) };
        let hand = self.members.hold(&model).ok_or_else(gone)?;
        if self.find(&model).is_none() {
            self.members.wake(&model).await?;
        }
        Ok(Reached { inference: self.find(&model).ok_or_else(gone)?, _hand: hand })
    }

    /// The name of the model that serves a request: the one that was asked for, or the first that is made for it, or the first
    /// that can.
    fn choose(&self, model: Option<String>, task: Task) -> Result<String, Refusal> {
        let cards = self.members.cards();
        let all = || cards.iter().flat_map(|cards| cards.iter());
        // What a model was made for comes first: chat models can embed too, and are not whom to ask for it.
        let is_made_for = |card: &&ModelCard| {
            let first = card.tasks.first().copied();
            card.can(task) && (first == Some(Task::Generate)) == (task == Task::Generate)
        };
        let able = || all().find(is_made_for).or_else(|| all().find(|card| card.can(task)));
        let asked = match &model {
            Some(model) => all().find(|card| card.id == *model),
            None => able().or_else(|| all().next()),
        };
        match (asked, model) {
            (Some(card), _) if card.can(task) => Ok(card.id.clone()),
            (Some(card), _) => {
                let able = self.names(|card| card.can(task));
                Err(Refusal::Unable { model: card.id.clone(), task, able })
            }
            (None, Some(model)) => Err(Refusal::UnknownModel { model, near: self.names(|_| true) }),
            (None, None) => Err(Refusal::NotReady { reason: "no model is loaded".to_owned() }),
        }
    }

    fn names(&self, is: impl Fn(&ModelCard) -> bool) -> Vec<String> {
        self.models().into_iter().filter(is).map(|card| card.id).collect()
    }

    /// The member that serves a model, if it is awake.
    fn find(&self, model: &str) -> Option<Arc<dyn Inference>> {
        let member = self.members.all().into_iter().find(|member| member.serves(model))?;
        self.members.ask(&member);
        Some(member.inference)
    }

    /// Adjusts every member that generates: the others have nothing of what can be adjusted.
    async fn adjust_all(&self, adjustment: Adjustment) -> Result<(), Refusal> {
        let mut able = self.members.all();
        able.retain(|member| member.cards.iter().any(|card| card.can(Task::Generate)));
        let adjusted = able.iter().map(|member| member.inference.adjust(adjustment.clone()));
        join_all(adjusted).await.into_iter().collect()
    }

    async fn rebalance_all(&self) -> Result<(), Refusal> {
        let members = self.members.all();
        let balanced = members.iter().map(|member| member.inference.adjust(Adjustment::Rebalance));
        join_all(balanced).await.into_iter().collect()
    }
}

impl Inference for Router {
    fn models(&self) -> Vec<ModelCard> {
        self.members.cards().iter().flat_map(|cards| cards.to_vec()).collect()
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<Generation, Refusal>> {
        async move { self.awake(request.model.clone(), Task::Generate).await?.inference.generate(request).await }
            .boxed()
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, Unserved>> {
        async move { self.awake(request.model.clone(), Task::Embed).await?.inference.embed(request).await }
            .boxed()
    }

    fn score(&self, request: ScoreRequest) -> BoxFuture<'_, Result<Scores, Unserved>> {
        async move { self.awake(request.model.clone(), Task::Score).await?.inference.score(request).await }
            .boxed()
    }

    /// All members together: the earliest or the latest phase that any of them is in, the worst health with the model's
    /// name, and the sums of everything that is counted.
    fn status(&self) -> Status {
        self.members.status()
    }

    fn adjust(&self, adjustment: Adjustment) -> BoxFuture<'_, Result<(), Refusal>> {
        match adjustment {
            Adjustment::Load { model } => Arc::clone(&self.members).load(model).boxed(),
            Adjustment::Rebalance => self.rebalance_all().boxed(),
            Adjustment::Unload { model, grace } => Arc::clone(&self.members).unload(model, grace).boxed(),
            Adjustment::Relief(relief) => {
                self.members.ease(relief);
                self.adjust_all(adjustment).boxed()
            }
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
