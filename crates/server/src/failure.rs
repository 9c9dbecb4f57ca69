//! Every way in which a request can go wrong, and what the client hears: status, error type, code and headers are
//! chosen here and nowhere else.

use std::time::Duration;

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use protocol::{Failure, Refusal};
use serde::Serialize;

use crate::Overload;
use crate::quota::Exceeded;

/// Why a request got no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Problem {
    #[error("{refusal}")]
    Refused { refusal: Refusal, prompt: &'static str, overload: Overload },
    #[error("{0}")]
    Failed(#[from] Failure),
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    #[error("the server is shutting down and takes no new work; send the request to another one")]
    Draining,
    #[error("the request body is not a JSON object: {message}")]
    InvalidJson { message: String },
    #[error("Invalid type for '{param}': expected {expected}, but got {found} instead.")]
    InvalidType { param: String, expected: &'static str, found: &'static str },
    #[error("Invalid '{param}': {message}")]
    InvalidValue { param: String, message: String },
    #[error("Missing required parameter: '{param}'.")]
    Missing { param: String },
    #[error("Unsupported parameter: '{param}' is not supported by this server: {message}")]
    Unsupported { param: String, message: String },
    #[error("the request body holds more than the {limit} bytes that this server reads; send less at once")]
    BodyTooLarge { limit: usize },
    #[error("the request body did not arrive within {} s", waited.as_secs())]
    BodyTimeout { waited: Duration },
    #[error("the request body broke off before its end")]
    BodyBroken,
    #[error("the request body must be {expected}, but it was sent as '{found}'")]
    MediaType { expected: &'static str, found: String },
    #[error("You did not provide an API key. Send it in the header 'Authorization: Bearer KEY'.")]
    MissingKey,
    #[error("Incorrect API key provided.")]
    WrongKey,
    #[error("nothing can be changed over HTTP, because the server was started without --admin-key")]
    NoAdmin,
    #[error("Unknown request URL: {method} {path}. Please check the URL for typos.")]
    UnknownRoute { method: String, path: String },
    #[error("{method} is not allowed for {path}")]
    MethodNotAllowed { method: String, path: String },
    #[error("the server failed while it handled the request; this is a defect of the server")]
    Panicked,
}

/// The status that log and metrics give to a request whose client went away. It is never sent.
pub(crate) const CLIENT_GONE: u16 = 499;

/// How long to wait before asking again a server that is loading or draining: another one may answer at once, and
/// this one rarely takes longer.
const NOT_READY_RETRY: Duration = Duration::from_secs(2);

/// The longest `Retry-After` that client libraries still honour.
const LONGEST_RETRY: Duration = Duration::from_secs(120);

const INVALID_REQUEST: &str = "invalid_request_error";
const RATE_LIMIT: &str = "rate_limit_error";
const SERVER: &str = "server_error";
const AUTHENTICATION: &str = "authentication_error";

impl Problem {
    pub(crate) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::InvalidValue { param: param.into(), message: message.into() }
    }

    pub(crate) fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Unsupported { param: param.into(), message: message.into() }
    }

    /// Status, error type and error code.
    fn verdict(&self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as Is;
        match self {
            Self::Refused { refusal, overload, .. } => refused(refusal, *overload),
            Self::Failed(failure) => failed(failure),
            Self::Exceeded(_) => (Is::TOO_MANY_REQUESTS, RATE_LIMIT, "rate_limit_exceeded"),
            Self::Draining => (Is::SERVICE_UNAVAILABLE, SERVER, "not_ready"),
            Self::InvalidJson { .. } => (Is::BAD_REQUEST, INVALID_REQUEST, "invalid_json"),
            Self::InvalidType { .. } => (Is::BAD_REQUEST, INVALID_REQUEST, "invalid_type"),
            Self::InvalidValue { .. } => (Is::BAD_REQUEST, INVALID_REQUEST, "invalid_value"),
            Self::Missing { .. } => (Is::BAD_REQUEST, INVALID_REQUEST, "missing_required_parameter"),
            Self::Unsupported { .. } => (Is::BAD_REQUEST, INVALID_REQUEST, "unsupported_parameter"),
            Self::BodyBroken => (Is::BAD_REQUEST, INVALID_REQUEST, "incomplete_body"),
            Self::BodyTimeout { .. } => (Is::REQUEST_TIMEOUT, "timeout", "request_timeout"),
            Self::BodyTooLarge { .. } => (Is::PAYLOAD_TOO_LARGE, INVALID_REQUEST, "request_too_large"),
            Self::MediaType { .. } => (Is::UNSUPPORTED_MEDIA_TYPE, INVALID_REQUEST, "unsupported_media_type"),
            Self::MissingKey | Self::WrongKey => (Is::UNAUTHORIZED, AUTHENTICATION, "invalid_api_key"),
            Self::NoAdmin => (Is::FORBIDDEN, AUTHENTICATION, "admin_disabled"),
            Self::UnknownRoute { .. } => (Is::NOT_FOUND, INVALID_REQUEST, "unknown_url"),
            Self::MethodNotAllowed { .. } => (Is::METHOD_NOT_ALLOWED, INVALID_REQUEST, "method_not_allowed"),
            Self::Panicked => (Is::INTERNAL_SERVER_ERROR, SERVER, "internal_error"),
        }
    }

    /// The parameter at fault, as a path into the body.
    fn param(&self) -> Option<&str> {
        match self {
            Self::Refused { refusal: Refusal::UnknownModel { .. } | Refusal::Unable { .. }, .. } => {
                Some("model")
            }
            Self::Refused { refusal: Refusal::ContextLength { .. }, prompt, .. } => Some(prompt),
            Self::Refused { refusal: Refusal::InvalidParameter { param, .. }, .. }
            | Self::InvalidType { param, .. }
            | Self::InvalidValue { param, .. }
            | Self::Missing { param }
            | Self::Unsupported { param, .. } => Some(param),
            _ => None,
        }
    }

    /// How long the client should wait, where waiting helps.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { refusal, .. } => match refusal {
                Refusal::QueueFull { retry_after, .. } | Refusal::RateLimited { retry_after } => {
                    Some(*retry_after)
                }
                Refusal::NotReady { .. } => Some(NOT_READY_RETRY),
                _ => None,
            },
            Self::Exceeded(exceeded) => Some(exceeded.retry_after()),
            Self::Draining | Self::Failed(Failure::ShuttingDown) => Some(NOT_READY_RETRY),
            _ => None,
        }
    }

    /// Whether the client library would be wrong to try again, although the status suggests it.
    fn hopeless(&self) -> bool {
        matches!(self, Self::Failed(failure) if failure.is_late())
            || self.retry_after().is_some_and(|wait| wait > LONGEST_RETRY)
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(wait) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        }
        if self.hopeless() {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        if matches!(self, Self::MissingKey | Self::WrongKey) {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(self, Self::MediaType { .. }) {
            headers.insert(axum::http::header::ACCEPT, HeaderValue::from_static("application/json"));
        }
        headers
    }

    /// The error as clients read it, in a response body or inside a stream.
    pub(crate) fn envelope(&self) -> Envelope {
        let (_, kind, code) = self.verdict();
        Envelope {
            error: Told { message: self.to_string(), kind, param: self.param().map(str::to_owned), code },
        }
    }

    /// The error code, for logs.
    pub(crate) fn code(&self) -> &'static str {
        self.verdict().2
    }
}

