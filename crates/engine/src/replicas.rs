//! Several engines with the same model as one: each computes on a device of its own, and requests go where least is to be
//! done.
//!
//! By row independence it shows in no bit which of them answers. A request whose prompt begins as one that a replica has read
//! goes there, while that has little more to do than the others. What waits for one replica while another has less to do is
//! asked of that one instead: nothing has been computed for it, so its reader notices nothing.

mod beginnings;
mod book;
mod routed;
mod tally;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use protocol::status::ModelStatus;
use protocol::{
    Adjustment, EmbedRequest, Embeddings, GenerateRequest, Generation, Health, Inference, ModelCard, Phase,
    Refusal, ScoreRequest, Scores, Status, Unserved,
};

use crate::sum;
use book::Book;
use routed::{Place, Routed};
use tally::Tally;

/// Engines with the same model as one [`Inference`].
pub struct Replicas {
    shared: Arc<Shared>,
}

/// What the streams of requests share.
struct Shared {
    members: Vec<Arc<dyn Inference>>,
    book: Mutex<Book>,
    tally: Mutex<Tally>,
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Replicas {
    /// `members` serve the same model, loaded from the same files in the same way, under the same name; at least one.
    pub fn new(members: Vec<Arc<dyn Inference>>) -> Self {
        let book = Mutex::new(Book::new(members.len()));
        Self { shared: Arc::new(Shared { members, book, tally: Mutex::default() }) }
    }

    /// Asks one replica after the other, the best one first, until one does not say that it has no room.
    async fn first<T, E>(
        &self,
        (marks, weight): (&[u64], u64),
        ask: impl Fn(Arc<dyn Inference>) -> BoxFuture<'static, Result<T, E>>,
        is_full: impl Fn(&E) -> bool,
    ) -> Result<(T, Place), E> {
        let mut tried = Vec::new();
        loop {
            let at = self.shared.book().choose(marks, &tried);
            let place = Place::take(&self.shared, at, weight);
            tried.push(at);
            match ask(Arc::clone(&self.shared.members[at])).await {
                Ok(answer) => return Ok((answer, place)),
                Err(error) if is_full(&error) && tried.len() < self.shared.members.len() => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn begin(&self, request: GenerateRequest) -> Result<Generation, Refusal> {
        let marks = beginnings::marks(&request);
        let asked = (&*marks, u64::from(request.choices));
        let ask = |member: Arc<dyn Inference>| {
            let request = request.clone();
            async move { member.generate(request).await }.boxed()
        };
        let (generation, place) = self.first(asked, ask, is_full).await?;
        self.shared.book().read(&marks, place.at());
        Ok(Routed::begin(generation, request, place))
    }
}

/// Whether another replica may have room.
fn is_full(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::QueueFull { .. } | Refusal::RateLimited { .. } | Refusal::NotReady { .. })
}

fn is_unserved_for_room(unserved: &Unserved) -> bool {
    matches!(unserved, Unserved::Refused(refusal) if is_full(refusal))
}

impl Inference for Replicas {
    fn models(&self) -> Vec<ModelCard> {
        self.shared.members.first().map(|first| first.models()).unwrap_or_default()
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<Generation, Refusal>> {
        self.begin(request).boxed()
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, Unserved>> {
        async move {
            let weight = request.inputs.len() as u64;
            let ask = |member: Arc<dyn Inference>| {
                let request = request.clone();
                async move { member.embed(request).await }.boxed()
            };
            self.first((&[], weight), ask, is_unserved_for_room).await.map(|(answer, _)| answer)
        }
        .boxed()
    }

    fn score(&self, request: ScoreRequest) -> BoxFuture<'_, Result<Scores, Unserved>> {
        async move {
            let weight = request.documents.len() as u64;
            let ask = |member: Arc<dyn Inference>| {
                let request = request.clone();
                async move { member.score(request).await }.boxed()
            };
            self.first((&[], weight), ask, is_unserved_for_room).await.map(|(answer, _)| answer)
        }
        .boxed()
    }

    /// All of them as one model: it is ready while one of them is, and no worse than degraded while one of them gets its
    /// work done.
    fn status(&self) -> Status {
        let one = |(at, member): (usize, &Arc<dyn Inference>)| {
            let status = member.status();
            let device = status.devices.first().map_or_else(|| at.to_string(), |device| device.name.clone());
            (device, status)
        };
        let all: Vec<_> = self.shared.members.iter().enumerate().map(one).collect();
        let is_ready = all.iter().any(|(_, status)| status.phase == Phase::Ready);
        let is_well = all.iter().any(|(_, status)| !matches!(status.health, Health::Unhealthy(_)));
        let joined = all.into_iter().fold(None, |sum, next| Some(sum::add(sum, next)));
        let mut joined = joined.unwrap_or_default();
        joined.phase = if is_ready { Phase::Ready } else { joined.phase };
        joined.health = match joined.health {
            Health::Unhealthy(reasons) if is_well => Health::Degraded(reasons),
            health => health,
        };
        let (phase, health) = (joined.phase, joined.health.clone());
        let models = std::mem::take(&mut joined.models);
        joined.models = models.into_iter().reduce(together).into_iter().collect();
        joined.figures.clear();
        self.shared.tally().correct(&mut joined.counters);
        let mut joined = sum::with_figures(joined);
        joined.models.iter_mut().for_each(|model| (model.phase, model.health) = (phase, health.clone()));
        joined
    }

    fn adjust(&self, adjustment: Adjustment) -> BoxFuture<'_, Result<(), Refusal>> {
        if adjustment == Adjustment::Rebalance {
            let woken = self.shared.book().rebalance();
            woken.into_iter().for_each(std::task::Waker::wake);
            return futures::future::ready(Ok(())).boxed();
        }
        async move {
            let adjusted = self.shared.members.iter().map(|member| member.adjust(adjustment.clone()));
            join_all(adjusted).await.into_iter().collect()
        }
        .boxed()
    }

    fn drain(&self) -> BoxFuture<'_, ()> {
        async move {
            join_all(self.shared.members.iter().map(|member| member.drain())).await;
        }
        .boxed()
    }
}

/// Two replicas of a model as one model.
fn together(mut a: ModelStatus, b: ModelStatus) -> ModelStatus {
    a.memory += b.memory;
    ModelStatus { queued: a.queued + b.queued, running: a.running + b.running, ..a }
}
