//! `/livez`, `/readyz`, `/startupz` and `/health`: whether the process should be restarted, sent work, waited for.
//!
//! All are answered from [`protocol::Inference::status`], which never waits for the engine, and judge it by its
//! progress: a busy engine is alive, a stalled one is not.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use protocol::status::{Health, Phase, Status};
use serde::Serialize;

use super::{Access, Endpoint};
use crate::app::{App, Stage};

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint { path: "/health", access: Access::Probe, route: || get(health) },
    Endpoint { path: "/livez", access: Access::Probe, route: || get(livez) },
    Endpoint { path: "/readyz", access: Access::Probe, route: || get(readyz) },
    Endpoint { path: "/startupz", access: Access::Probe, route: || get(startupz) },
];

#[derive(Serialize)]
struct Report {
    status: &'static str,
    checks: Vec<Check>,
}

#[derive(Serialize)]
struct Check {
    name: &'static str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// Is it worth keeping? Fails when work makes no progress, or when the engine ended while the server goes on.
async fn livez(State(app): State<Arc<App>>) -> Response {
    let status = app.inference.status();
    report(vec![progress(&status), running(&app, &status)])
}

/// Has it come up? Fails while models load and warm up.
async fn startupz(State(app): State<Arc<App>>) -> Response {
    let status = app.inference.status();
    report(vec![started(&status), loaded(&app)])
}

/// Should it be sent work now?
async fn readyz(State(app): State<Arc<App>>) -> Response {
    let status = app.inference.status();
    report(vec![started(&status), loaded(&app), admitting(&app, &status), progress(&status), room(&status)])
}

/// Is it well? The same as readiness except that a full queue is no illness.
async fn health(State(app): State<Arc<App>>) -> Response {
    let status = app.inference.status();
    report(vec![started(&status), loaded(&app), admitting(&app, &status), progress(&status)])
}

fn report(checks: Vec<Check>) -> Response {
    let any = |status| checks.iter().any(|check| check.status == status);
    let (code, status) = match (any("fail"), any("warn")) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy"),
        (false, true) => (StatusCode::OK, "degraded"),
        (false, false) => (StatusCode::OK, "healthy"),
    };
    (code, Json(Report { status, checks })).into_response()
}

fn pass(name: &'static str) -> Check {
    Check { name, status: "pass", detail: None }
}

fn fail(name: &'static str, detail: impl Into<String>) -> Check {
    Check { name, status: "fail", detail: Some(detail.into()) }
}

fn progress(status: &Status) -> Check {
    let name = "progress";
    match &status.health {
        Health::Healthy => pass(name),
        Health::Degraded(reasons) => Check { name, status: "warn", detail: Some(reasons.join("; ")) },
        Health::Unhealthy(reasons) => fail(name, reasons.join("; ")),
    }
}

fn running(app: &App, status: &Status) -> Check {
    match status.phase {
        Phase::Stopped if app.stage() == Stage::Serving => fail("engine", "it has stopped"),
        _ => pass("engine"),
    }
}

fn started(status: &Status) -> Check {
    match status.phase {
        Phase::Starting => fail("started", "models are being loaded"),
        _ => pass("started"),
    }
}

fn loaded(app: &App) -> Check {
    if app.inference.models().is_empty() { fail("models", "none is loaded") } else { pass("models") }
}

fn admitting(app: &App, status: &Status) -> Check {
    match status.phase {
        _ if app.stage() != Stage::Serving => fail("admitting", "the server drains"),
        Phase::Draining => fail("admitting", "the engine drains"),
        Phase::Stopped => fail("admitting", "the engine has stopped"),
        Phase::Starting | Phase::Ready => pass("admitting"),
    }
}

fn room(status: &Status) -> Check {
    let load = &status.load;
    if load.queued < load.queue_capacity {
        return pass("queue");
    }
    fail("queue", format!("{} of {} requests wait", load.queued, load.queue_capacity))
}

#[cfg(test)]
mod tests {
    use protocol::scripted::Scripted;

    use crate::testing::{Bench, check};

    use super::*;

    async fn judged(case: &str, change: impl FnOnce(&mut Status)) {
        let scripted = Scripted::new();
        scripted.set_status(change);
        let bench = Bench::over(scripted);
        for probe in ["health", "livez", "readyz", "startupz"] {
            check(&format!("health/{case}_{probe}"), &bench, &format!("GET /{probe}")).await;
        }
    }

    #[tokio::test]
    async fn every_state_is_told_by_every_probe() {
        judged("well", |_| {}).await;
        judged("starting", |status| status.phase = Phase::Starting).await;
        judged("draining", |status| status.phase = Phase::Draining).await;
        judged("stopped", |status| status.phase = Phase::Stopped).await;
        judged("slow", |status| status.health = Health::Degraded(vec!["steps take long".to_owned()])).await;
        judged("stalled", |status| status.health = Health::Unhealthy(vec!["no step for 20 s".to_owned()]))
            .await;
        judged("full", |status| (status.load.queued, status.load.queue_capacity) = (8, 8)).await;
    }
}
