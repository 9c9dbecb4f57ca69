//! Computing once what is asked for several times.
//!
//! [`Reuse`] stands before any [`Inference`]. Requests that are the same and whose answer is determined (greedy, or with
//! a seed) share one run while it goes on: each hears all of it from the beginning, and the run is cancelled when the
//! last of them has gone. Answers that were given whole can be kept, within a bound of bytes and of age, and given again.
//! Only the same tenant shares. Whoever asks for it may also be given the kept answer to a prompt that is *similar*; that
//! is marked, since nobody can promise that it is the right one.
//!
//! This is sound because the same request gives the same bytes whatever else is running: nobody can tell a shared
//! answer from an own one, but for the time it takes.

mod flight;
mod kept;
mod key;
mod likeness;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use protocol::status::ReuseStatus;
use protocol::{
    Adjustment, EmbedRequest, Embeddings, Event, GenerateRequest, Generation, Inference, ModelCard, Refusal,
    Relief, Reused, ScoreRequest, Scores, Sharing, Status, Unserved,
};
use tokio::sync::OnceCell;

use crate::clock::{Clock, SystemClock};
use flight::{Flight, Reader};
use kept::{Answer, Kept};
use key::Key;

/// What is reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReuseSettings {
    /// Whether requests share a run that goes on.
    pub coalescing: Coalescing,
    /// Bytes of answers that are kept; 0 keeps none.
    pub kept_bytes: usize,
    /// How long an answer is kept.
    pub kept_for: Duration,
}

/// Whether requests share a run that goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coalescing {
    /// They do, if they are the same and determined.
    #[default]
    On,
    /// Every request is run.
    Off,
}

impl Default for ReuseSettings {
    fn default() -> Self {
        Self { coalescing: Coalescing::On, kept_bytes: 0, kept_for: Duration::from_secs(600) }
    }
}

/// An [`Inference`] that computes once what is asked for several times.
pub struct Reuse {
    inner: Arc<dyn Inference>,
    coalescing: Coalescing,
    shared: Arc<Shared>,
}

/// What runs and what is kept.
struct Shared {
    clock: Arc<dyn Clock>,
    flights: Mutex<HashMap<Key, Arc<Slot>>>,
    kept: Mutex<Kept>,
    /// Bytes that answers may take while memory is not short.
    allowed: AtomicUsize,
    joined: AtomicU64,
    asked: AtomicU64,
    same: AtomicU64,
    similar: AtomicU64,
}

/// A place for a run: it is empty until the first of those who wait has been admitted. If that one gives up, the next
/// one asks to be admitted.
type Slot = OnceCell<Flight>;

impl Reuse {
    /// Stands before `inner`.
    pub fn new(inner: Arc<dyn Inference>, settings: ReuseSettings) -> Self {
        Self::timed(inner, settings, Arc::new(SystemClock::new()))
    }

    pub(crate) fn timed(inner: Arc<dyn Inference>, settings: ReuseSettings, clock: Arc<dyn Clock>) -> Self {
        let kept = Mutex::new(Kept::new(settings.kept_bytes, settings.kept_for));
        let shared = Shared {
            clock,
            flights: Mutex::default(),
            kept,
            allowed: AtomicUsize::new(settings.kept_bytes),
            joined: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            same: AtomicU64::new(0),
            similar: AtomicU64::new(0),
        };
        Self { inner, coalescing: settings.coalescing, shared: Arc::new(shared) }
    }

    async fn answer(&self, request: GenerateRequest) -> Result<Generation, Refusal> {
        if request.sharing == Sharing::None {
            return self.inner.generate(request).await;
        }
        let key = Key::of(&request);
        if let Some((answer, reused)) = self.shared.look_up(&key, request.sharing) {
            return Ok(answer.replay(request.id, reused));
        }
        let is_shared =
            key.is_determined() && self.coalescing == Coalescing::On && request.deadline.is_none();
        if !is_shared {
            return self.alone(request, key).await;
        }
        loop {
            let slot = self.shared.flights().entry(key.clone()).or_default().clone();
            let mut leads = false;
            let take_off = async {
                leads = true;
                self.inner.generate(request.clone()).await.map(Flight::new)
            };
            let flight = match slot.get_or_try_init(|| take_off).await {
                Ok(flight) => flight,
                Err(refusal) => {
                    self.shared.forget(&key, &slot);
                    return Err(refusal);
                }
            };
            let landing = Landing { shared: self.shared.clone(), key: key.clone(), slot: slot.clone() };
            let Some(reader) = Reader::join(slot.clone(), landing) else {
                // Everyone had left it, or it had ended, before this one came.
                self.shared.forget(&key, &slot);
                continue;
            };
            let reused = if leads { None } else { Some(Reused::InFlight) };
            self.shared.joined.fetch_add(u64::from(!leads), Relaxed);
            return Ok(flight.generation(request.id, reused, reader));
        }
    }

