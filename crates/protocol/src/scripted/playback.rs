//! The event stream of one scripted request.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;

use super::Stage;
use super::script::{Cue, Play};
use crate::{Event, RequestId};

pub(super) struct Playback {
    stage: Arc<Stage>,
    id: RequestId,
    play: Play,
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Waiting,
    Running,
    /// The terminal event, or a deliberate cut, was read.
    Over,
    /// The end of the stream was read as well.
    Exhausted,
}

impl Playback {
    pub(super) fn new(stage: Arc<Stage>, id: RequestId, play: Play) -> Self {
        Self { stage, id, play, state: State::Waiting }
    }

    fn started(&mut self) {
        if self.state == State::Waiting {
            self.state = State::Running;
            self.stage.change(|inside| inside.ledger.started += 1);
        }
    }

    fn over(&mut self) {
        self.started();
        self.state = State::Over;
        self.stage.change(|inside| inside.ledger.ended.push(self.id.clone()));
    }
}

impl Stream for Playback {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        assert!(self.state != State::Exhausted, "{:?} was polled after its end", self.id);
        if self.state == State::Over {
            self.state = State::Exhausted;
            return Poll::Ready(None);
        }
        while let Some(Cue::Gate(gate)) = self.play.cues.front_mut() {
            if Pin::new(gate).poll(context).is_pending() {
                return Poll::Pending;
            }
            self.play.cues.pop_front();
        }
        match self.play.cues.pop_front() {
            Some(Cue::Emit(event)) => {
                if event == Event::Started {
                    self.started();
                }
                if event.is_terminal() {
                    self.over();
                }
                Poll::Ready(Some(event))
            }
            _ => {
                self.over();
                self.state = State::Exhausted;
                Poll::Ready(None)
            }
        }
    }
}

impl Drop for Playback {
    fn drop(&mut self) {
        if matches!(self.state, State::Waiting | State::Running) {
            self.started();
            self.stage.change(|inside| inside.ledger.cancelled.push(self.id.clone()));
        }
    }
}
