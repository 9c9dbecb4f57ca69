//! The page that Prometheus reads.

use std::collections::BTreeMap;

use axum::body::to_bytes;
use axum::http::header::CONTENT_TYPE;
use protocol::scripted::{Script, Scripted};
use protocol::status::{DeviceStatus, Histogram, MemoryPlan, ModelFigures, ModelStatus, Phase, VisionStatus};

use crate::testing::{Bench, compare};
use crate::{Aliases, Settings};

fn bench() -> Bench {
    let scripted = Scripted::new().always(Script::text(&["Hi"]));
    let counted = |reason: &str, count| (reason.to_owned(), count);
    scripted.set_status(|status| {
        status.load.oldest_queued_seconds = 0.25;
        (status.load.kv_pages_used, status.load.kv_pages_total, status.load.kv_page_tokens) = (3, 12, 16);
        status.counters.refused = vec![counted("queue_full", 4)];
        status.counters.completed = vec![counted("stop", 5), counted("length", 6)];
        status.counters.failed = vec![counted("deadline_exceeded", 1)];
        status.counters.cancelled = vec![counted("queued", 1), counted("running", 2)];
        status.counters.prompt_tokens = 700;
        status.counters.generated_tokens = 800;
        status.counters.steps = 90;
        let unusable = vec![counted("malformed", 2)];
        let (encoded, feature_hits, encode_seconds) = (3, 1, 0.5);
        status.vision =
            Some(VisionStatus { unusable, encoded, feature_hits, encode_seconds, ..VisionStatus::default() });
        let memory = MemoryPlan { weights: 500, kv: 60, kv_buffers: 4, images: 3, workspace: 7 };
        let (id, phase) = ("scripted".to_owned(), Phase::Ready);
        status.models =
            vec![ModelStatus { id, phase, queued: 2, running: 3, memory, ..ModelStatus::default() }];
        let coming = ModelStatus { id: "moon=/home/secret".to_owned(), ..ModelStatus::default() };
        status.models.push(coming);
        status.latency.time_to_first_token =
            Histogram { bounds: vec![0.001, 0.01], counts: vec![1, 2, 3], sum: 0.5 };
        status.latency.step_tokens = Histogram { bounds: vec![1.0, 8.0], counts: vec![4, 0, 1], sum: 20.0 };
        let (counters, latency) = (status.counters.clone(), status.latency.clone());
        let of =
            |id: &str| ModelFigures { id: id.to_owned(), load: status.load.clone(), ..Default::default() };
        status.figures = vec![ModelFigures { counters, latency, ..of("scripted") }, of("beside")];
        let busy = |name: &str, busy_seconds| DeviceStatus {
            name: name.to_owned(),
            threads: 2,
            models: 1,
            busy_seconds,
            ..Default::default()
        };
        status.devices = vec![busy("cpu0", 1.5), busy("cpu1", 0.25)];
    });
    Bench::over(scripted)
}

async fn scrape(bench: &Bench, accept: &str) -> (String, String) {
    let answer = bench.send(&format!("GET /metrics\naccept: {accept}")).await;
    let kind = answer.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
    let bytes = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    (kind, String::from_utf8(bytes.to_vec()).unwrap())
}

/// The page without what differs from release to release and from system to system.
fn repeatable(page: &str) -> String {
    let is_of_system = |line: &&str| line.contains("tidegate_process_") || line.contains("tidegate_memory_");
    let lines = page.lines().filter(|line| !is_of_system(line)).map(|line| format!("{line}\n"));
    lines.collect::<String>().replace(env!("CARGO_PKG_VERSION"), "VERSION")
}

#[tokio::test]
async fn each_reader_gets_its_format() {
    let (kind, text) = scrape(&bench(), "*/*").await;
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    compare("metrics/prometheus", &repeatable(&text));
    let (kind, text) =
        scrape(&bench(), "application/openmetrics-text;version=1.0.0;q=0.9,text/plain;q=0.1").await;
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(text.ends_with("# EOF\n"));
    let tells_of_the_process = text.contains("\ntidegate_process_resident_memory_bytes ");
    assert_eq!(tells_of_the_process, cfg!(target_os = "linux"));
}

/// The rules of `promtool check metrics`, as far as they concern us.
#[tokio::test]
async fn names_units_and_descriptions_are_as_prometheus_wants_them() {
    let bench = bench();
    bench.send("GET /v1/models").await;
    let (_, text) = scrape(&bench, "*/*").await;
    let mut kinds: BTreeMap<String, String> = BTreeMap::new();
    let mut described: Vec<String> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            described.push(rest.split(' ').next().unwrap().to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} is described twice");
        } else {
            let name = line.split(['{', ' ']).next().unwrap();
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
            let family = family.filter(|family| kinds.get(*family).is_some_and(|kind| kind == "histogram"));
            assert!(kinds.contains_key(family.unwrap_or(name)), "{name} has no type");
        }
    }
    for (name, kind) in &kinds {
        assert!(described.contains(name), "{name} is not described");
        assert!(name.starts_with("tidegate_"), "{name}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
        for unit in ["_ms", "_milliseconds", "_kb", "_megabytes", "_percent", "_bucket", "_sum", "_count"] {
            assert!(!name.ends_with(unit), "{name}");
        }
    }
}

#[tokio::test]
async fn dashboards_for_vllm_find_their_names() {
    let settings = Settings { aliases: Some(Aliases::Vllm), ..Settings::default() };
    let Bench { scripted, .. } = bench();
    let bench = Bench::with(scripted, settings);
    let (_, text) = scrape(&bench, "*/*").await;
    let aliases: String =
        text.lines().filter(|line| line.contains("vllm:")).map(|line| format!("{line}\n")).collect();
    compare("metrics/vllm", &aliases);
    let (_, text) = scrape(&bench, "application/openmetrics-text").await;
    assert_eq!((text.matches("# EOF").count(), text.contains("vllm:num_requests_running")), (1, true));
}

#[tokio::test]
async fn requests_and_bytes_are_counted() {
    let bench = bench();
    let sent = bench.json("GET /v1/models").await;
    bench.json("GET /v1/models/unknown").await;
    let ask = "{\"prompt\": \"Once\"}";
    bench.json(&format!("POST /v1/completions\n\n{ask}")).await;
    let (_, text) = scrape(&bench, "*/*").await;
    for told in [
        "tidegate_http_requests_total{route=\"/v1/models\",status=\"2xx\"} 1".to_owned(),
        "tidegate_http_requests_total{route=\"/v1/models/{*id}\",status=\"4xx\"} 1".to_owned(),
        "tidegate_http_request_duration_seconds_count{route=\"/v1/completions\"} 1".to_owned(),
        format!("tidegate_http_request_body_bytes_total {}", ask.len()),
        "tidegate_http_requests_in_flight 1".to_owned(),
        "tidegate_requests_accepted_total 1".to_owned(),
    ] {
        assert!(text.contains(&format!("{told}\n")), "{told} is missing in\n{text}");
    }
    let sent_bytes =
        text.lines().find_map(|line| line.strip_prefix("tidegate_http_response_body_bytes_total "));
    assert!(sent_bytes.unwrap().parse::<usize>().unwrap() > sent.to_string().len());
}
