//! The way of an item from admission to its one outcome.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::task::Poll;

use futures::future::BoxFuture;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::{Instant, Sleep, sleep_until};

use super::chain::{Journey, Passing, Step};
use super::failure::Failure;
use super::run::{Exchange, drive};
use super::stage::Control;

/// What a pipeline knows apart from its stages.
pub(super) struct Gate {
    /// One for each item that may be inside. Closed once the pipeline is drained.
    pub(super) credits: Arc<Semaphore>,
    pub(super) limit: u32,
    pub(super) tally: Tally,
    is_closed: AtomicBool,
    is_cut: AtomicBool,
    cut: Notify,
}

/// What became of items.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) accepted: AtomicU64,
    pub(super) completed: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) expired: AtomicU64,
    pub(super) cut: AtomicU64,
    pub(super) cancelled: AtomicU64,
}

impl Tally {
    pub(super) fn settle<T>(&self, outcome: &Result<T, Box<Failure>>) {
        let count = match outcome.as_ref().map_err(|failure| &**failure) {
            Ok(_) => &self.completed,
            Err(Failure::Expired { .. }) => &self.expired,
            Err(Failure::Cut { .. }) => &self.cut,
            Err(_) => &self.failed,
        };
        count.fetch_add(1, Relaxed);
    }
}

/// An accepted item on the books: whatever happens to its future, it is counted as exactly one outcome.
pub(super) struct Entry<'a> {
    tally: &'a Tally,
    is_settled: bool,
}

impl<'a> Entry<'a> {
    /// An item that was counted as accepted.
    pub(super) fn open(tally: &'a Tally) -> Self {
        Self { tally, is_settled: false }
    }

    pub(super) fn settle<T>(&mut self, outcome: &Result<T, Box<Failure>>) {
        self.is_settled = true;
        self.tally.settle(outcome);
    }
}

impl Entry<'_> {
    /// Takes an item off the books that was given back as if it had not come.
    fn strike(mut self) {
        self.is_settled = true;
        self.tally.accepted.fetch_sub(1, Relaxed);
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.tally.cancelled.fetch_add(1, Relaxed);
        }
    }
}

impl Gate {
    pub(super) fn new(limit: u32) -> Self {
        Self {
            credits: Arc::new(Semaphore::new(limit as usize)),
            limit,
            tally: Tally::default(),
            is_closed: AtomicBool::new(false),
            is_cut: AtomicBool::new(false),
            cut: Notify::new(),
        }
    }

    pub(super) fn close(&self) {
        self.is_closed.store(true, SeqCst);
    }

    /// Whether nothing is accepted. Ask with a credit in hand: a drain that has begun waits for all credits, so it
    /// either sees that one or was seen here.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(SeqCst)
    }

    /// Ends every item that is inside the next time it has to wait.
    pub(super) fn cut(&self) {
        self.is_cut.store(true, SeqCst);
        self.cut.notify_waiters();
    }

    /// A credit, when it is this caller's turn.
    pub(super) async fn credit(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let credit = match self.credits.clone().try_acquire_owned() {
            Ok(credit) => credit,
            Err(_) => self.credits.clone().acquire_owned().await.map_err(|_| Failure::Closed)?,
        };
        if self.is_closed() { Err(Failure::Closed) } else { Ok(credit) }
    }

    /// A credit of an item that is walked. One that is there at once, as nearly always, costs neither a future nor a count
    /// of those who hold the semaphore.
    async fn enter(&self, journey: &Journey) -> Result<SemaphorePermit<'_>, Failure> {
        let credit = match self.credits.try_acquire() {
            Ok(credit) => credit,
            Err(_) => {
                let closed = |_| Box::new(Failure::Closed);
                let turn = async { self.credits.acquire().await.map_err(closed) };
                let waits = async { self.watch(journey, |_| Arc::from(""), pin!(turn)).await };
                Box::pin(waits).await.map_err(|failure| *failure)?
            }
        };
        if self.is_closed() { Err(Failure::Closed) } else { Ok(credit) }
    }

    /// Runs a future until the deadline of its journey or until the pipeline is cut short; `name` names the stage
    /// with that index.
    async fn watch<T>(
        &self,
        journey: &Journey,
        name: impl Fn(usize) -> Arc<str>,
        mut future: Pin<&mut impl Future<Output = Result<T, Box<Failure>>>>,
    ) -> Result<T, Box<Failure>> {
        let mut timer: Option<Pin<Box<Sleep>>> = None;
        let mut cut = pin!(None);
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(output);
            }
            let stage = || journey.stage().map(&name);
            if cut.is_none() {
                cut.set(Some(self.cut.notified()));
            }
            let notified = cut.as_mut().as_pin_mut().is_some_and(|cut| cut.poll(cx).is_ready());
            // The flag is set before anybody is notified, and looked at after asking to be: one of the two is seen.
            if notified || self.is_cut.load(SeqCst) {
                return Poll::Ready(Err(Box::new(Failure::Cut { stage: stage() })));
            }
            let Some(deadline) = journey.deadline else { return Poll::Pending };
            let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            timer.as_mut().poll(cx).map(|()| Err(Box::new(Failure::Expired { stage: stage() })))
        })
        .await
    }
}

