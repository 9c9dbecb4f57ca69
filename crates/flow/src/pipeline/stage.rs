//! One stage: who may sit in it, how often it tries, and what an item ends in if nothing helps.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep_until};

use super::chain::{Journey, Now, Passing, Step};
use super::failure::Failure;
use super::seats::{Full, Seat, Seats};
use super::turnstile::Turnstile;
use crate::breaker::{Breaker, Pass};
use crate::metrics::{Histogram, shards::Tally};
use crate::random::Random;
use crate::retry::{Attempt, Class, Classify, GiveUp, Retry};
use crate::work::{Cx, Work};

/// What can be seen and changed of a stage from outside, whatever it works on.
pub struct Control {
    pub(super) name: Arc<str>,
    pub(super) index: usize,
    pub(super) seats: Seats,
    /// Places to wait in; without them an item may wait wherever it has a credit for.
    pub(super) places: Option<Semaphore>,
    pub(super) breaker: Option<Breaker>,
    pub(super) counts: Counts,
}

/// What became of those who were in a stage.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) begun: Tally,
    /// From the seat to the outcome, retries and the waits between them included.
    pub(super) latency: Histogram,
    pub(super) errors: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) fallbacks: AtomicU64,
    pub(super) abandoned: AtomicU64,
}

impl Control {
    pub(super) fn new(name: &str, index: usize) -> Self {
        let (seats, counts) = (Seats::unlimited(), Counts::default());
        Self { name: name.into(), index, seats, places: None, breaker: None, counts }
    }

    /// Waits for a seat. The seat of the stage before is kept until there is room to wait in this one.
    async fn sit<'a>(&'a self, before: Option<Seat<'a>>) -> (Option<Seat<'a>>, Instant) {
        let place = match &self.places {
            Some(places) => places.acquire().await.ok(),
            None => None,
        };
        drop(before);
        let seat = self.seats.take().await;
        drop(place);
        (seat, Instant::now())
    }
}

pub(super) type Fallback<I, O> =
    Box<dyn Fn(I, Failure) -> BoxFuture<'static, Result<O, Failure>> + Send + Sync>;

/// How a stage treats its items.
pub(super) struct Rules<I, O> {
    pub(super) timeout: Option<Duration>,
    pub(super) retry: Retry,
    pub(super) turnstile: Option<Turnstile>,
    pub(super) fallback: Option<Fallback<I, O>>,
    /// Makes the item of a further attempt; there is one if anything needs it.
    pub(super) copy: Option<fn(&I) -> I>,
    pub(super) random: Mutex<Random>,
}

impl<I, O> Default for Rules<I, O> {
    fn default() -> Self {
        let random = Mutex::new(Random::unpredictable());
        Self { timeout: None, retry: Retry::never(), turnstile: None, fallback: None, copy: None, random }
    }
}

/// A stage of a pipeline.
pub struct Stage<I, O, W> {
    pub(super) control: Control,
    pub(super) work: W,
    pub(super) rules: Rules<I, O>,
    usual: Usual,
}

/// How an attempt went wrong.
enum Fault<E> {
    Error(E),
    Panic(String),
    Timeout,
    Open(Duration),
    /// The deadline had passed before the attempt.
    Late,
}

impl<E: Classify> Fault<E> {
    /// A closed circuit means not to call, so an open one is not waited for.
    fn class(&self) -> Class {
        match self {
            Self::Error(error) => error.class(),
            Self::Timeout => Class::Transient,
            Self::Panic(_) | Self::Open(_) | Self::Late => Class::Permanent,
        }
    }
}

/// How long a first attempt takes that succeeds, smoothed over the last ones. It stands apart from what else a stage has,
/// because all who read that would otherwise wait for those who write this.
#[derive(Default)]
#[repr(align(128))]
struct Usual {
    nanos: AtomicU64,
}

/// In nanoseconds.
const NOTABLE: u64 = 50_000;

impl Usual {
    /// An estimate that is right to an eighth, or to less than a deadline cares for, is left alone: reading is much
    /// cheaper than writing. Two who write at once may overwrite each other's share, which an estimate can bear.
    fn learn(&self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let known = self.nanos.load(Relaxed);
        if known == 0 {
            self.nanos.store(took, Relaxed);
        } else if known.abs_diff(took) > NOTABLE.max(known / 8) {
            self.nanos.store(known - known / 8 + took / 8, Relaxed);
        }
    }

    fn time(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Relaxed))
    }
}

/// A visit to a stage; one that ends without a word was abandoned.
struct Visit<'a> {
    counts: &'a Counts,
    since: Instant,
    is_over: bool,
}

impl Visit<'_> {
    /// Notes its end, and says how long it took.
    fn ends(mut self, now: Instant) -> Duration {
        self.is_over = true;
        let took = now.saturating_duration_since(self.since);
        self.counts.latency.record(took);
        took
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.counts.abandoned.fetch_add(1, Relaxed);
        }
    }
}

