//! `GET /metrics/performance`: how the engine has done since the server's start, as one JSON document.

use std::sync::Arc;
use std::thread::available_parallelism;

use axum::Json;
use axum::extract::State;
use axum::routing::get;
use flow::metrics::System;
use protocol::performance::{Performance, ResourceUsage};

use super::{Access, Endpoint};
use crate::app::App;

pub(super) const ENDPOINTS: &[Endpoint] =
    &[Endpoint { path: "/metrics/performance", access: Access::Metrics, route: || get(tell) }];

async fn tell(State(app): State<Arc<App>>) -> Json<Performance> {
    let seconds = app.started.elapsed().as_secs_f64();
    Json(Performance::new(&app.inference.status(), usage(seconds), seconds))
}

/// No work is done on a GPU, so none is told.
fn usage(seconds: f64) -> ResourceUsage {
    let process = System::here().process();
    let processors = available_parallelism().map_or(1, usize::from) as f64;
    let busy = process.user_time.zip(process.system_time).map(|(user, system)| (user + system).as_secs_f64());
    ResourceUsage {
        gpu_utilization: None,
        gpu_memory_mb: None,
        // Time from before the start, as for loading, may make it more than all.
        cpu_utilization: busy.filter(|_| seconds > 0.0).map(|busy| (busy / seconds / processors).min(1.0)),
        memory_mb: process.resident_bytes.map(|bytes| bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use protocol::scripted::{Script, Scripted};

    use crate::testing::Bench;
    use crate::{Key, Settings};

    #[tokio::test]
    async fn the_document_has_the_names_that_people_look_for() {
        let scripted = Scripted::new().always(Script::text(&["Hi"]));
        scripted.set_status(|status| status.counters.steps = 7);
        let bench = Bench::over(scripted);
        let told = bench.json("GET /metrics/performance").await;
        let parts: Vec<&str> = told.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = "throughput latency resource_usage batch_stats cache_stats models devices";
        assert_eq!(parts.join(" "), expected);
        assert_eq!(told["batch_stats"]["total_batches"], 7);
        assert!(told["resource_usage"]["gpu_utilization"].is_null());
        assert!(told["latency"]["p95_ms"].is_number());
    }

    #[tokio::test]
    async fn it_is_guarded_like_the_metrics() {
        let settings = Settings { metrics_key: Some(Key::of("scraper")), ..Settings::default() };
        let bench = Bench::with(Scripted::new(), settings);
        assert_eq!(bench.send("GET /metrics/performance").await.status(), 401);
        let asked = "GET /metrics/performance\nauthorization: Bearer scraper";
        assert_eq!(bench.send(asked).await.status(), 200);
    }
}