/// The stages of a pipeline behind its gate.
pub(super) struct Road<S> {
    pub(super) gate: Gate,
    pub(super) steps: S,
    names: Vec<Arc<str>>,
}

impl<S> Road<S> {
    pub(super) fn new<In>(steps: S, limit: u32) -> Self
    where
        S: Step<In>,
    {
        let mut controls = Vec::new();
        steps.show(&mut controls);
        let names = controls.iter().map(|control| control.name.clone()).collect();
        Self { gate: Gate::new(limit), steps, names }
    }

    /// Takes an accepted item through all stages, from `at`.
    pub(super) async fn carry<In>(
        &self,
        item: In,
        journey: Journey,
        at: Instant,
    ) -> (Result<S::Out, Box<Failure>>, Option<Instant>)
    where
        S: Step<In>,
    {
        if journey.is_late(at) {
            return (Err(Box::new(Failure::Expired { stage: None })), None);
        }
        let name = |stage: usize| self.names[stage].clone();
        let pass = pin!(self.steps.pass(&journey, Passing { item, seat: None, at }));
        match self.gate.watch(&journey, name, pass).await {
            Ok(on) => (Ok(on.item), Some(on.at)),
            Err(failure) => (Err(failure), None),
        }
    }
}

/// A road whose stages' types are forgotten.
pub(super) trait Way<In, Out>: Send + Sync {
    fn gate(&self) -> &Gate;

    fn controls(&self) -> Vec<&Control>;

    /// Takes one item through. It is accepted once it has a credit, which it may bring along.
    fn walk(
        self: Arc<Self>,
        item: In,
        deadline: Option<Instant>,
        credit: Option<OwnedSemaphorePermit>,
    ) -> BoxFuture<'static, Result<Out, Failure>>;

    /// Takes one item through, or gives it back because it would have to wait.
    fn walk_now(&self, item: In) -> Result<Result<Out, Failure>, In>;

    /// Takes what a run still has to give through, together with whoever else drives it.
    fn drive(self: Arc<Self>, exchange: Arc<Exchange<In, Out>>) -> BoxFuture<'static, ()>;
}

impl<In, S> Way<In, S::Out> for Road<S>
where
    In: Send + 'static,
    S: Step<In>,
{
    fn gate(&self) -> &Gate {
        &self.gate
    }

    fn controls(&self) -> Vec<&Control> {
        let mut controls = Vec::new();
        self.steps.show(&mut controls);
        controls
    }

    fn walk(
        self: Arc<Self>,
        item: In,
        deadline: Option<Instant>,
        credit: Option<OwnedSemaphorePermit>,
    ) -> BoxFuture<'static, Result<S::Out, Failure>> {
        Box::pin(async move {
            let journey = Journey::new(deadline);
            let _own = match &credit {
                Some(_) => None,
                None => Some(self.gate.enter(&journey).await?),
            };
            self.gate.tally.accepted.fetch_add(1, Relaxed);
            let mut entry = Entry::open(&self.gate.tally);
            let (outcome, _) = self.carry(item, journey, Instant::now()).await;
            entry.settle(&outcome);
            outcome.map_err(|failure| *failure)
        })
    }

    fn walk_now(&self, item: In) -> Result<Result<S::Out, Failure>, In> {
        let Some(stage) = self.steps.only() else { return Err(item) };
        let Ok(_credit) = self.gate.credits.try_acquire() else { return Err(item) };
        if self.gate.is_closed() {
            return Err(item);
        }
        self.gate.tally.accepted.fetch_add(1, Relaxed);
        let mut entry = Entry::open(&self.gate.tally);
        match stage.pass_now(item, Instant::now()) {
            Ok(outcome) => {
                entry.settle(&outcome);
                Ok(outcome.map_err(|failure| *failure))
            }
            Err(item) => {
                entry.strike();
                Err(item)
            }
        }
    }

    fn drive(self: Arc<Self>, exchange: Arc<Exchange<In, S::Out>>) -> BoxFuture<'static, ()> {
        Box::pin(drive(self, exchange))
    }
}
