//! `GET /metrics`: the counters, in the format that the reader prefers.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::{Access, Endpoint};
use crate::app::App;

pub(super) const ENDPOINTS: &[Endpoint] =
    &[Endpoint { path: "/metrics", access: Access::Metrics, route: || get(scrape) }];

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

async fn scrape(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let wanted = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let (kind, text) = if wanted.contains("application/openmetrics-text") {
        (OPEN_METRICS, app.metrics.open_metrics())
    } else {
        (PROMETHEUS, app.metrics.prometheus())
    };
    match text {
        Ok(text) => ([(CONTENT_TYPE, kind)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
