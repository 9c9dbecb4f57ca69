//! What is known about every request from its first byte to its last: its name, who asked, how long it took, how it
//! ended. One line in the access log and a few counters come of it; never a prompt or a reply.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::CONNECTION;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use protocol::TenantId;

use crate::app::{App, Stage};
use crate::endpoints::{self, Access};
use crate::failure::{CLIENT_GONE, ErrorCode};
use crate::linger::linger;
use crate::quota::{Estimate, Exceeded, Stay, Took};
use crate::spans::{self, Ended, Run};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const PROCESSING_MS: HeaderName = HeaderName::from_static("openai-processing-ms");

/// The label of requests for which there is no route; their paths are the client's invention and have no bound.
const NO_ROUTE: &str = "none";

/// One request, as its endpoint knows it.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) id: Arc<str>,
    facts: Arc<Mutex<Facts>>,
    /// Its place among its tenant's requests, until it has ended.
    stay: Arc<Mutex<Option<Stay>>>,
}

/// What the layers below learn about a request, for the access log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) tenant: TenantId,
    pub(crate) model: Option<String>,
    pub(crate) queued: Option<Duration>,
    pub(crate) first_token: Option<Duration>,
    pub(crate) prompt_tokens: u32,
    pub(crate) completion_tokens: u32,
    pub(crate) finish: Option<&'static str>,
    pub(crate) code: Option<&'static str>,
    /// What was done for it.
    pub(crate) runs: Vec<Run>,
}

impl Call {
    pub(crate) fn note(&self, note: impl FnOnce(&mut Facts)) {
        note(&mut self.facts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn tenant(&self) -> TenantId {
        self.facts().tenant
    }

    /// Keeps the request's place until it has ended.
    pub(crate) fn stays(&self, stay: Stay) {
        *self.stay() = Some(stay);
    }

    /// Charges the tenant what the request is likely to take.
    pub(crate) fn charge(&self, estimate: impl Into<Estimate>) -> Result<(), Exceeded> {
        self.stay().as_mut().map_or(Ok(()), |stay| stay.charge(estimate.into()))
    }

    fn stay(&self) -> MutexGuard<'_, Option<Stay>> {
        self.stay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn facts(&self) -> Facts {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The outermost layer.
pub(crate) async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let endpoint = matched.and_then(endpoints::find);
    let call = Call { id: request_id(request.headers(), &app), facts: Arc::default(), stay: Arc::default() };
    let visit = Visit {
        call: call.clone(),
        route: endpoint.map_or(NO_ROUTE, |endpoint| endpoint.path),
        logged: endpoint.is_none_or(|endpoint| matches!(endpoint.access, Access::Client | Access::Work)),
        method: request.method().clone(),
        context: spans::context(request.headers()),
        begun: Instant::now(),
        end: End::Gone,
        app: Arc::clone(&app),
    };
    app.metrics.begun();
    let mut request = linger(request, &app);
    request.extensions_mut().insert(call);
    let response = next.run(request).await;
    visit.answer(response)
}

/// The client's own name for the request if it is fit for a log line, else a fresh one.
fn request_id(headers: &HeaderMap, app: &App) -> Arc<str> {
    let told = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let fit = |id: &&str| (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    told.filter(fit).map_or_else(|| app.fresh_id("req_").into(), Into::into)
}

/// A request on its way; dropping it writes the log line, wherever it is.
struct Visit {
    app: Arc<App>,
    call: Call,
    route: &'static str,
    logged: bool,
    method: Method,
    /// The trace that it is a part of, by its client's word.
    context: Option<Box<str>>,
    begun: Instant,
    end: End,
}

/// How the request will have ended if it ends now.
#[derive(Clone, Copy)]
enum End {
    /// No answer has been sent in full: the client has gone away.
    Gone,
    /// An answer with this status was sent to its last byte.
    Answered(u16),
}

impl Visit {
    fn answer(self, mut response: Response) -> Response {
        if let Some(ErrorCode(code)) = response.extensions().get() {
            self.call.note(|facts| facts.code = Some(code));
        }
        let stage = self.app.stage();
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(&self.call.id) {
            headers.insert(REQUEST_ID, id);
        }
        headers.insert(PROCESSING_MS, HeaderValue::from(self.begun.elapsed().as_millis() as u64));
        if stage != Stage::Serving {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let status = response.status().as_u16();
        let head_only = self.method == Method::HEAD;
        response.map(|body| {
            let mut observed = Observed { body, status, visit: self };
            if head_only || observed.body.is_end_stream() {
                observed.visit.end = End::Answered(status);
            }
            Body::new(observed)
        })
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let (status, code) = match self.end {
            End::Gone => (CLIENT_GONE, Some("client_cancel")),
            End::Answered(status) => (status, None),
        };
        let took = self.begun.elapsed();
        self.app.metrics.ended(self.route, status, took);
        let facts = self.call.facts();
        if let Some(stay) = self.call.stay().take() {
            stay.settle(Took { read: facts.prompt_tokens, written: facts.completion_tokens });
        }
        if !self.logged {
            return;
        }
        tracing::info!(
            request_id = &*self.call.id,
            tenant = facts.tenant.0,
            method = self.method.as_str(),
            route = self.route,
            status,
            code = code.or(facts.code),
            model = facts.model,
            queue_ms = facts.queued.map(milliseconds),
            ttft_ms = facts.first_token.map(milliseconds),
            total_ms = milliseconds(took),
            tokens_in = facts.prompt_tokens,
            tokens_out = facts.completion_tokens,
            finish = facts.finish,
            "request"
        );
        let code = code.or(facts.code);
        let (id, context, begun) = (&*self.call.id, self.context.as_deref(), self.begun);
        let (method, route) = (&self.method, self.route);
        Ended { id, context, method, route, status, code, begun, facts: &facts }.tell();
    }
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// A response body that knows whether it was sent to its end.
struct Observed {
    body: Body,
    status: u16,
    visit: Visit,
}

impl HttpBody for Observed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            self.visit.app.metrics.sent(frame.data_ref().map_or(0, Bytes::len));
        }
        if frame.is_none() || self.body.is_end_stream() {
            self.visit.end = End::Answered(self.status);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
