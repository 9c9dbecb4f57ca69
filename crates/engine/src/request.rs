//! An accepted request, from the queue to its terminal event.

use std::sync::Arc;
use std::time::Duration;

use flow::Ticket;
use flow::queue::Permit;
use models::vision::Features;
use protocol::{Event, Failure, FinishReason, Priority, Timing, Usage};
use tokio::sync::oneshot;

use crate::meters::micros;
use crate::outbox::{Outbox, Output};
use crate::parameters::Parameters;
use crate::plan::Rank;
use crate::roll::Member;
use crate::sampler::mix;
use crate::trace::{Arrival, End, Entry};
use crate::vision::Picture;

/// An accepted request. It ends by [`Request::complete`] or [`Request::fail`], which consume it.
pub(crate) struct Request {
    /// It was accepted as the how-manieth.
    pub(crate) order: u64,
    /// What was asked for.
    pub(crate) parameters: Arc<Parameters>,
    /// Whose work it is.
    pub(crate) tenant: Arc<str>,
    /// When it was accepted.
    pub(crate) accepted_at: Duration,
    /// How long it took to read what was asked for.
    prepared: Duration,
    outbox: Outbox,
    permit: Option<Arc<Permit>>,
    _member: Member,
    ahead: Option<u32>,
    started_at: Option<Duration>,
    /// When the tower had read its pictures.
    pub(crate) seen_at: Option<Duration>,
    first_token_at: Option<Duration>,
    open: u32,
    sampled: u32,
    /// Tokens of its prompt that were not computed because others had computed them.
    pub(crate) cached: usize,
    reasoned: u32,
    /// Who waits for its vector, if it wants one and no text.
    vector: Option<oneshot::Sender<Vec<f32>>>,
    /// Its pictures, until it starts.
    pub(crate) pictures: Vec<Picture>,
    /// What the tower has made of them.
    pub(crate) features: Arc<[Arc<Features>]>,
    /// Tokens that the tower's work for them stood for.
    pub(crate) seen: usize,
    /// Bytes of that, once it has started.
    pub(crate) feature_bytes: usize,
    /// How often a step did not end that computed it.
    pub(crate) stalls: u32,
    /// Why its first choice ended.
    pub(crate) first_reason: FinishReason,
}

/// A request that can be queued, and who waits for its vector.
pub(crate) struct Ready {
    pub(crate) parameters: Parameters,
    pub(crate) pictures: Vec<Picture>,
    pub(crate) vector: Option<oneshot::Sender<Vec<f32>>>,
    /// When it was asked for.
    pub(crate) asked: Duration,
}

/// What a request occupies while it is accepted: its place in the queue and in the engine.
pub(crate) struct Seat {
    /// Shared by all texts of which one client wants vectors at once.
    pub(crate) permit: Arc<Permit>,
    pub(crate) member: Member,
}

impl Request {
    /// A request that is accepted now.
    pub(crate) fn new(
        (order, accepted_at): (u64, Duration),
        ready: Ready,
        tenant: Arc<str>,
        seat: Seat,
        outbox: Outbox,
    ) -> Self {
        let Ready { parameters, pictures, vector, asked } = ready;
        Self {
            order,
            tenant,
            accepted_at,
            prepared: accepted_at.saturating_sub(asked),
            outbox,
            permit: Some(seat.permit),
            _member: seat.member,
            ahead: None,
            started_at: None,
            seen_at: None,
            first_token_at: None,
            open: parameters.choices,
            sampled: 0,
            cached: 0,
            reasoned: 0,
            vector,
            pictures,
            features: Arc::default(),
            seen: 0,
            feature_bytes: 0,
            stalls: 0,
            first_reason: FinishReason::Stop,
            parameters: Arc::new(parameters),
        }
    }

    /// How a trace tells that it has come.
    pub(crate) fn trace_arrival(&self) -> Entry {
        let Parameters { prompt, choices, max_tokens, priority, deadline, .. } = &*self.parameters;
        Entry::Arrival(Arrival {
            at_us: micros(self.accepted_at),
            order: self.order,
            // A number that tells tenants apart and does not tell their names.
            tenant: self.tenant.bytes().fold(0, |hash, byte| mix(hash ^ u64::from(byte))),
            priority: *priority,
            prompt: prompt.len() as u64,
            max_tokens: *max_tokens as u64,
            choices: *choices,
            deadline_us: deadline.map(micros),
        })
    }

