//! The models that a router has, and how they come and go.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use protocol::status::ModelStatus;
use protocol::{Inference, ModelCard, Refusal, Status};
use tokio::sync::oneshot;

use super::{Supply, sum};

/// One engine, and what it serves.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) inference: Arc<dyn Inference>,
    /// Read once: an engine serves the same models for as long as it lives.
    pub(super) cards: Arc<[ModelCard]>,
}

/// The models of a router.
pub(super) struct Members {
    serving: RwLock<Vec<Member>>,
    supply: Option<Arc<dyn Supply>>,
    /// Held while a model is loaded: one after the other, so that each sees what room the ones before it have left.
    loading: Mutex<()>,
    changing: Mutex<Changing>,
}

/// What is on its way in or out.
#[derive(Default)]
struct Changing {
    coming: Vec<String>,
    going: Vec<Member>,
    /// What those that have gone have counted.
    past: Status,
}

/// How often it is looked whether a model that was told to go is still in somebody's hands.
const LOOK: Duration = Duration::from_millis(5);

impl Member {
    fn new(inference: Arc<dyn Inference>) -> Self {
        Self { cards: inference.models().into(), inference }
    }

    fn name(&self) -> String {
        self.cards.iter().map(|card| card.id.as_str()).collect::<Vec<_>>().join(", ")
    }

    fn serves(&self, model: &str) -> bool {
        self.cards.iter().any(|card| card.id == model)
    }
}

impl Members {
    pub(super) fn new(members: Vec<Arc<dyn Inference>>, supply: Option<Arc<dyn Supply>>) -> Self {
        let serving = RwLock::new(members.into_iter().map(Member::new).collect());
        Self { serving, supply, loading: Mutex::default(), changing: Mutex::default() }
    }

    /// Those that take requests.
    pub(super) fn all(&self) -> Vec<Member> {
        self.serving.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn changing(&self) -> MutexGuard<'_, Changing> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them together, and what those that have gone have counted.
    pub(super) fn status(&self) -> Status {
        let one = |member: &Member| (member.name(), member.inference.status());
        let serving = self.all();
        let joined = serving.iter().map(one).fold(None, |joined, next| Some(sum::add(joined, next)));
        let mut joined = joined.unwrap_or_default();
        let changing = self.changing();
        joined.models.extend(changing.going.iter().flat_map(|member| member.inference.status().models));
        let coming = changing.coming.iter().map(|id| ModelStatus { id: id.clone(), ..Default::default() });
        joined.models.extend(coming);
        sum::add_past(&mut joined, (changing.past.counters.clone(), &changing.past.latency));
        joined
    }

    /// Loads a model on a thread of its own, which ends what it has begun though nobody waits for it any more.
    pub(super) async fn load(self: Arc<Self>, model: String) -> Result<(), Refusal> {
        let Some(supply) = self.supply.clone() else {
            return Err(invalid("models cannot be loaded into this process while it runs"));
        };
        let (told, outcome) = oneshot::channel();
        let coming = Coming::announce(Arc::clone(&self), &model);
        let body = move || {
            let came = coming.members.bring(&*supply, &model);
            drop(coming);
            match &came {
                Ok(name) => tracing::info!(model = name, "a model was loaded"),
                Err(refusal) => tracing::warn!(model, %refusal, "a model could not be loaded"),
            }
            // Whoever asked may have gone away.
            let _ = told.send(came.map(drop));
        };
        let thread = thread::Builder::new().name("tidegate-load".to_owned()).spawn(body);
        thread.map_err(|error| invalid(&format!("the system refuses a thread: {error}")))?;
        outcome.await.unwrap_or_else(|_| Err(invalid("the model's files made the loading end unexpectedly")))
    }

    fn bring(&self, supply: &dyn Supply, model: &str) -> Result<String, Refusal> {
        let _alone = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        self.admit(Member::new(supply.open(model)?))
    }

    fn admit(&self, member: Member) -> Result<String, Refusal> {
        let mut serving = self.serving.write().unwrap_or_else(PoisonError::into_inner);
        let changing = self.changing();
        let is_taken = |name: &str| serving.iter().chain(&changing.going).any(|other| other.serves(name));
        if let Some(card) = member.cards.iter().find(|card| is_taken(&card.id)) {
            let name = &card.id;
            return Err(invalid(&format!(
                "there is a model called '{name}'; unload that one first, or give this one a name of its own: NAME=PATH"
            )));
        }
        let name = member.name();
        serving.push(member);
        Ok(name)
    }

    /// Takes a model out of service and ends it on a thread of its own, which goes on though nobody waits for it any more.
    pub(super) async fn unload(self: Arc<Self>, model: String, grace: Duration) -> Result<(), Refusal> {
        let member = self.dismiss(&model)?;
        let (told, ended) = oneshot::channel();
        let members = Arc::clone(&self);
        let body = move || {
            members.end(member, Instant::now() + grace);
            tracing::info!(model, "a model was unloaded");
            // Whoever asked may have gone away.
            let _ = told.send(());
        };
        let thread = thread::Builder::new().name("tidegate-unload".to_owned()).spawn(body);
        thread.map_err(|error| invalid(&format!("the system refuses a thread: {error}")))?;
        ended.await.map_err(|_| invalid("the model ended unexpectedly"))
    }

    /// Routes no more requests to a model.
    fn dismiss(&self, model: &str) -> Result<Member, Refusal> {
        let mut serving = self.serving.write().unwrap_or_else(PoisonError::into_inner);
        let Some(index) = serving.iter().position(|member| member.serves(model)) else {
            let near = serving.iter().flat_map(|member| member.cards.iter().map(|card| card.id.clone()));
            return Err(Refusal::UnknownModel { model: model.to_owned(), near: near.collect() });
        };
        let member = serving.remove(index);
        self.changing().going.push(member.clone());
        Ok(member)
    }

    /// Lets what it has accepted end, until the given time, then gives up the model.
    fn end(&self, member: Member, until: Instant) {
        let Member { inference, cards } = member;
        // Draining begins when the future is first looked at.
        let mut drained = Box::pin(inference.drain());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        while drained.as_mut().poll(&mut context).is_pending() && Instant::now() < until {
            thread::sleep(LOOK);
        }
        drop(drained);
        let mut changing = self.changing();
        let past = inference.status();
        sum::add_past(&mut changing.past, (past.counters, &past.latency));
        changing.going.retain(|going| !Arc::ptr_eq(&going.cards, &cards));
        drop(changing);
        // Whoever is just about to hand in a request may hold the engine a moment longer; it refuses the request.
        drop(inference);
    }
}

/// A model on its way in; it is listed until this is dropped, also in a panic.
struct Coming {
    members: Arc<Members>,
    model: String,
}

impl Coming {
    fn announce(members: Arc<Members>, model: &str) -> Self {
        members.changing().coming.push(model.to_owned());
        Self { members, model: model.to_owned() }
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        let coming = &mut self.members.changing().coming;
        if let Some(index) = coming.iter().position(|model| *model == self.model) {
            coming.remove(index);
        }
    }
}

fn invalid(message: &str) -> Refusal {
    Refusal::InvalidParameter { param: "model".to_owned(), message: message.to_owned() }
}
