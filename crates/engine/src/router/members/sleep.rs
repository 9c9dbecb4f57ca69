//! Models that sleep: who is put to sleep and when, and how whoever asks for one wakes it.
//!
//! A model sleeps when nobody has asked for it for long, when memory is short, or to make room for one that is woken. It never
//! sleeps while it has something to do, nor while somebody is about to ask it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, ready};
use protocol::status::MemoryPlan;
use protocol::{ModelCard, Refusal, Relief};

use super::{Member, Members, has, name_of};
use crate::router::Supply;

/// A model without an engine, which is loaded when it is asked for.
#[derive(Clone)]
pub(super) struct Sleeper {
    pub(super) cards: Arc<[ModelCard]>,
    pub(super) origin: Arc<str>,
    pub(super) rank: u64,
    /// Requests that may wait for it when it is awake.
    pub(super) queue_capacity: u64,
    pub(super) hands: Hands,
    /// What it planned with while it was awake.
    memory: MemoryPlan,
}

/// A model being woken, for all who wait for it.
pub(super) type Waking = Shared<BoxFuture<'static, Result<(), Refusal>>>;

/// How many are about to ask a model for something. They stay with the model when it sleeps and when it is woken.
#[derive(Clone, Default)]
pub(super) struct Hands(Arc<AtomicUsize>);

/// Somebody who is about to ask a model for something: as long as there is one, the model is not put to sleep.
pub(in crate::router) struct Hand(Hands);

impl Hands {
    /// One more. It is raised while the list of those that serve is read, and looked for while that is written.
    fn raise(&self) -> Hand {
        self.0.fetch_add(1, Ordering::SeqCst);
        Hand(self.clone())
    }

    fn are_raised(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A model is being given up; another one may be when this is dropped, also in a panic.
struct Easing(Arc<Members>);

impl Drop for Easing {
    fn drop(&mut self) {
        self.0.changing().easing = false;
    }
}

/// Why a model is put to sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Idle,
    Memory,
}

/// A model that was asked for less long ago than this counts as used, until nearly all of the memory is.
const UNUSED: Duration = Duration::from_secs(10);

/// How long those who asked just when a model was put to sleep have to be served.
const PARTING: Duration = Duration::from_secs(60);

impl Members {
    /// Lets nobody put a model to sleep from now on, whether it is awake or not; `None` where there is none of that name.
    pub(in crate::router) fn hold(&self, model: &str) -> Option<Hand> {
        let serving = self.serving.read().unwrap_or_else(PoisonError::into_inner);
        let awake = serving.iter().find(|member| member.serves(model)).map(|member| member.hands.raise());
        awake.or_else(|| {
            let changing = self.changing();
            let sleeper = changing.asleep.iter().find(|sleeper| has(&sleeper.cards, model))?;
            Some(sleeper.hands.raise())
        })
    }

    /// Loads a model that sleeps, once for all who wait for it. Resolves at once where there is none of that name.
    pub(in crate::router) fn wake(self: &Arc<Self>, model: &str) -> Waking {
        let mut changing = self.changing();
        if let Some((_, waking)) = changing.waking.iter().find(|(name, _)| **name == *model) {
            return waking.clone();
        }
        let sleeper = changing.asleep.iter().find(|sleeper| has(&sleeper.cards, model)).cloned();
        let Some(Sleeper { origin, .. }) = sleeper else { return ready(Ok(())).boxed().shared() };
        let (members, name) = (Arc::clone(self), Arc::<str>::from(model));
        let woken = {
            let name = Arc::clone(&name);
            async move {
                let woken = Arc::clone(&members).load(origin.to_string()).await;
                members.changing().waking.retain(|(other, _)| *other != name);
                woken
            }
        };
        let waking = woken.boxed().shared();
        changing.waking.push((name, waking.clone()));
        waking
    }

    /// Puts the models to sleep that nobody has asked for so long and that have had nothing to do since.
    pub(in crate::router) fn rest(&self, after: Duration) {
        for member in self.idle(after) {
            self.put_to_sleep(member, Cause::Idle, &self.alone());
        }
    }

