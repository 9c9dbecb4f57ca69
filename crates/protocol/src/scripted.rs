//! [`Scripted`]: an [`Inference`] that plays back what a test wrote down, and minds the contract more than an engine.
//!
//! Each accepted request takes the next [`Script`] and plays it; a [`Gate`] in a script holds the reply until the test
//! opens it, so that nothing ever has to sleep. What happened is in the [`Ledger`], and [`Scripted::until`] waits for
//! it. Where an engine would be lenient, this one panics: a request without a script, a script that breaks the
//! contract of [`crate::Event`], a stream polled after its end.
//!
//! Vectors need no script: they count the letters of a text, so that like texts have like vectors. A script that refuses,
//! waits at gates or fails applies to the next request for them too.

mod gate;
mod playback;
mod reading;
mod script;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use futures::future::BoxFuture;

pub use gate::Gate;
pub use script::Script;

use crate::{
    Adjustment, EmbedRequest, Embeddings, GenerateRequest, Generation, Inference, ModelCard, Phase, Refusal,
    RequestId, ScoreRequest, Scores, Status, Task, Unserved,
};
use playback::Playback;
use script::Play;

/// An engine without a model: it answers from scripts.
#[derive(Clone, Default)]
pub struct Scripted {
    stage: Arc<Stage>,
}

#[derive(Default)]
struct Stage {
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    models: Vec<ModelCard>,
    scripts: VecDeque<Script>,
    always: Option<Script>,
    status: Status,
    ledger: Ledger,
    watching: Vec<Waker>,
}

/// What a [`Scripted`] has seen so far.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Every accepted request, oldest first.
    pub accepted: Vec<GenerateRequest>,
    /// Every accepted request for vectors, oldest first.
    pub embeds: Vec<EmbedRequest>,
    /// Every accepted request for scores, oldest first.
    pub scores: Vec<ScoreRequest>,
    /// Requests that were refused.
    pub refused: u64,
    /// Requests that have left the queue.
    pub started: u64,
    /// Requests whose last event was read.
    pub ended: Vec<RequestId>,
    /// Requests whose stream was dropped before its last event was read.
    pub cancelled: Vec<RequestId>,
    /// Every adjustment, oldest first.
    pub adjustments: Vec<Adjustment>,
    /// Whether a drain was asked for.
    pub draining: bool,
}

impl Ledger {
    /// Accepted requests that have neither ended nor been cancelled.
    pub fn active(&self) -> usize {
        self.count_accepted() - self.ended.len() - self.cancelled.len()
    }

    /// Accepted requests of all kinds.
    pub fn count_accepted(&self) -> usize {
        self.accepted.len() + self.embeds.len() + self.scores.len()
    }
}

impl Scripted {
    /// One model called `scripted`, ready, with nothing to say yet.
    pub fn new() -> Self {
        Self::with_models(vec![ModelCard {
            id: "scripted".to_owned(),
            family: "scripted".to_owned(),
            context: 4096,
            vocabulary: 32_000,
            parameters: 1_000,
            dtype: "f32".to_owned(),
            chat: true,
            tasks: vec![Task::Generate, Task::Embed, Task::Score],
            dimensions: Some(reading::WIDTH),
            reasoning: None,
            calls: None,
            created: 1_700_000_000,
        }])
    }

    /// The same with other models; the first is the default.
    pub fn with_models(models: Vec<ModelCard>) -> Self {
        let scripted = Self::default();
        scripted.stage.change(|inside| {
            inside.models = models;
            inside.status.phase = Phase::Ready;
            inside.status.load.queue_capacity = 512;
        });
        scripted
    }

    /// Answers the next request that has no script yet with `script`.
    #[must_use]
    pub fn then(self, script: Script) -> Self {
        self.stage.change(|inside| inside.scripts.push_back(script));
        self
    }

    /// Answers every request for which [`Scripted::then`] left no script with `script`.
    #[must_use]
    pub fn always(self, script: Script) -> Self {
        self.stage.change(|inside| inside.always = Some(script));
        self
    }

    /// Changes what [`Inference::status`] reports. Running and waiting requests and the accepted, refused and
    /// cancelled counters are counted, whatever is set here.
    pub fn set_status(&self, change: impl FnOnce(&mut Status)) {
        self.stage.change(|inside| change(&mut inside.status));
    }

    /// What has happened until now.
    pub fn ledger(&self) -> Ledger {
        self.stage.lock().ledger.clone()
    }

