//! The way of events from the engine's thread to one client, which the client cannot hold up.
//!
//! Events wait in a queue whose length is bounded by the number of choices: while the client is slow, a new delta of a
//! choice is merged with the one that still waits. What a delta can grow to is bounded by the request's own limits.
//! The terminal event is sent exactly once because sending it consumes the [`Outbox`], and dropping an `Outbox` that
//! has not sent it sends a failure.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::Stream;
use protocol::{Delta, Event, Failure, TokenLogprob};

/// What one sampled token adds to a choice.
pub(crate) struct Output<'a> {
    pub(crate) choice: u32,
    pub(crate) text: &'a str,
    pub(crate) token: u32,
    pub(crate) logprob: Option<TokenLogprob>,
}

#[derive(Default)]
struct State {
    events: VecDeque<Event>,
    reader: Option<Waker>,
    ended: bool,
}

#[derive(Default)]
struct Channel {
    state: Mutex<State>,
}

impl Channel {
    /// A panic cannot leave the state half changed, so poison means nothing here.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let reader = {
            let mut state = self.lock();
            change(&mut state);
            state.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

/// The engine's end.
pub(crate) struct Outbox {
    channel: Arc<Channel>,
}

/// The client's end; dropping it before the terminal event was sent calls `cancel`.
pub(crate) struct Inbox<F: FnMut()> {
    channel: Arc<Channel>,
    cancel: F,
}

/// The two ends of a request's events.
pub(crate) fn outbox<F: FnMut()>(cancel: F) -> (Outbox, Inbox<F>) {
    let channel = Arc::new(Channel::default());
    (Outbox { channel: channel.clone() }, Inbox { channel, cancel })
}

impl Outbox {
    /// Sends an event that is neither a delta nor terminal. A new position in the queue replaces one not yet read.
    pub(crate) fn send(&self, event: Event) {
        debug_assert!(!event.is_terminal(), "terminal events consume the outbox");
        self.channel.change(|state| match (state.events.back_mut(), &event) {
            (Some(last @ Event::Queued { .. }), Event::Queued { .. }) => *last = event,
            _ => state.events.push_back(event),
        });
    }

    /// Sends one token's output, merged with what waits of the same choice.
    pub(crate) fn output(&self, output: Output<'_>) {
        self.channel.change(|state| {
            let waiting = state.events.iter_mut().rev().find_map(|event| match event {
                Event::Delta(delta) if delta.choice == output.choice => Some(delta),
                _ => None,
            });
            match waiting {
                Some(delta) => append(delta, output),
                None => {
                    let mut delta = Delta { choice: output.choice, ..Delta::default() };
                    append(&mut delta, output);
                    state.events.push_back(Event::Delta(delta));
                }
            }
        });
    }

    /// Sends the terminal event.
    pub(crate) fn end(self, event: Event) {
        debug_assert!(event.is_terminal(), "only a terminal event ends a request");
        self.channel.change(|state| {
            state.events.push_back(event);
            state.ended = true;
        });
    }
}

fn append(delta: &mut Delta, output: Output<'_>) {
    delta.text.push_str(output.text);
    delta.tokens.push(output.token);
    delta.logprobs.extend(output.logprob);
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.channel.change(|state| {
            if !state.ended {
                state.ended = true;
                let message = "the engine stopped before the request had ended".to_owned();
                state.events.push_back(Event::Failed(Failure::Engine { message }));
            }
        });
    }
}

impl<F: FnMut()> Drop for Inbox<F> {
    fn drop(&mut self) {
        let ended = self.channel.lock().ended;
        if !ended {
            (self.cancel)();
        }
    }
}

impl<F: FnMut() + Unpin> Stream for Inbox<F> {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut state = self.channel.lock();
        match state.events.pop_front() {
            Some(event) => Poll::Ready(Some(event)),
            None if state.ended => Poll::Ready(None),
            None => {
                state.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};
    use protocol::FinishReason;

    use super::*;

    fn token(choice: u32, text: &str, token: u32) -> Output<'_> {
        Output { choice, text, token, logprob: None }
    }

    fn read(inbox: &mut Inbox<impl FnMut() + Unpin>) -> Vec<Event> {
        std::iter::from_fn(|| inbox.next().now_or_never().flatten()).collect()
    }

    #[test]
    fn a_slow_reader_gets_merged_deltas_and_everything_once() {
        let (outbox, mut inbox) = outbox(|| ());
        outbox.send(Event::Queued { ahead: 3 });
        outbox.send(Event::Queued { ahead: 1 });
        outbox.send(Event::Started);
        for i in 0..1000 {
            outbox.output(token(i % 2, "a", i));
        }
        assert_eq!(outbox.channel.lock().events.len(), 4);
        let events = read(&mut inbox);
        assert_eq!(events[..2], [Event::Queued { ahead: 1 }, Event::Started]);
        let Event::Delta(delta) = &events[2] else { panic!("{events:?}") };
        assert_eq!((delta.tokens.len(), delta.text.len()), (500, 500));
        outbox.output(token(0, "b", 7));
        outbox.send(Event::Finished { choice: 0, reason: FinishReason::Length });
        outbox.end(Event::Failed(Failure::ShuttingDown));
        let expected = Event::Delta(Delta { text: "b".to_owned(), tokens: vec![7], ..Delta::default() });
        assert_eq!(
            read(&mut inbox),
            [
                expected,
                Event::Finished { choice: 0, reason: FinishReason::Length },
                Event::Failed(Failure::ShuttingDown)
            ]
        );
    }

    #[test]
    fn dropping_either_end_tells_the_other() {
        let mut cancelled = 0;
        let (engine, client) = outbox(|| cancelled += 1);
        drop(client);
        drop(engine);
        assert_eq!(cancelled, 1);

        let mut cancelled = 0;
        let (engine, mut client) = outbox(|| cancelled += 1);
        drop(engine);
        assert!(matches!(read(&mut client)[..], [Event::Failed(Failure::Engine { .. })]));
        drop(client);
        assert_eq!(cancelled, 0);
    }
}
