//! HTTP for any [`protocol::Inference`]: requests in the OpenAI dialect come in, [`protocol::Event`]s go out as JSON
//! or as server-sent events.
//!
//! This crate refuses to know how anything is computed: it sees `dyn Inference` and plain data, never an engine, a
//! model or a tensor. It keeps no work of its own either: a request that is dropped here is cancelled there, and a
//! client that reads slowly makes the engine merge its deltas rather than this crate buffer them.
//!
//! Read `endpoints.rs` for what can be asked, `failure.rs` for every status and error code, `reply.rs` for the way
//! from a request to its events, `serve.rs` for the life of the listening socket.

mod app;
mod body;
mod conversation;
mod endpoints;
mod failure;
mod fetch;
mod fields;
mod forms;
mod keys;
mod linger;
mod metrics;
mod observe;
mod parameters;
mod pictures;
mod quota;
mod reading;
mod reply;
mod reuse;
mod serve;
mod settings;
mod spans;
mod speech;
mod sse;
#[cfg(test)]
mod testing;
mod tools;
mod wire;

use std::sync::Arc;

use axum::Router;
use protocol::Inference;

pub use fetch::{Fetching, ImageHost};
pub use keys::{Key, KeyError, Keys};
pub use quota::{PerTenant, Quotas};
pub use serve::{Ending, serve};
pub use settings::{Aliases, Limits, Overload, Settings, Timeouts};

/// The target of the spans that tell of each request's stages; their level is debug. They are made when the request has
/// ended, with fields `start_ns` and `end_ns`, `traceparent` and `otel.…` for whoever hands them on.
pub const SPANS: &str = "tidegate::spans";

/// Every endpoint over `inference`, for use inside a larger service or a test. [`serve`] adds the socket, its
/// timeouts and the graceful end.
pub fn router(inference: Arc<dyn Inference>, settings: Settings) -> Router {
    endpoints::router(Arc::new(app::App::new(inference, settings)))
}