    /// Gives up one model, if so much is to be given up. It goes on a thread of its own; until it has gone, no other one goes.
    pub(in crate::router) fn ease(self: &Arc<Self>, relief: Relief) {
        let after = match relief {
            Relief::Models | Relief::Slower => UNUSED,
            // All that is cheaper than work in progress goes now.
            Relief::Hold => Duration::ZERO,
            _ => return,
        };
        if std::mem::replace(&mut self.changing().easing, true) {
            return;
        }
        let easing = Easing(Arc::clone(self));
        let body = move || easing.0.spare(after);
        if let Err(error) = thread::Builder::new().name("tidegate-rest".to_owned()).spawn(body) {
            tracing::warn!(%error, "the system refuses a thread, so no model is put to sleep");
        }
    }

    /// Puts one model to sleep that nobody has asked for so long, unless it is the only one that is awake: that one has what
    /// requests are served with, and its memory would be asked for again with the next of them.
    pub(in crate::router) fn spare(&self, after: Duration) {
        let alone = self.alone();
        if self.all().len() > 1
            && let Some(member) = self.idle(after).into_iter().next()
        {
            self.put_to_sleep(member, Cause::Memory, &alone);
        }
    }

    /// Makes room for a model that is loaded again, by putting those to sleep that have nothing to do. How much a model takes
    /// that is loaded for the first time is known only when it is read.
    pub(super) fn make_room(
        &self,
        supply: &dyn Supply,
        origin: &str,
        alone: &MutexGuard<'_, ()>,
    ) -> Result<(), Refusal> {
        let sleeper = self.changing().asleep.iter().find(|sleeper| *sleeper.origin == *origin).cloned();
        let Some(Sleeper { cards, memory, .. }) = sleeper else { return Ok(()) };
        while !supply.has_room(&memory) {
            let mut idle = self.idle(Duration::ZERO).into_iter();
            if !idle.any(|member| self.put_to_sleep(member, Cause::Memory, alone)) {
                let reason = format!("memory has no room for '{}' beside what is used now", name_of(&cards));
                return Err(Refusal::NotReady { reason });
            }
        }
        Ok(())
    }

    /// Those that can be loaded again and that nobody has asked for so long nor is about to, the longest ago first. The time of
    /// those that have something to do begins when it has ended.
    fn idle(&self, after: Duration) -> Vec<Member> {
        let is_idle = |member: &Member| {
            let load = member.inference.status().load;
            if (load.queued, load.running) != (0, 0) {
                self.ask(member);
                return false;
            }
            let idle = self.millis().saturating_sub(member.asked_at());
            Duration::from_millis(idle) >= after && !member.hands.are_raised() && member.origin.is_some()
        };
        let mut idle: Vec<Member> = self.all().into_iter().filter(is_idle).collect();
        idle.sort_by_key(Member::asked_at);
        idle
    }

    /// Says whether it was: somebody may ask for it again, or have unloaded it. Nobody loads it before it has gone.
    fn put_to_sleep(&self, member: Member, cause: Cause, _alone: &MutexGuard<'_, ()>) -> bool {
        let Some(origin) = member.origin.clone() else { return false };
        let status = member.inference.status();
        let mut memory = MemoryPlan::default();
        status.models.iter().for_each(|model| memory += model.memory);
        let mut serving = self.serving.write().unwrap_or_else(PoisonError::into_inner);
        let place = serving.iter().position(|other| Arc::ptr_eq(&other.cards, &member.cards));
        let Some(place) = place.filter(|_| !member.hands.are_raised()) else { return false };
        serving.remove(place);
        let mut changing = self.changing();
        changing.asleep.push(Sleeper {
            cards: Arc::clone(&member.cards),
            origin,
            rank: member.rank,
            queue_capacity: status.load.queue_capacity,
            hands: member.hands.clone(),
            memory,
        });
        let (slept, why) = match cause {
            Cause::Idle => (&mut changing.slept.idle, "nobody asks for it"),
            Cause::Memory => (&mut changing.slept.short, "memory is short"),
        };
        *slept += 1;
        drop((changing, serving));
        tracing::info!(model = member.name(), why, "a model was put to sleep");
        self.end(member, Instant::now() + PARTING);
        true
    }

    /// Wakes a model no more, and says whether it slept.
    pub(super) fn forget_sleeper(&self, model: &str) -> bool {
        let asleep = &mut self.changing().asleep;
        let before = asleep.len();
        asleep.retain(|sleeper| !has(&sleeper.cards, model));
        asleep.len() < before
    }
}
