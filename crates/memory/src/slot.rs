//! A place for one answer: filled once by one thread, waited for by another, as a thread or as a task.

use std::task::{Context, Poll, Waker};

use super::sync::{Condvar, Mutex, lock, wait};

/// A place for one answer.
pub(crate) struct Slot<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
}

enum State<T> {
    Empty(Option<Waker>),
    Filled(T),
    Taken,
}

impl<T> Slot<T> {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State::Empty(None)), filled: Condvar::new() }
    }

    /// Puts the answer there; what is filled already stays.
    pub(crate) fn fill(&self, answer: T) {
        let mut state = lock(&self.state);
        let State::Empty(waker) = &mut *state else { return };
        let waker = waker.take();
        *state = State::Filled(answer);
        drop(state);
        self.filled.notify_all();
        waker.into_iter().for_each(Waker::wake);
    }

    /// Whether it was filled.
    pub(crate) fn is_done(&self) -> bool {
        !matches!(*lock(&self.state), State::Empty(_))
    }

    /// Waits for the answer. There is none if it was taken already.
    pub(crate) fn wait(&self) -> Option<T> {
        let mut state = lock(&self.state);
        while matches!(*state, State::Empty(_)) {
            state = wait(&self.filled, state);
        }
        take(&mut state)
    }

    /// The answer, or whoever is to be woken for it.
    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<Option<T>> {
        let mut state = lock(&self.state);
        match &mut *state {
            State::Empty(waker) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(take(&mut state)),
        }
    }
}

fn take<T>(state: &mut State<T>) -> Option<T> {
    match std::mem::replace(state, State::Taken) {
        State::Filled(answer) => Some(answer),
        _ => None,
    }
}