    /// How a trace tells that it has gone.
    pub(crate) fn trace_end(&self, now: Duration) -> Entry {
        Entry::End(End {
            at_us: micros(now),
            order: self.order,
            first_us: self.first_token_at.map(micros),
            written: u64::from(self.sampled),
            cached: self.cached as u64,
            vision: self.seen as u64,
        })
    }

    /// The rank of its first choice.
    pub(crate) fn first_rank(&self) -> Rank {
        Rank { band: self.band(), order: self.order, choice: 0 }
    }

    /// Whether it is to be continued, and not only read for its vector.
    pub(crate) fn wants_text(&self) -> bool {
        self.parameters.pooling.is_none()
    }

    /// Its urgency.
    pub(crate) fn band(&self) -> Priority {
        self.parameters.priority
    }

    /// Whether its deadline has passed.
    pub(crate) fn is_late(&self, now: Duration) -> bool {
        self.deadline().is_some_and(|deadline| now >= deadline)
    }

    /// When it is of no use any more.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.parameters.deadline.map(|limit| self.accepted_at.saturating_add(limit))
    }

    /// What the queue's policy may know of it. Its cost is what it may take of the engine's time, in tokens.
    pub(crate) fn queue_ticket(&self) -> Ticket {
        let Parameters { prompt, choices, max_tokens, priority, .. } = &*self.parameters;
        let written = max_tokens.saturating_mul(*choices as usize);
        let cost = prompt.len().saturating_add(written) as u64;
        let ticket = Ticket::of(self.tenant.clone()).level(*priority as u8).cost(cost);
        Ticket { deadline: self.deadline(), ..ticket }
    }

    /// What it has taken of the engine's time, in tokens.
    pub(crate) fn spent(&self) -> u64 {
        (self.parameters.prompt.len() as u64).saturating_add(u64::from(self.sampled))
    }

    /// Tells the client how many are ahead, if that is news.
    pub(crate) fn is_behind(&mut self, ahead: u32) {
        if self.ahead != Some(ahead) {
            self.ahead = Some(ahead);
            self.outbox.send(Event::Queued { ahead });
        }
    }

    /// Leaves the queue; returns how long it waited there.
    pub(crate) fn start(&mut self, now: Duration) -> Duration {
        // Of texts that wait together, the last one gives their place back.
        self.permit.take().and_then(Arc::into_inner).into_iter().for_each(|permit| permit.serve(now));
        self.started_at = Some(now);
        self.outbox.send(Event::Started);
        now.saturating_sub(self.accepted_at)
    }

    /// Sends one sampled token; returns the time to it if it is the request's first.
    pub(crate) fn output(&mut self, output: Output<'_>, now: Duration) -> Option<Duration> {
        self.outbox.output(output);
        self.sampled += 1;
        let first = self.first_token_at.is_none();
        first.then(|| {
            self.first_token_at = Some(now);
            now.saturating_sub(self.accepted_at)
        })
    }

    /// Ends one choice, which spent so many tokens on reasoning; returns whether it was the last one.
    pub(crate) fn finish(&mut self, (choice, reason): (u32, FinishReason), reasoned: u32) -> bool {
        self.outbox.send(Event::Finished { choice, reason });
        if choice == 0 {
            self.first_reason = reason;
        }
        self.reasoned += reasoned;
        self.open -= 1;
        self.open == 0
    }

    /// Hands its vector over.
    pub(crate) fn hand_over(&mut self, vector: Vec<f32>) {
        if let Some(waiting) = self.vector.take() {
            // Whoever has gone away does not want it.
            let _ = waiting.send(vector);
        }
    }

    /// Ends the request, all of whose choices have ended.
    pub(crate) fn complete(self, now: Duration) {
        let since = |then: Option<Duration>| {
            then.map_or(Duration::ZERO, |then| then.saturating_sub(self.accepted_at))
        };
        let usage = Usage {
            prompt_tokens: u32::try_from(self.parameters.prompt.len()).unwrap_or(u32::MAX),
            cached_tokens: u32::try_from(self.cached).unwrap_or(u32::MAX),
            completion_tokens: self.sampled,
            reasoning_tokens: self.reasoned,
        };
        let total = now.saturating_sub(self.accepted_at);
        let queued = since(self.started_at);
        let vision = since(self.seen_at).saturating_sub(queued);
        let (prepared, first_token) = (self.prepared, since(self.first_token_at));
        let timing = Timing { prepared, queued, vision, first_token, total };
        self.outbox.end(Event::Done { usage, timing });
    }

    /// Ends the request without completing it.
    pub(crate) fn fail(self, failure: Failure) {
        self.outbox.end(Event::Failed(failure));
    }
}