    /// Resolves when the ledger satisfies `condition`, which is looked at after every change.
    pub fn until<C>(&self, condition: C) -> impl Future<Output = ()> + Send + use<C>
    where
        C: Fn(&Ledger) -> bool + Send + 'static,
    {
        let stage = Arc::clone(&self.stage);
        poll_fn(move |context| {
            let mut inside = stage.lock();
            if condition(&inside.ledger) {
                return Poll::Ready(());
            }
            inside.watching.push(context.waker().clone());
            Poll::Pending
        })
    }

    fn admit(&self, request: GenerateRequest) -> Result<Generation, Refusal> {
        let outcome = self.stage.change(|inside| {
            let outcome = inside.admit(&request);
            match &outcome {
                Ok(_) => inside.ledger.accepted.push(request.clone()),
                Err(_) => inside.ledger.refused += 1,
            }
            outcome
        });
        let (model, play) = outcome?;
        let (prompt_tokens, reasons_at_once) = (play.prompt_tokens, play.reasons_at_once);
        let playback = Playback::new(Arc::clone(&self.stage), request.id.clone(), play);
        let mut generation = Generation::new(request.id, model, prompt_tokens, playback);
        generation.reasons_at_once = reasons_at_once;
        Ok(generation)
    }
}

impl Stage {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        // A test that panicked while it held the lock must not hide its own message behind a poisoned mutex.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Inside) -> T) -> T {
        let (outcome, watching) = {
            let mut inside = self.lock();
            let outcome = change(&mut inside);
            (outcome, std::mem::take(&mut inside.watching))
        };
        watching.into_iter().for_each(Waker::wake);
        outcome
    }
}

impl Inside {
    fn admit(&mut self, request: &GenerateRequest) -> Result<(String, Play), Refusal> {
        if self.ledger.draining || self.status.phase != Phase::Ready {
            return Err(Refusal::NotReady { reason: "it takes no requests".to_owned() });
        }
        let model = self.model(request.model.as_deref(), Task::Generate)?;
        let script = self.scripts.pop_front().or_else(|| self.always.clone());
        let script = script.unwrap_or_else(|| panic!("there is no script for request {:?}", request.id.0));
        script.play(request).map(|play| (model, play))
    }

    fn model(&self, name: Option<&str>, task: Task) -> Result<String, Refusal> {
        let able = || self.models.iter().filter(|card| card.can(task)).map(|card| card.id.clone());
        let Some(name) = name else {
            let unable = || Refusal::Unable { model: String::new(), task, able: Vec::new() };
            return able().next().ok_or_else(unable);
        };
        match self.models.iter().find(|card| card.id == name) {
            Some(card) if card.can(task) => Ok(name.to_owned()),
            Some(_) => Err(Refusal::Unable { model: name.to_owned(), task, able: able().collect() }),
            None => Err(Refusal::UnknownModel {
                model: name.to_owned(),
                near: self.models.iter().map(|card| card.id.clone()).collect(),
            }),
        }
    }
}

impl Inference for Scripted {
    fn models(&self) -> Vec<ModelCard> {
        self.stage.lock().models.clone()
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<Generation, Refusal>> {
        Box::pin(async move { self.admit(request) })
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, Unserved>> {
        Box::pin(reading::embed(Arc::clone(&self.stage), request))
    }

    fn score(&self, request: ScoreRequest) -> BoxFuture<'_, Result<Scores, Unserved>> {
        Box::pin(reading::score(Arc::clone(&self.stage), request))
    }

    fn status(&self) -> Status {
        let inside = self.stage.lock();
        let mut status = inside.status.clone();
        let ledger = &inside.ledger;
        let active = ledger.active() as u64;
        let accepted = ledger.count_accepted() as u64;
        let waiting = accepted.saturating_sub(ledger.started);
        status.load.queued += waiting.min(active);
        status.load.running = active - waiting.min(active);
        status.counters.accepted = accepted;
        if ledger.refused > 0 {
            status.counters.refused.push(("scripted".to_owned(), ledger.refused));
        }
        if !ledger.cancelled.is_empty() {
            status.counters.cancelled.push(("scripted".to_owned(), ledger.cancelled.len() as u64));
        }
        status
    }

    fn adjust(&self, adjustment: Adjustment) -> BoxFuture<'_, Result<(), Refusal>> {
        self.stage.change(|inside| inside.ledger.adjustments.push(adjustment));
        Box::pin(async { Ok(()) })
    }

    fn drain(&self) -> BoxFuture<'_, ()> {
        self.stage.change(|inside| {
            inside.ledger.draining = true;
            inside.status.phase = Phase::Draining;
        });
        Box::pin(self.until(|ledger| ledger.active() == 0))
    }
}
