//! Where outcomes of a run wait until they are taken.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Waker};

use super::{Arrival, Failure};

/// Outcomes that drivers have brought and the owner of the run has not yet seen.
pub(super) struct Home<Out> {
    state: Mutex<(Vec<Arrival<Out>>, Option<Waker>)>,
}

impl<Out> Default for Home<Out> {
    fn default() -> Self {
        Self { state: Mutex::new((Vec::new(), None)) }
    }
}

impl<Out> Home<Out> {
    /// Brings outcomes: one lock and at most one wake-up for all of them.
    pub(super) fn bring(&self, arrivals: &mut Vec<Arrival<Out>>) {
        if arrivals.is_empty() {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0.is_empty() {
            std::mem::swap(&mut state.0, arrivals);
        } else {
            state.0.append(arrivals);
        }
        let waker = state.1.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Moves what is there into `order` and says whether there was something; if not, the task is woken when there is.
    pub(super) fn collect(&self, order: &mut Order<Out>, cx: &Context<'_>) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0.is_empty() {
            state.1 = Some(cx.waker().clone());
            return false;
        }
        let arrivals = std::mem::take(&mut state.0);
        drop(state);
        order.add(arrivals);
        true
    }
}

/// In which order outcomes are given out, and those that wait for it.
pub(super) enum Order<Out> {
    AsCompleted(std::vec::IntoIter<Arrival<Out>>),
    /// `waiting[k]` is the outcome of item `next + k`, if it is there.
    AsRead {
        next: u64,
        waiting: VecDeque<Option<Result<Out, Box<Failure>>>>,
    },
}

impl<Out> Order<Out> {
    pub(super) fn as_completed() -> Self {
        Self::AsCompleted(Vec::new().into_iter())
    }

    pub(super) fn as_read() -> Self {
        Self::AsRead { next: 0, waiting: VecDeque::new() }
    }

    /// The outcome whose turn it is, if it is there.
    pub(super) fn next(&mut self) -> Option<Result<Out, Failure>> {
        let outcome = match self {
            Self::AsCompleted(arrivals) => arrivals.next().map(|arrival| arrival.outcome),
            Self::AsRead { next, waiting } => {
                waiting.front().is_some_and(Option::is_some).then(|| *next += 1)?;
                waiting.pop_front().flatten()
            }
        };
        outcome.map(|outcome| outcome.map_err(|failure| *failure))
    }

    /// Adds outcomes. Those that are given out as they come are only added when all before have been given out.
    fn add(&mut self, arrived: Vec<Arrival<Out>>) {
        match self {
            Self::AsCompleted(arrivals) => *arrivals = arrived.into_iter(),
            Self::AsRead { next, waiting } => {
                for Arrival { index, outcome } in arrived {
                    let place = (index - *next) as usize;
                    if waiting.len() <= place {
                        waiting.resize_with(place + 1, || None);
                    }
                    waiting[place] = Some(outcome);
                }
            }
        }
    }
}