impl<I, W> Step<I> for Stage<I, W::Out, W>
where
    I: Send + 'static,
    W: Work<I>,
{
    type Out = W::Out;

    async fn pass<'a>(
        &'a self,
        journey: &'a Journey,
        on: Passing<'a, I>,
    ) -> Result<Passing<'a, W::Out>, Box<Failure>> {
        let control = &self.control;
        journey.reaches(control.index);
        let (seat, mut began) = match control.seats.try_take() {
            Ok(seat) => {
                drop(on.seat);
                (seat, on.at)
            }
            // Boxed, like everything that few items come to: what a future has room for, every item pays for.
            Err(Full) => Box::pin(control.sit(on.seat)).await,
        };
        control.counts.begun.add(1);
        let visit = Visit { counts: &control.counts, since: began, is_over: false };
        let spare = self.spare(&on.item, 1);
        let (outcome, seat) = match self.attempt(self.cx(journey, 1), on.item, &mut began).await {
            Ok((item, at)) => {
                let took = visit.ends(at);
                if self.rules.retry.allows_after(1) {
                    self.usual.learn(took);
                }
                return Ok(Passing { item, seat, at });
            }
            Err(fault) => Box::pin(self.try_again(journey, fault, spare, seat)).await,
        };
        match outcome {
            Ok((item, at)) => {
                visit.ends(at);
                Ok(Passing { item, seat, at })
            }
            Err(failure) => {
                visit.ends(Instant::now());
                control.counts.errors.fetch_add(1, Relaxed);
                Err(Box::new(failure))
            }
        }
    }

    fn show<'a>(&'a self, controls: &mut Vec<&'a Control>) {
        controls.push(&self.control);
    }

    fn only(&self) -> Option<&dyn Now<I, W::Out>> {
        // What may have to wait before an attempt or after it takes the way on which it can.
        let is_plain = self.rules.turnstile.is_none() && self.rules.copy.is_none();
        (is_plain && self.control.breaker.is_none()).then_some(self)
    }
}

impl<I, W> Now<I, W::Out> for Stage<I, W::Out, W>
where
    I: Send + 'static,
    W: Work<I>,
{
    fn pass_now(&self, item: I, at: Instant) -> Result<Result<W::Out, Box<Failure>>, I> {
        let control = &self.control;
        let Ok(_seat) = control.seats.try_take() else { return Err(item) };
        control.counts.begun.add(1);
        let mut visit = Visit { counts: &control.counts, since: at, is_over: false };
        let cx = Cx { stage: &control.name, attempt: 1, deadline: None };
        let fault = match catch_unwind(AssertUnwindSafe(|| self.work.call_now(cx, item))) {
            Ok(Ok(Ok(out))) => {
                visit.ends(Instant::now());
                return Ok(Ok(out));
            }
            Ok(Ok(Err(error))) => Fault::Error(error),
            Ok(Err(item)) => {
                visit.is_over = true;
                control.counts.begun.take(1);
                return Err(item);
            }
            Err(panic) => Fault::Panic(message(panic.as_ref())),
        };
        visit.ends(Instant::now());
        control.counts.errors.fetch_add(1, Relaxed);
        Ok(Err(Box::new(self.failure(fault, 1))))
    }
}

