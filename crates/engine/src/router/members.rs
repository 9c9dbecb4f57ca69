//! The models that a router has, and how they come and go.
//!
//! A model that nobody has asked for may be put to sleep: its engine ends, and what is kept of it is what it was loaded from.
//! Whoever asks for it then waits until it is loaded again.

mod sleep;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use protocol::status::{ModelStatus, SleepStatus};
use protocol::{Inference, ModelCard, Phase, Refusal, Status};
use tokio::sync::oneshot;

use super::Supply;
use crate::sum;
pub(super) use sleep::Hand;
use sleep::{Hands, Sleeper, Waking};

/// One engine, and what it serves.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) inference: Arc<dyn Inference>,
    /// Read once: an engine serves the same models for as long as it lives.
    pub(super) cards: Arc<[ModelCard]>,
    /// What it is loaded from, written as for [`Supply::open`].
    origin: Option<Arc<str>>,
    /// It came as the how-manieth; sleep does not change that.
    rank: u64,
    /// When it was asked last, in milliseconds of the router's life.
    asked: Arc<AtomicU64>,
    hands: Hands,
}

/// The models of a router.
pub(super) struct Members {
    serving: RwLock<Vec<Member>>,
    supply: Option<Arc<dyn Supply>>,
    /// Held while a model is loaded: one after the other, so that each sees what room the ones before it have left.
    loading: Mutex<()>,
    changing: Mutex<Changing>,
    began: Instant,
}

/// What is on its way in or out.
#[derive(Default)]
struct Changing {
    coming: Vec<String>,
    going: Vec<Member>,
    asleep: Vec<Sleeper>,
    waking: Vec<(Arc<str>, Waking)>,
    slept: SleepStatus,
    /// Whether one is being put to sleep because memory is short.
    easing: bool,
    /// The rank of the newest member.
    newest: u64,
    /// What those that have gone have counted.
    past: Status,
}

/// How often it is looked whether a model that was told to go is still in somebody's hands.
const LOOK: Duration = Duration::from_millis(5);

/// How long it is waited at most for those who look at a model that has ended.
const LETTING_GO: Duration = Duration::from_secs(1);

impl Member {
    pub(super) fn new(inference: Arc<dyn Inference>, origin: Option<&str>) -> Self {
        let cards = inference.models().into();
        let origin = origin.map(Arc::from);
        Self { inference, cards, origin, rank: 0, asked: Arc::default(), hands: Hands::default() }
    }

    /// When it was asked last, in milliseconds of the router's life.
    fn asked_at(&self) -> u64 {
        self.asked.load(Relaxed)
    }

    fn name(&self) -> String {
        name_of(&self.cards)
    }

    pub(super) fn serves(&self, model: &str) -> bool {
        has(&self.cards, model)
    }
}

fn name_of(cards: &[ModelCard]) -> String {
    cards.iter().map(|card| card.id.as_str()).collect::<Vec<_>>().join(", ")
}

fn has(cards: &[ModelCard], model: &str) -> bool {
    cards.iter().any(|card| card.id == model)
}

impl Members {
    pub(super) fn new(mut members: Vec<Member>, supply: Option<Arc<dyn Supply>>) -> Self {
        let changing = Changing { newest: members.len() as u64, ..Changing::default() };
        members.iter_mut().zip(0..).for_each(|(member, rank)| member.rank = rank);
        Self {
            serving: RwLock::new(members),
            supply,
            loading: Mutex::default(),
            changing: Mutex::new(changing),
            began: Instant::now(),
        }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Notes that a member is asked.
    pub(super) fn ask(&self, member: &Member) {
        member.asked.store(self.millis(), Relaxed);
    }

    /// The cards of all models that can be asked for, those that sleep too, in the order in which they came.
    pub(super) fn cards(&self) -> Vec<Arc<[ModelCard]>> {
        let serving = self.serving.read().unwrap_or_else(PoisonError::into_inner);
        let awake = serving.iter().map(|member| (member.rank, Arc::clone(&member.cards)));
        let changing = self.changing();
        let asleep = changing.asleep.iter().map(|sleeper| (sleeper.rank, Arc::clone(&sleeper.cards)));
        let mut ranked: Vec<_> = awake.chain(asleep).collect();
        ranked.sort_unstable_by_key(|(rank, _)| *rank);
        ranked.into_iter().map(|(_, cards)| cards).collect()
    }

    /// Those that take requests.
    pub(super) fn all(&self) -> Vec<Member> {
        self.serving.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets nobody else load a model or put one to sleep.
    fn alone(&self) -> MutexGuard<'_, ()> {
        self.loading.lock().unwrap_or_else(PoisonError::into_inner)
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
        joined.sleep = SleepStatus { asleep: changing.asleep.len() as u64, ..changing.slept };
        for sleeper in &changing.asleep {
            // There is a model to be asked, though it takes a moment.
            joined.phase = if serving.is_empty() { Phase::Ready } else { joined.phase };
            joined.load.queue_capacity += sleeper.queue_capacity;
            let resting = |card: &ModelCard| ModelStatus {
                id: card.id.clone(),
                phase: Phase::Stopped,
                ..Default::default()
            };
            joined.models.extend(sleeper.cards.iter().map(resting));
        }
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
        let alone = self.alone();
        self.make_room(supply, model, &alone)?;
        self.admit(Member::new(supply.open(model)?, Some(model)))
    }

    fn admit(&self, mut member: Member) -> Result<String, Refusal> {
        let mut serving = self.serving.write().unwrap_or_else(PoisonError::into_inner);
        let mut changing = self.changing();
        let sleeps = |name: &str| {
            changing
                .asleep
                .iter()
                .any(|sleeper| has(&sleeper.cards, name) && Some(&sleeper.origin) != member.origin.as_ref())
        };
        let is_taken = |name: &str| {
            sleeps(name) || serving.iter().chain(&changing.going).any(|other| other.serves(name))
        };
        if let Some(card) = member.cards.iter().find(|card| is_taken(&card.id)) {
            let name = &card.id;
            return Err(invalid(&format!(
                "there is a model called '{name}'; unload that one first, or give this one a name of its own: NAME=PATH"
            )));
        }
        let name = member.name();
        changing.newest += 1;
        member.rank = changing.newest;
        let slept =
            changing.asleep.iter().position(|sleeper| Some(&sleeper.origin) == member.origin.as_ref());
        if let Some(slept) = slept.map(|index| changing.asleep.remove(index)) {
            (member.rank, member.hands) = (slept.rank, slept.hands);
            changing.slept.woken += 1;
        }
        self.ask(&member);
        serving.push(member);
        Ok(name)
    }

    /// Takes a model out of service and ends it on a thread of its own, which goes on though nobody waits for it any more.
    pub(super) async fn unload(self: Arc<Self>, model: String, grace: Duration) -> Result<(), Refusal> {
        if self.forget_sleeper(&model) {
            return Ok(());
        }
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
        let Member { inference, cards, .. } = member;
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
        // Whoever looks at its status holds the engine a moment longer, and its memory.
        let until = until.min(Instant::now() + LETTING_GO);
        while Arc::strong_count(&inference) > 1 && Instant::now() < until {
            thread::sleep(LOOK);
        }
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
