//! The stream of a request that may be asked of another replica until it is started.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use protocol::{Event, GenerateRequest, Generation, Refusal, Timing};

use super::Shared;

/// What a request counts for in the load of a replica; dropping it takes it off.
pub(super) struct Place {
    shared: Arc<Shared>,
    ticket: u64,
    at: usize,
}

impl Place {
    pub(super) fn take(shared: &Arc<Shared>, at: usize, weight: u64) -> Self {
        let ticket = shared.book().enter(at, weight);
        Self { shared: Arc::clone(shared), ticket, at }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let woken = self.shared.book().leave(self.ticket);
        woken.into_iter().for_each(Waker::wake);
    }
}

/// A request on its way to being accepted by another replica.
type Asking = (usize, BoxFuture<'static, Result<Generation, Refusal>>);

/// A generation that counts for its replica, and moves if it shall.
pub(super) struct Routed {
    events: Generation,
    place: Place,
    /// What another replica would be asked, until something has been computed.
    request: Option<Box<GenerateRequest>>,
    asking: Option<Asking>,
    /// The same request where another replica has accepted it.
    accepted: Option<(usize, Generation)>,
    began: Instant,
    /// What had passed when the replica accepted it that serves it.
    before: Duration,
}

impl Routed {
    /// The generation of a request that a replica has accepted, as its reader sees it.
    pub(super) fn begin(generation: Generation, request: GenerateRequest, place: Place) -> Generation {
        let (id, model, prompt) = (generation.id.clone(), generation.model.clone(), generation.prompt_tokens);
        let (reasons_at_once, reused) = (generation.reasons_at_once, generation.reused);
        let routed = Self {
            events: generation,
            place,
            request: Some(Box::new(request)),
            asking: None,
            accepted: None,
            began: Instant::now(),
            before: Duration::ZERO,
        };
        let mut routed = Generation::new(id, model, prompt, routed);
        (routed.reasons_at_once, routed.reused) = (reasons_at_once, reused);
        routed
    }

    /// What the reader hears of an event. The first one that is more than waiting makes the request stay.
    fn heard(&mut self, mut event: Event) -> Event {
        if self.request.is_some() && !is_waiting(&event) {
            self.stay();
        }
        if let Event::Done { timing: Timing { queued, first_token, total, .. }, .. } = &mut event {
            [queued, first_token, total].into_iter().for_each(|time| *time += self.before);
        }
        event
    }

    /// No other replica is asked from now on.
    fn stay(&mut self) {
        self.request = None;
        self.withdraw();
        self.place.shared.book().settle(self.place.ticket);
    }

    /// Whoever has been asked and has not answered is told that nobody wants to know.
    fn withdraw(&mut self) {
        if self.asking.take().is_some() {
            self.place.shared.tally().withdrawn();
        }
    }

    /// Asks another replica if that shall be. When this is true it has answered.
    fn has_answer(&mut self, context: &mut Context<'_>) -> bool {
        let Some(request) = &self.request else { return false };
        let Place { shared, ticket, .. } = &self.place;
        let Some(to) = shared.book().wait(*ticket, context.waker()) else { return false };
        let begin = || {
            let (member, mut request) = (Arc::clone(&shared.members[to]), (**request).clone());
            let passed = self.began.elapsed();
            request.deadline = request.deadline.map(|deadline| deadline.saturating_sub(passed));
            (to, async move { member.generate(request).await }.boxed())
        };
        let (_, asked) = self.asking.get_or_insert_with(begin);
        let Poll::Ready(answer) = asked.poll_unpin(context) else { return false };
        self.asking = None;
        match answer {
            Ok(generation) => {
                shared.tally().moved();
                self.accepted = Some((to, generation));
            }
            Err(refusal) => {
                tracing::debug!(%refusal, "a request stays where it waits");
                self.stay();
            }
        }
        true
    }

    /// Goes on with the stream of the replica that has accepted it. Dropping the one so far cancels it there.
    fn go_on(&mut self, (to, generation): (usize, Generation)) {
        self.place.shared.book().arrive(self.place.ticket);
        self.before = self.began.elapsed();
        self.place.at = to;
        self.events = generation;
    }
}

/// Whether nothing has been computed yet.
fn is_waiting(event: &Event) -> bool {
    matches!(event, Event::Queued { .. })
}

impl Drop for Routed {
    fn drop(&mut self) {
        self.withdraw();
    }
}

impl Stream for Routed {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        loop {
            let event = self.events.poll_next_unpin(context);
            let waits = match &event {
                Poll::Pending => true,
                Poll::Ready(event) => event.as_ref().is_some_and(is_waiting),
            };
            // The replica so far may have started it while the other one answered: then it stays, and the other loses it.
            match self.accepted.take() {
                Some(accepted) if waits => self.go_on(accepted),
                _ if event.is_ready() => return event.map(|event| event.map(|event| self.heard(event))),
                _ if self.has_answer(context) => {}
                _ => return Poll::Pending,
            }
        }
    }
}