    /// Runs a request that shares its run with nobody; its answer may be kept all the same.
    async fn alone(&self, request: GenerateRequest, key: Key) -> Result<Generation, Refusal> {
        let keeps =
            self.shared.kept().is_on() && (key.is_determined() || request.sharing != Sharing::Identical);
        let id = request.id.clone();
        let generation = self.inner.generate(request).await?;
        if !keeps {
            return Ok(generation);
        }
        let slot = Arc::new(Slot::new_with(Some(Flight::new(generation))));
        let landing = Landing { shared: self.shared.clone(), key, slot: slot.clone() };
        let (Some(flight), Some(reader)) = (slot.get(), Reader::join(slot.clone(), landing)) else {
            unreachable!("a flight that nobody else knows has neither ended nor been left");
        };
        Ok(flight.generation(id, None, reader))
    }
}

impl Shared {
    fn flights(&self) -> MutexGuard<'_, HashMap<Key, Arc<Slot>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kept answer to the same request, or to a similar one if that will do.
    fn look_up(&self, key: &Key, sharing: Sharing) -> Option<(Arc<Answer>, Reused)> {
        let mut kept = self.kept();
        if !kept.is_on() {
            return None;
        }
        self.asked.fetch_add(1, Relaxed);
        let now = self.clock.now();
        if key.is_determined()
            && let Some(answer) = kept.same(key, now)
        {
            self.same.fetch_add(1, Relaxed);
            return Some((answer, Reused::Kept));
        }
        let Sharing::Similar { least } = sharing else { return None };
        let (answer, likeness) = kept.similar(key, least, now)?;
        self.similar.fetch_add(1, Relaxed);
        Some((answer, Reused::Similar { likeness }))
    }

    /// Lets nobody join this run any more.
    fn forget(&self, key: &Key, slot: &Arc<Slot>) {
        if let Entry::Occupied(entry) = self.flights().entry(key.clone())
            && Arc::ptr_eq(entry.get(), slot)
        {
            entry.remove();
        }
    }
}

/// Forgets all kept answers when it is dropped.
struct Forgetting<'a>(&'a Shared);

impl Drop for Forgetting<'_> {
    fn drop(&mut self) {
        self.0.kept().clear();
    }
}

/// What is to be done when a run ends or everyone has left it.
struct Landing {
    shared: Arc<Shared>,
    key: Key,
    slot: Arc<Slot>,
}

impl Landing {
    /// Nobody listens any more, or there is nothing more to hear.
    fn closed(&self) {
        self.shared.forget(&self.key, &self.slot);
    }

    /// The answer was given whole.
    fn completed(&self, flight: &Flight, events: &[Event]) {
        let mut kept = self.shared.kept();
        if kept.is_on() {
            kept.put(self.key.clone(), Answer::of(flight, events), self.shared.clock.now());
        }
    }
}

impl Inference for Reuse {
    fn models(&self) -> Vec<ModelCard> {
        self.inner.models()
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<Generation, Refusal>> {
        self.answer(request).boxed()
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, Unserved>> {
        self.inner.embed(request)
    }

    fn score(&self, request: ScoreRequest) -> BoxFuture<'_, Result<Scores, Unserved>> {
        self.inner.score(request)
    }

    fn status(&self) -> Status {
        let kept = self.shared.kept();
        let reuse = ReuseStatus {
            joined: self.shared.joined.load(Relaxed),
            asked: self.shared.asked.load(Relaxed),
            same: self.shared.same.load(Relaxed),
            similar: self.shared.similar.load(Relaxed),
            kept: kept.len() as u64,
            kept_bytes: kept.bytes() as u64,
            kept_bytes_limit: kept.capacity() as u64,
        };
        Status { reuse, ..self.inner.status() }
    }

    fn adjust(&self, adjustment: Adjustment) -> BoxFuture<'_, Result<(), Refusal>> {
        match adjustment {
            Adjustment::ClearResults => self.shared.kept().clear(),
            Adjustment::KeepResults { bytes } => {
                self.shared.allowed.store(bytes, Relaxed);
                self.shared.kept().resize(bytes);
            }
            Adjustment::Relief(relief) => {
                let is_short = relief >= Relief::Results;
                self.shared.kept().resize(if is_short { 0 } else { self.shared.allowed.load(Relaxed) });
                return self.inner.adjust(adjustment);
            }
            other @ (Adjustment::Load { .. } | Adjustment::Unload { .. }) => {
                // A name may stand for another model then. Answers that the old one still gives are forgotten in the end.
                let forgetting = Forgetting(&self.shared);
                let adjusted = self.inner.adjust(other);
                return async move {
                    let _forgetting = forgetting;
                    adjusted.await
                }
                .boxed();
            }
            other => return self.inner.adjust(other),
        }
        futures::future::ready(Ok(())).boxed()
    }

    fn drain(&self) -> BoxFuture<'_, ()> {
        self.inner.drain()
    }
}
