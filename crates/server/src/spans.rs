//! Where the time of a request went, as spans of `tracing`: one for the request and one for each of its stages.
//!
//! They are made when the request has ended, of times that are known by then anyway. So nothing is carried through the
//! engine, and where no subscriber wants them, a request pays for one look at that. A subscriber sees them all at once:
//! `start_ns` and `end_ns` say when they were, in nanoseconds since the Unix epoch. Fields have the names that
//! OpenTelemetry gives them, and none holds anything that was said.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, Method};
use protocol::{Reused, Timing};
use tracing::{Level, Span};

use crate::SPANS;
use crate::observe::Facts;

/// One generation or one batch of texts behind a request, as far as it has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// When it was asked for, and when it was accepted: between them, what was asked was read.
    asked: Instant,
    accepted: Instant,
    does: Does,
    /// Since it was accepted.
    started: Option<Duration>,
    saw: Duration,
    first: Option<Duration>,
    ended: Option<Duration>,
}

/// What a model does for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// It writes.
    Generate,
    /// It reads, and has an answer at once.
    Encode,
    /// Another request's answer is given.
    Reuse,
}

/// A stage of a request.
#[derive(Debug, PartialEq, Eq)]
struct Stage {
    name: &'static str,
    from: Instant,
    to: Instant,
}

impl Run {
    /// A generation that has just been accepted.
    pub(crate) fn generation(asked: Instant, reused: Option<Reused>) -> Self {
        let does = if reused.is_some() { Does::Reuse } else { Does::Generate };
        let accepted = Instant::now();
        Self { asked, accepted, does, started: None, saw: Duration::ZERO, first: None, ended: None }
    }

    /// Texts that have been encoded just now.
    pub(crate) fn encoded(timing: Timing) -> Self {
        let now = Instant::now();
        let before = |time: Duration| now.checked_sub(time).unwrap_or(now);
        let (asked, accepted) = (before(timing.total + timing.prepared), before(timing.total));
        let mut run = Self { accepted, does: Does::Encode, ..Self::generation(asked, None) };
        run.done(timing);
        run
    }

    /// It has left the queue, as its reader hears.
    pub(crate) fn started(&mut self) {
        self.started.get_or_insert(self.accepted.elapsed());
    }

    /// It has said something, as its reader hears.
    pub(crate) fn said(&mut self) {
        if self.first.is_none() {
            self.first = Some(self.accepted.elapsed());
        }
    }

    /// It has ended, and this is how long it really took. Of an answer that was computed for another request, times say
    /// nothing about this one.
    pub(crate) fn done(&mut self, timing: Timing) {
        if self.does != Does::Reuse {
            (self.started, self.saw) = (Some(timing.queued), timing.vision);
            (self.first, self.ended) = (Some(timing.first_token), Some(timing.total));
        }
    }

    /// Its stages, the last of which ends with the request.
    fn stages(&self, end: Instant) -> Vec<Stage> {
        let at = |since: Duration| (self.accepted + since).min(end);
        let until = |since: Option<Duration>| since.map_or(end, at);
        let mut stages = Vec::with_capacity(6);
        let mut stage =
            |name, from: Instant, to: Instant| stages.push(Stage { name, from, to: to.max(from) });
        stage("prepare", self.asked, self.accepted);
        if self.does == Does::Reuse {
            stage("reuse", self.accepted, until(self.first));
        } else {
            stage("queue", self.accepted, until(self.started));
        }
        if let (Some(started), true) = (self.started, self.does != Does::Reuse) {
            let mut from = at(started);
            if !self.saw.is_zero() {
                let seen = at(started + self.saw);
                stage("vision", from, seen);
                from = seen;
            }
            match self.does {
                Does::Encode => stage("encode", from, until(self.ended)),
                _ => stage("prefill", from, until(self.first)),
            }
        }
        if let (Some(first), false) = (self.first, self.does == Does::Encode) {
            if self.does == Does::Generate {
                stage("decode", at(first), until(self.ended));
            }
            stage("stream", at(first), end);
        }
        stages
    }
}

/// The context in which a client asks, as it says itself (W3C Trace Context), where anybody wants to know.
pub(crate) fn context(headers: &HeaderMap) -> Option<Box<str>> {
    if !tracing::span_enabled!(target: SPANS, Level::DEBUG) {
        return None;
    }
    // That of today's version takes 55 characters; later ones may say more.
    let told = headers.get("traceparent")?.to_str().ok()?;
    (told.len() <= 128).then(|| told.into())
}

/// A request that has ended.
pub(crate) struct Ended<'a> {
    pub(crate) id: &'a str,
    pub(crate) context: Option<&'a str>,
    pub(crate) method: &'a Method,
    pub(crate) route: &'static str,
    pub(crate) status: u16,
    pub(crate) code: Option<&'static str>,
    pub(crate) begun: Instant,
    pub(crate) facts: &'a Facts,
}

impl Ended<'_> {
    /// Makes the spans, if anybody wants them.
    pub(crate) fn tell(&self) {
        if !tracing::span_enabled!(target: SPANS, Level::DEBUG) {
            return;
        }
        let (end, wall) = (Instant::now(), SystemTime::now());
        let since_epoch = |at: Instant| {
            // Clocks of others may be a little off.
            let at = at.clamp(self.begun, end);
            let at = wall.checked_sub(end.saturating_duration_since(at)).unwrap_or(UNIX_EPOCH);
            u64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
        };
        let root = self.root(since_epoch(self.begun), since_epoch(end));
        let runs = &self.facts.runs;
        let read = runs.iter().map(|run| run.asked).min().unwrap_or(end);
        span(&root, ("receive", 0), (since_epoch(self.begun), since_epoch(read)));
        for (run, place) in runs.iter().zip(0..) {
            for Stage { name, from, to } in run.stages(end) {
                span(&root, (name, place), (since_epoch(from), since_epoch(to)));
            }
        }
    }

    fn root(&self, start_ns: u64, end_ns: u64) -> Span {
        let Self { facts, code, status, .. } = self;
        // What a client did wrong is no error of the server.
        let failed = *status >= 500 || (*status < 400 && code.is_some());
        tracing::debug_span!(
            target: SPANS,
            parent: None,
            "request",
            otel.name = format!("{} {}", self.method, self.route),
            otel.kind = "server",
            otel.status_code = failed.then_some("ERROR"),
            http.request.method = self.method.as_str(),
            http.route = self.route,
            http.response.status_code = *status,
            "error.type" = *code,
            gen_ai.response.model = facts.model.as_deref(),
            gen_ai.usage.input_tokens = facts.prompt_tokens,
            gen_ai.usage.output_tokens = facts.completion_tokens,
            gen_ai.response.finish_reason = facts.finish,
            tidegate.request = self.id,
            tidegate.tenant = &*facts.tenant.0,
            traceparent = self.context,
            start_ns,
            end_ns,
        )
    }
}

/// A stage of the prompt at a place among those of the request.
fn span(root: &Span, (name, place): (&'static str, u64), (start_ns, end_ns): (u64, u64)) {
    let prompt = (place > 0).then_some(place);
    tracing::debug_span!(
        target: SPANS, parent: root, "stage", otel.name = name, tidegate.prompt = prompt, start_ns, end_ns
    );
}

#[cfg(test)]
mod tests;
