//! Server-sent events: `data: {json}` lines for what a client must read, comment lines for what keeps it patient,
//! `data: [DONE]` at the end, and an error event instead of a silent end when something fails on the way.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures::{FutureExt, stream};
use protocol::{Delta, Event, FinishReason, Usage};
use serde::Serialize;
use tokio::time::sleep;

use crate::failure::Problem;
use crate::reply::Reply;

/// Events that are ready together are written together, up to about this many bytes.
const WRITTEN_TOGETHER: usize = 16 << 10;

/// How one endpoint words its chunks.
pub(crate) trait Chunks: Send + 'static {
    fn delta(&mut self, delta: Delta, frames: &mut Frames);
    fn finished(&mut self, choice: u32, reason: FinishReason, frames: &mut Frames);
    fn done(&mut self, usage: Usage, frames: &mut Frames);
}

/// Streams `reply` as it comes. The stream is only read when the connection can take more, and dropped with it.
pub(crate) fn respond(reply: Reply, chunks: impl Chunks, keep_alive: Duration) -> Response {
    let telling = Telling { reply, chunks, keep_alive };
    let frames = stream::unfold(telling, |mut telling| async move {
        let frames = telling.frames().await?;
        Some((Ok::<_, std::convert::Infallible>(frames), telling))
    });
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8")),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        // Proxies that follow nginx would otherwise collect the stream before they pass it on.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, Body::from_stream(frames)).into_response()
}

struct Telling<C> {
    reply: Reply,
    chunks: C,
    keep_alive: Duration,
}

impl<C: Chunks> Telling<C> {
    /// Waits for something to say, then says everything that is ready. `None` after the end.
    async fn frames(&mut self) -> Option<Bytes> {
        let mut frames = Frames::default();
        while frames.bytes.is_empty() {
            tokio::select! {
                biased;
                event = self.reply.next() => self.tell(event?, &mut frames),
                () = sleep(self.keep_alive) => frames.comment("keep-alive"),
            }
        }
        while frames.bytes.len() < WRITTEN_TOGETHER {
            let Some(Some(event)) = self.reply.next().now_or_never() else { break };
            self.tell(event, &mut frames);
        }
        Some(frames.bytes.into())
    }

    fn tell(&mut self, event: Event, frames: &mut Frames) {
        match event {
            // The one that will be served next has position 1.
            Event::Queued { ahead } => frames.comment(&format!("queued position={}", u64::from(ahead) + 1)),
            Event::Started => {}
            Event::Delta(delta) => self.chunks.delta(delta, frames),
            Event::Finished { choice, reason } => self.chunks.finished(choice, reason, frames),
            Event::Done { usage, .. } => {
                self.chunks.done(usage, frames);
                frames.end();
            }
            Event::Failed(failure) => frames.data(&Problem::Failed(failure).envelope()),
        }
    }
}

/// Bytes of an event stream, in the making.
#[derive(Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
}

impl Frames {
    /// One event. JSON has no raw line breaks, so it is always one line.
    pub(crate) fn data(&mut self, data: &impl Serialize) {
        match serde_json::to_vec(data) {
            Ok(json) => self.line(b"data: ", &json),
            Err(error) => tracing::error!(%error, "a chunk could not be written as JSON"),
        }
    }

    fn end(&mut self) {
        self.line(b"data: ", b"[DONE]");
    }

    fn comment(&mut self, comment: &str) {
        self.line(b": ", comment.as_bytes());
    }

    fn line(&mut self, field: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(field);
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(b"\n\n");
    }
}