impl<I, W> Stage<I, W::Out, W>
where
    I: Send + 'static,
    W: Work<I>,
{
    pub(super) fn new(control: Control, work: W) -> Self {
        Self { control, work, rules: Rules::default(), usual: Usual::default() }
    }

    fn cx<'a>(&'a self, journey: &Journey, attempt: u32) -> Cx<'a> {
        Cx { stage: &self.control.name, attempt, deadline: journey.deadline }
    }

    /// Goes on after the first attempt has failed, as often as it may. The seat is given up while nothing is being
    /// tried.
    async fn try_again<'a>(
        &'a self,
        journey: &'a Journey,
        mut fault: Fault<W::Err>,
        mut spare: Option<I>,
        mut seat: Option<Seat<'a>>,
    ) -> (Result<(W::Out, Instant), Failure>, Option<Seat<'a>>) {
        let mut number = 1;
        loop {
            let (item, wait) = match (spare, self.wait_after(&fault, self.cx(journey, number))) {
                (Some(item), Ok(wait)) => (item, wait),
                (spare, _) => return (self.give_up(fault, number, spare).await, seat),
            };
            drop(seat);
            self.control.counts.retries.fetch_add(1, Relaxed);
            tokio::time::sleep(wait).await;
            let (taken, mut began) = self.control.sit(None).await;
            (seat, number) = (taken, number + 1);
            spare = self.spare(&item, number);
            match self.attempt(self.cx(journey, number), item, &mut began).await {
                Ok(out) => return (Ok(out), seat),
                Err(failed) => fault = failed,
            }
        }
    }

    /// A copy of the item, if this attempt may be followed by something that needs one.
    fn spare(&self, item: &I, number: u32) -> Option<I> {
        let is_needed = self.rules.fallback.is_some() || self.rules.retry.allows_after(number);
        self.rules.copy.filter(|_| is_needed).map(|copy| copy(item))
    }

    /// One attempt, which begins at `began` unless it has to wait for its turn.
    async fn attempt(
        &self,
        cx: Cx<'_>,
        item: I,
        began: &mut Instant,
    ) -> Result<(W::Out, Instant), Fault<W::Err>> {
        if let Some(turnstile) = &self.rules.turnstile {
            *began = Box::pin(turnstile.pass()).await;
        }
        if cx.deadline.is_some_and(|deadline| deadline <= *began) {
            return Err(Fault::Late);
        }
        let pass = match &self.control.breaker {
            Some(breaker) => Some(breaker.admit(*began).map_err(|open| Fault::Open(open.retry_after))?),
            None => None,
        };
        let call = pin!(async { self.work.call(cx, item).await });
        let outcome = watched(self.rules.timeout.map(|timeout| *began + timeout), call).await;
        let now = Instant::now();
        self.learn(pass, &outcome, now);
        outcome.map(|out| (out, now))
    }

    /// Tells those who watch how an attempt went.
    fn learn(&self, pass: Option<Pass>, outcome: &Result<W::Out, Fault<W::Err>>, now: Instant) {
        if outcome.is_ok() {
            self.rules.retry.succeeded(now);
        }
        let Some(pass) = pass else { return };
        match outcome {
            Err(Fault::Panic(_) | Fault::Timeout) => pass.failed(now),
            // An error that would come again says that the item is wrong, not that the callee is unwell.
            Err(Fault::Error(error)) if error.class() != Class::Permanent => pass.failed(now),
            _ => pass.succeeded(now),
        }
    }

    fn wait_after(&self, fault: &Fault<W::Err>, cx: Cx<'_>) -> Result<Duration, GiveUp> {
        let attempt = Attempt {
            number: cx.attempt,
            class: fault.class(),
            failed_at: Instant::now(),
            deadline: cx.deadline,
            usual: self.usual.time(),
        };
        let mut random = self.rules.random.lock().unwrap_or_else(PoisonError::into_inner);
        self.rules.retry.after(attempt, &mut random)
    }

    /// What the item ends in: the fallback's answer, if there is one and it is still of use.
    async fn give_up(
        &self,
        fault: Fault<W::Err>,
        attempts: u32,
        spare: Option<I>,
    ) -> Result<(W::Out, Instant), Failure> {
        let failure = self.failure(fault, attempts);
        let (Some(fallback), Some(item)) = (&self.rules.fallback, spare) else { return Err(failure) };
        if matches!(failure, Failure::Expired { .. }) {
            return Err(failure);
        }
        self.control.counts.fallbacks.fetch_add(1, Relaxed);
        let answer = AssertUnwindSafe(async { fallback(item, failure).await }).catch_unwind().await;
        let stage = || self.control.name.clone();
        let answer = answer.unwrap_or_else(|panic| {
            Err(Failure::Panicked { stage: stage(), message: message(panic.as_ref()) })
        });
        answer.map(|out| (out, Instant::now()))
    }

    fn failure(&self, fault: Fault<W::Err>, attempts: u32) -> Failure {
        let stage = self.control.name.clone();
        match fault {
            Fault::Error(error) => {
                Failure::Failed { stage, attempts, class: error.class(), cause: Box::new(error) }
            }
            Fault::Panic(message) => Failure::Panicked { stage, message },
            Fault::Timeout => {
                Failure::TimedOut { stage, after: self.rules.timeout.unwrap_or_default(), attempts }
            }
            Fault::Open(retry_after) => Failure::Open { stage, retry_after },
            Fault::Late => Failure::Expired { stage: Some(stage) },
        }
    }
}

/// One call, whose panic and whose taking too long are its outcome.
async fn watched<O, E>(
    moment: Option<Instant>,
    mut call: Pin<&mut impl Future<Output = Result<O, E>>>,
) -> Result<O, Fault<E>> {
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx))) {
            Ok(Poll::Ready(outcome)) => return Poll::Ready(outcome.map_err(Fault::Error)),
            Ok(Poll::Pending) => {}
            Err(panic) => return Poll::Ready(Err(Fault::Panic(message(panic.as_ref())))),
        }
        let Some(moment) = moment else { return Poll::Pending };
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(moment)));
        timer.as_mut().poll(cx).map(|()| Err(Fault::Timeout))
    })
    .await
}

/// What a panic said.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let literal = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    literal.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
