//! Everything that can be asked over HTTP. Each file below owns one endpoint: its wire types, its handler, its tests.

mod admin;
mod chat_completions;
mod completions;
mod embeddings;
mod health;
mod metrics;
mod models;
mod performance;
mod rerank;
mod score;

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use tower_http::catch_panic::CatchPanicLayer;

use crate::app::{App, Stage};
use crate::failure::Problem;
use crate::keys;
use crate::observe::{Call, observe};

/// One path and what answers there.
pub(crate) struct Endpoint {
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    pub(crate) route: fn() -> MethodRouter<Arc<App>>,
}

/// Who may ask, and what else a request has to pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anyone, at any time; not logged.
    Probe,
    /// Whoever has the key of the metrics, if there is one; not logged.
    Metrics,
    /// Whoever has the key of the administration; nobody without one.
    Admin,
    /// Whoever has a key, if there are any.
    Client,
    /// The same, and the server must be taking work.
    Work,
}

const ENDPOINTS: &[&[Endpoint]] = &[
    admin::ENDPOINTS,
    chat_completions::ENDPOINTS,
    completions::ENDPOINTS,
    embeddings::ENDPOINTS,
    health::ENDPOINTS,
    metrics::ENDPOINTS,
    models::ENDPOINTS,
    performance::ENDPOINTS,
    rerank::ENDPOINTS,
    score::ENDPOINTS,
];

/// The endpoint with this path pattern.
pub(crate) fn find(pattern: &str) -> Option<&'static Endpoint> {
    all().find(|endpoint| endpoint.path == pattern)
}

fn all() -> impl Iterator<Item = &'static Endpoint> {
    ENDPOINTS.iter().copied().flatten()
}

pub(crate) fn router(app: Arc<App>) -> Router {
    all()
        .fold(Router::new(), |router, endpoint| router.route(endpoint.path, (endpoint.route)()))
        .fallback(unknown_route)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(Arc::clone(&app), admit))
        .layer(from_fn_with_state(Arc::clone(&app), observe))
        .with_state(app)
}

/// Checks keys, and turns work away while the server drains or from whom has taken what it may, before anything of the
/// body is read.
async fn admit(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, Problem> {
    let matched = request.extensions().get::<MatchedPath>();
    // A path without a route is treated like a client's, so that without a key nobody learns which paths exist.
    let access =
        matched.and_then(|path| find(path.as_str())).map_or(Access::Client, |endpoint| endpoint.access);
    let tenant = match access {
        Access::Probe => return Ok(next.run(request).await),
        Access::Metrics => {
            keys::opens(app.settings.metrics_key.as_ref(), request.headers())?;
            return Ok(next.run(request).await);
        }
        Access::Admin => {
            let key = app.settings.admin_key.as_ref().ok_or(Problem::NoAdmin)?;
            keys::opens(Some(key), request.headers())?;
            return Ok(next.run(request).await);
        }
        Access::Client | Access::Work => app.settings.keys.tenant(request.headers())?,
    };
    let call = request.extensions().get::<Call>().cloned();
    if let Some(call) = &call {
        call.note(|facts| facts.tenant.clone_from(&tenant));
    }
    if access == Access::Client {
        return Ok(next.run(request).await);
    }
    if app.stage() != Stage::Serving {
        return Err(Problem::Draining);
    }
    let mut response = match app.accounts.enter(&tenant) {
        Ok(stay) => {
            if let Some(call) = &call {
                call.stays(stay);
            }
            next.run(request).await
        }
        Err(exceeded) => Problem::from(exceeded).into_response(),
    };
    app.accounts.tell(&tenant, response.headers_mut());
    Ok(response)
}

async fn unknown_route(method: Method, uri: Uri) -> Problem {
    Problem::UnknownRoute { method: method.to_string(), path: uri.path().to_owned() }
}

async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    Problem::MethodNotAllowed { method: method.to_string(), path: uri.path().to_owned() }
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let told = panic.downcast_ref::<String>().map(String::as_str);
    let told = told.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    tracing::error!(panic = told, "a request handler panicked");
    Problem::Panicked.into_response()
}

#[cfg(test)]
mod tests;
