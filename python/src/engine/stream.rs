//! The events of one request, as many at a time as there are.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use futures::StreamExt;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tidegate::protocol::{GenerateRequest, Generation, Inference};

use super::admit;
use crate::answer::Happening;
use crate::awaitable::Awaitable;

/// The events of one request. Dropping or closing it cancels the request.
#[pyclass(frozen)]
pub(crate) struct EventStream {
    place: Arc<Mutex<Place>>,
}

enum Place {
    /// The request has not been sent: it is when the first event is asked for.
    Fresh(Arc<dyn Inference>, Box<GenerateRequest>),
    /// Somebody waits for events and has what there is.
    Away,
    Running(Generation),
    Over,
}

impl EventStream {
    pub(super) fn new(inference: Arc<dyn Inference>, request: GenerateRequest) -> Self {
        Self { place: Arc::new(Mutex::new(Place::Fresh(inference, Box::new(request)))) }
    }
}

fn lock(place: &Mutex<Place>) -> MutexGuard<'_, Place> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The events that are there, one at least; none at the end.
async fn events(place: Arc<Mutex<Place>>) -> PyResult<Vec<Happening>> {
    let taken = std::mem::replace(&mut *lock(&place), Place::Away);
    let mut generation = match taken {
        Place::Fresh(inference, request) => admit(inference, *request).await?,
        Place::Running(generation) => generation,
        Place::Away => {
            return Err(PyRuntimeError::new_err("someone waits for the events of this stream already"));
        }
        Place::Over => {
            *lock(&place) = Place::Over;
            return Ok(Vec::new());
        }
    };
    let mut events = Vec::new();
    let is_over = poll_fn(|context| {
        loop {
            match generation.poll_next_unpin(context) {
                Poll::Ready(Some(event)) => events.push(event),
                Poll::Ready(None) => return Poll::Ready(true),
                Poll::Pending if events.is_empty() => return Poll::Pending,
                Poll::Pending => return Poll::Ready(false),
            }
        }
    })
    .await;
    // It may have been closed meanwhile, which drops the generation here and so cancels the request.
    let mut now = lock(&place);
    if matches!(*now, Place::Away) {
        *now = if is_over { Place::Over } else { Place::Running(generation) };
    }
    drop(now);
    events.into_iter().map(Happening::of).collect()
}

#[pymethods]
impl EventStream {
    /// A list of the events that are there, when there are any; an empty one at the end.
    fn next(&self) -> Awaitable {
        Awaitable::new(events(Arc::clone(&self.place)))
    }

    /// Cancels the request, if it is not over.
    fn close(&self) {
        let before = std::mem::replace(&mut *lock(&self.place), Place::Over);
        drop(before);
    }
}
