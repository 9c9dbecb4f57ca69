//! One run that several requests hear.
//!
//! There is no task behind it. Whoever polls its reader reads the run on for all of them, and a wake-up of the run wakes
//! them all, so the run goes on as long as one of them listens, at the pace of the fastest.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures::{Stream, StreamExt};
use protocol::{Event, Generation, RequestId, Reused};

use super::{Landing, Slot};

/// A run with everything that was heard of it. Bounded by what the request itself may say.
pub(super) struct Flight {
    model: String,
    pub(super) prompt_tokens: u32,
    pub(super) reasons_at_once: bool,
    state: Mutex<State>,
    /// Who waits for news, by reader.
    waiting: Arc<Waiting>,
}

struct State {
    /// The run, until it has ended or everyone has left.
    generation: Option<Generation>,
    heard: Vec<Event>,
    readers: usize,
    /// Numbers readers.
    next: u64,
}

#[derive(Default)]
struct Waiting {
    wakers: Mutex<HashMap<u64, Waker>>,
}

impl Waiting {
    fn wakers(&self) -> MutexGuard<'_, HashMap<u64, Waker>> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        let all = std::mem::take(&mut *self.wakers());
        all.into_values().for_each(Waker::wake);
    }
}

impl Flight {
    /// A run that was admitted.
    pub(super) fn new(generation: Generation) -> Self {
        Self {
            model: generation.model.clone(),
            prompt_tokens: generation.prompt_tokens,
            reasons_at_once: generation.reasons_at_once,
            state: Mutex::new(State { generation: Some(generation), heard: Vec::new(), readers: 0, next: 0 }),
            waiting: Arc::default(),
        }
    }

    pub(super) fn model(&self) -> &str {
        &self.model
    }

    /// The run as one of its readers hears it.
    pub(super) fn generation(&self, id: RequestId, reused: Option<Reused>, reader: Reader) -> Generation {
        let mut generation = Generation::new(id, self.model.clone(), self.prompt_tokens, reader);
        generation.reasons_at_once = self.reasons_at_once;
        generation.reused = reused;
        generation
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request's way through a run.
pub(super) struct Reader {
    slot: Arc<Slot>,
    landing: Landing,
    number: u64,
    /// Events that it has heard.
    at: usize,
}

impl Reader {
    /// Listens from the beginning; `None` if the run has ended or was left by everyone.
    pub(super) fn join(slot: Arc<Slot>, landing: Landing) -> Option<Self> {
        let number = {
            let mut state = slot.get()?.state();
            state.generation.as_ref()?;
            state.readers += 1;
            state.next += 1;
            state.next
        };
        Some(Self { slot, landing, number, at: 0 })
    }
}

impl Stream for Reader {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let this = &mut *self;
        let Some(flight) = this.slot.get() else { return Poll::Ready(None) };
        let mut state = flight.state();
        if let Some(event) = state.heard.get(this.at) {
            this.at += 1;
            return Poll::Ready(Some(event.clone()));
        }
        let Some(generation) = &mut state.generation else { return Poll::Ready(None) };
        // Registered before the run is polled, so that news in between wakes this reader too.
        flight.waiting.wakers().insert(this.number, context.waker().clone());
        let all = Waker::from(flight.waiting.clone());
        let Poll::Ready(event) = generation.poll_next_unpin(&mut Context::from_waker(&all)) else {
            return Poll::Pending;
        };
        let is_last = event.as_ref().is_none_or(Event::is_terminal);
        state.heard.extend(event.clone());
        this.at = state.heard.len();
        if is_last {
            state.generation = None;
            if matches!(event, Some(Event::Done { .. })) {
                this.landing.completed(flight, &state.heard);
            }
            this.landing.closed();
        }
        drop(state);
        flight.waiting.wakers().remove(&this.number);
        flight.waiting.clone().wake();
        Poll::Ready(event)
    }
}

impl Drop for Reader {
    /// The last one to leave cancels the run.
    fn drop(&mut self) {
        let Some(flight) = self.slot.get() else { return };
        flight.waiting.wakers().remove(&self.number);
        let left = {
            let mut state = flight.state();
            state.readers -= 1;
            if state.readers == 0 { state.generation.take() } else { None }
        };
        if let Some(generation) = left {
            self.landing.closed();
            drop(generation);
        } else {
            // It may have been this one that was to read the run on.
            flight.waiting.clone().wake();
        }
    }
}
