//! What holds for every endpoint: keys, limits, names, and one case for each row of the table of errors.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::Request;
use futures::{StreamExt, stream};
use protocol::scripted::{Script, Scripted};
use protocol::{Failure, Refusal};
use tower::ServiceExt;

use crate::testing::{Bench, check};
use crate::{Key, Keys, Limits, Overload, Settings};

const ASK: &str = "POST /v1/chat/completions\n\n{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}";

fn hello() -> Script {
    Script::text(&["Hi"])
}

async fn refused(case: &str, refusal: Refusal) {
    check(&format!("errors/{case}"), &Bench::saying(Script::refuse(refusal)), ASK).await;
}

async fn failed(case: &str, failure: Failure) {
    let script = Script::new().started().say("x").fail(failure);
    check(&format!("errors/{case}"), &Bench::saying(script), ASK).await;
}

#[tokio::test]
async fn every_refusal_has_its_status() {
    let full = |seconds| Refusal::QueueFull { queued: 512, retry_after: Duration::from_secs_f64(seconds) };
    refused("queue_full", full(3.2)).await;
    refused("queue_full_at_once", full(0.0)).await;
    refused("queue_full_for_long", full(900.0)).await;
    refused("rate_limited", Refusal::RateLimited { retry_after: Duration::from_secs(7) }).await;
    refused("context", Refusal::ContextLength { prompt_tokens: 3000, max_tokens: Some(2000), context: 4096 })
        .await;
    refused("not_ready", Refusal::NotReady { reason: "it is loading".to_owned() }).await;
    let message = "the token 99999 is not in the vocabulary of 32000".to_owned();
    refused("engine_says_invalid", Refusal::InvalidParameter { param: "logit_bias".to_owned(), message })
        .await;
    let unknown =
        Refusal::UnknownModel { model: "tid".to_owned(), near: vec!["tide".to_owned(), "tidy".to_owned()] };
    refused("unknown_model", unknown).await;
}

#[tokio::test]
async fn every_failure_has_its_status() {
    failed("deadline", Failure::DeadlineExceeded).await;
    failed("deadline_out_of_reach", Failure::DeadlineOutOfReach { needs: Duration::from_millis(2340) }).await;
    failed("shutting_down", Failure::ShuttingDown).await;
    failed("engine", Failure::Engine { message: "no page is left".to_owned() }).await;
}

#[tokio::test]
async fn a_full_queue_may_be_reported_as_503() {
    let full = Refusal::QueueFull { queued: 512, retry_after: Duration::from_secs(3) };
    let settings = Settings { overload: Overload::Unavailable, ..Settings::default() };
    let bench = Bench::with(Scripted::new().then(Script::refuse(full)), settings);
    check("errors/queue_full_as_503", &bench, ASK).await;
}

#[tokio::test]
async fn routes_and_methods() {
    let bench = Bench::over(Scripted::new());
    check("errors/unknown_route", &bench, "GET /v1/nothing?secret=1").await;
    check("errors/wrong_method", &bench, "GET /v1/chat/completions").await;
    check(
        "errors/form",
        &bench,
        "POST /v1/completions\ncontent-type: application/x-www-form-urlencoded\n\n{}",
    )
    .await;
    check("errors/gzip", &bench, "POST /v1/completions\ncontent-encoding: gzip\n\n{}").await;
    check("errors/empty_body", &bench, "POST /v1/completions").await;
}

#[tokio::test]
async fn a_panic_is_an_answer_too() {
    check("errors/panic", &Bench::over(Scripted::new()), ASK).await;
}

#[tokio::test]
async fn keys_guard_everything_but_health() {
    let keys = Keys::default().with("alice", Key::of("sk-alice"));
    let settings = Settings { keys, metrics_key: Some(Key::of("scraper")), ..Settings::default() };
    let bench = Bench::with(Scripted::new().always(hello()), settings);
    check("keys/missing", &bench, ASK).await;
    check("keys/wrong", &bench, &ASK.replace("\n\n", "\nauthorization: Bearer sk-bob\n\n")).await;
    for (path, header, status) in [
        ("/v1/models", "x: y", 401),
        ("/v1/models", "authorization: Bearer sk-alice", 200),
        ("/v1/models", "x-api-key: sk-alice", 200),
        ("/v1/nothing", "x: y", 401),
        ("/v1/nothing", "authorization: Bearer sk-alice", 404),
        ("/health", "x: y", 200),
        ("/livez", "x: y", 200),
        ("/readyz", "x: y", 200),
        ("/startupz", "x: y", 200),
        ("/metrics", "x: y", 401),
        ("/metrics", "authorization: Bearer sk-alice", 401),
        ("/metrics", "authorization: Bearer scraper", 200),
    ] {
        let answer = bench.send(&format!("GET {path}\n{header}")).await;
        assert_eq!(answer.status(), status, "{path} with {header}");
    }
    bench.send(&ASK.replace("\n\n", "\nauthorization: Bearer sk-alice\n\n")).await;
    assert_eq!(bench.scripted.ledger().accepted[0].tenant.0, "alice");
}

fn small() -> Bench {
    let limits = Limits { body_bytes: 64, ..Limits::default() };
    Bench::with(Scripted::new().always(hello()), Settings { limits, ..Settings::default() })
}

#[tokio::test]
async fn a_large_body_is_refused_before_it_is_read() {
    let unread = stream::once(async { panic!("the body was read") as Result<Bytes, std::io::Error> });
    let request =
        Request::post("/v1/completions").header("content-length", "65").header("expect", "100-continue");
    let answer = small().router.oneshot(request.body(Body::from_stream(unread)).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 413);
    check("errors/too_large", &small(), &format!("POST /v1/completions\n\n{}", "x".repeat(65))).await;
}

#[tokio::test]
async fn a_large_body_without_length_is_refused_while_it_is_read() {
    let endless = stream::repeat(Bytes::from_static(b"xxxxxxxxxxxxxxxx")).map(Ok::<_, std::io::Error>);
    let request =
        Request::post("/v1/completions").header("expect", "x").body(Body::from_stream(endless.take(5)));
    let answer = small().router.oneshot(request.unwrap()).await.unwrap();
    assert_eq!(answer.status(), 413);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_arrive_is_given_up() {
    let never = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    let request = Request::post("/v1/completions").body(never).unwrap();
    let answer = small().router.oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 408);
}

#[tokio::test]
async fn the_request_id_is_kept_if_it_is_fit_to_print() {
    let bench = Bench::saying(hello());
    for (told, kept) in [("abc-123", true), ("has space", false), (&*"x".repeat(129), false)] {
        let answer = bench.send(&format!("GET /v1/models\nx-request-id: {told}")).await;
        let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
        assert_eq!(id == told, kept, "{told} became {id}");
        assert!(kept || id.len() == 36);
        assert!(answer.headers().contains_key("openai-processing-ms"));
    }
}