const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

fn refused(refusal: &Refusal, overload: Overload) -> (StatusCode, &'static str, &'static str) {
    use StatusCode as Is;
    match refusal {
        Refusal::QueueFull { .. } => match overload {
            Overload::TooManyRequests => (Is::TOO_MANY_REQUESTS, RATE_LIMIT, "queue_full"),
            Overload::Unavailable => (Is::SERVICE_UNAVAILABLE, RATE_LIMIT, "queue_full"),
        },
        Refusal::RateLimited { .. } => (Is::TOO_MANY_REQUESTS, RATE_LIMIT, "rate_limit_exceeded"),
        Refusal::UnknownModel { .. } => (Is::NOT_FOUND, INVALID_REQUEST, "model_not_found"),
        Refusal::ContextLength { .. } => (Is::BAD_REQUEST, INVALID_REQUEST, "context_length_exceeded"),
        Refusal::InvalidParameter { .. } => (Is::BAD_REQUEST, INVALID_REQUEST, "invalid_value"),
        Refusal::Unable { .. } => (Is::BAD_REQUEST, INVALID_REQUEST, "unsupported_model"),
        Refusal::InvalidForm { kind: "JSON schema", .. } => {
            (Is::BAD_REQUEST, INVALID_REQUEST, "invalid_json_schema")
        }
        Refusal::InvalidForm { .. } => (Is::BAD_REQUEST, INVALID_REQUEST, "invalid_grammar"),
        Refusal::FormTimeout { .. } => (Is::BAD_REQUEST, INVALID_REQUEST, "grammar_timeout"),
        Refusal::NotReady { .. } => (Is::SERVICE_UNAVAILABLE, SERVER, "not_ready"),
        _ => (Is::INTERNAL_SERVER_ERROR, SERVER, "internal_error"),
    }
}

fn failed(failure: &Failure) -> (StatusCode, &'static str, &'static str) {
    match failure {
        late if late.is_late() => (StatusCode::GATEWAY_TIMEOUT, "timeout", "deadline_exceeded"),
        Failure::Form { .. } => (StatusCode::BAD_REQUEST, INVALID_REQUEST, "invalid_grammar"),
        Failure::ShuttingDown => (StatusCode::SERVICE_UNAVAILABLE, SERVER, "not_ready"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, SERVER, "engine_error"),
    }
}

/// `Retry-After` counts whole seconds, and a client told 0 comes back at once.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    let rounded_up = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    rounded_up.clamp(1, LONGEST_RETRY.as_secs())
}

/// The error envelope of the OpenAI dialect.
#[derive(Debug, Serialize)]
pub(crate) struct Envelope {
    error: Told,
}

#[derive(Debug, Serialize)]
struct Told {
    message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<String>,
    code: &'static str,
}

/// Rides on an error response, so that the access log can name the code without reading the body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ErrorCode(pub(crate) &'static str);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.verdict().0, self.headers(), Json(self.envelope())).into_response();
        response.extensions_mut().insert(ErrorCode(self.code()));
        response
    }
}
