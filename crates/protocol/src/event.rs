//! What an accepted request hears back.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use serde::{Deserialize, Serialize};

use crate::RequestId;

/// An accepted request: a stream of [`Event`]s. Dropping it cancels the request wherever it is.
pub struct Generation {
    /// The request's name.
    pub id: RequestId,
    /// The name of the model that serves it.
    pub model: String,
    /// Tokens of the prompt after templating.
    pub prompt_tokens: u32,
    /// Whether the prompt ends inside of the model's reasoning, so that the output begins there without its mark.
    pub reasons_at_once: bool,
    /// Where the answer comes from, if it was not computed for this request.
    pub reused: Option<Reused>,
    events: Pin<Box<dyn Stream<Item = Event> + Send>>,
}

impl Generation {
    /// Wraps the event stream of an accepted request; the stream's drop must cancel the work behind it.
    pub fn new(
        id: RequestId,
        model: impl Into<String>,
        prompt_tokens: u32,
        events: impl Stream<Item = Event> + Send + 'static,
    ) -> Self {
        Self {
            id,
            model: model.into(),
            prompt_tokens,
            reasons_at_once: false,
            reused: None,
            events: Box::pin(events),
        }
    }
}

/// Where an answer comes from that was not computed for its request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reused {
    /// From the same request, which was running.
    InFlight,
    /// From the same request, which had been answered.
    Kept,
    /// From a similar request, which had been answered.
    Similar {
        /// How similar, from 0 to 1.
        likeness: f32,
    },
}

impl Stream for Generation {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.events.as_mut().poll_next(context)
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation").field("id", &self.id).field("model", &self.model).finish_non_exhaustive()
    }
}

/// One step in the life of an accepted request. The last one is always `Done` or `Failed`.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The request waits and this many others are ahead of it; sent when the number changes.
    Queued {
        /// Requests that will be served earlier.
        ahead: u32,
    },
    /// The request left the queue and its prompt is being read.
    Started,
    /// New output of one choice.
    Delta(Delta),
    /// One choice has ended.
    Finished {
        /// Which choice.
        choice: u32,
        /// Why it ended.
        reason: FinishReason,
    },
    /// All choices have ended.
    Done {
        /// Tokens read and written.
        usage: Usage,
        /// Where the time went.
        timing: Timing,
    },
    /// The request ended without completing.
    Failed(Failure),
}

impl Event {
    /// Whether no event follows this one.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Failed(_))
    }
}

/// New output of one choice. Deltas of one choice concatenate to its text; text held back for a possible stop text or
/// an incomplete character comes with a later delta, so `tokens` and `text` need not cover the same characters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    /// Which choice, from 0.
    pub choice: u32,
    /// Text, always whole characters.
    pub text: String,
    /// The ids sampled since the last delta.
    pub tokens: Vec<u32>,
    /// One entry per id in `tokens`, if log-probabilities were asked for.
    pub logprobs: Vec<TokenLogprob>,
}

/// A token and how probable the model held it to be.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// Token id.
    pub id: u32,
    /// The bytes that the token stands for; possibly part of a character.
    pub bytes: Vec<u8>,
    /// Natural logarithm of the probability, before temperature and filters.
    pub logprob: f32,
    /// The most probable tokens at this position, most probable first; their own `top` is empty.
    pub top: Vec<TokenLogprob>,
}

/// Why a choice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// An end-of-sequence token, a stop token or a stop text.
    Stop,
    /// The token limit or the end of the context.
    Length,
}

/// Why an accepted request ended without completing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The deadline passed while the request was queued or running.
    #[error("the request's deadline passed")]
    DeadlineExceeded,
    /// The deadline cannot be met, however little else there is to do; nothing was spent on the request.
    #[error(
        "the request's deadline cannot be met: its prompt takes about {:.1} s to read; allow it more time or shorten it",
        needs.as_secs_f64()
    )]
    DeadlineOutOfReach {
        /// From now to the first token at the best, by the measured speed.
        needs: Duration,
    },
    /// The engine stops and will not finish the request.
    #[error("the engine is shutting down")]
    ShuttingDown,
    /// The output could not be kept to the form that was asked for.
    #[error("the output could not be kept to its form: {message}; simplify the schema or grammar")]
    Form {
        /// What stood in the way.
        message: String,
    },
    /// The engine failed; the message is for people.
    #[error("the engine failed: {message}")]
    Engine {
        /// What happened.
        message: String,
    },
}

impl Failure {
    /// Whether the request's deadline is the reason.
    pub fn is_late(&self) -> bool {
        matches!(self, Self::DeadlineExceeded | Self::DeadlineOutOfReach { .. })
    }
}

/// Tokens read and written by one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt, counted once however many choices were asked for.
    pub prompt_tokens: u32,
    /// Tokens of the prompt that were not computed because a cache held them.
    pub cached_tokens: u32,
    /// Tokens sampled over all choices, end-of-sequence tokens included.
    pub completion_tokens: u32,
    /// Tokens of these with which the model reasoned before it answered.
    pub reasoning_tokens: u32,
}

/// Where the time of one request went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// Before admission: reading what was asked for, its pictures and its form included.
    pub prepared: Duration,
    /// From admission to the first step that read the prompt, or its pictures.
    pub queued: Duration,
    /// Behind the queue, until the model had seen all pictures; none without pictures.
    pub vision: Duration,
    /// From admission to the first sampled token.
    pub first_token: Duration,
    /// From admission to the end.
    pub total: Duration,
}
