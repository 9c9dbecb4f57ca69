//! The double keeps the contract it is meant to teach.

use std::time::Duration;

use futures::executor::block_on;
use futures::{FutureExt, StreamExt};

use super::*;
use crate::{Event, Failure, Prompt};

fn request(id: &str) -> GenerateRequest {
    GenerateRequest::new(id, Prompt::Text("Once".to_owned()))
}

fn generate(scripted: &Scripted, request: GenerateRequest) -> Result<Generation, Refusal> {
    block_on(scripted.generate(request))
}

#[test]
fn a_script_is_played_in_order_and_counted() {
    let scripted = Scripted::new().then(Script::text(&["Hel", "lo"]));
    let events: Vec<Event> = block_on(generate(&scripted, request("a")).unwrap().collect());
    let text: String = events
        .iter()
        .filter_map(|event| match event {
            Event::Delta(delta) => Some(delta.text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(text, "Hello");
    assert!(matches!(events.last(), Some(Event::Done { usage, .. }) if usage.completion_tokens == 2));
    assert_eq!(scripted.ledger().ended, [RequestId("a".to_owned())]);
    assert_eq!(scripted.status().load.running, 0);
}

#[test]
fn dropping_the_stream_is_recorded_at_every_stage() {
    let gate = Gate::new();
    let held = Script::new().queued(1).started().say("x").gate(&gate).finish_and_done();
    let scripted = Scripted::new().always(held);
    for (id, reads) in [("unread", 0), ("queued", 1), ("running", 3)] {
        let mut generation = generate(&scripted, request(id)).unwrap();
        for _ in 0..reads {
            assert!(block_on(generation.next()).is_some());
        }
        drop(generation);
    }
    let ids: Vec<String> = scripted.ledger().cancelled.into_iter().map(|id| id.0).collect();
    assert_eq!(ids, ["unread", "queued", "running"]);
    assert_eq!((scripted.status().load.queued, scripted.status().load.running), (0, 0));
}

#[test]
fn a_gate_holds_until_it_is_opened() {
    let gate = Gate::new();
    let scripted = Scripted::new().then(Script::new().started().gate(&gate).finish_and_done());
    let mut generation = generate(&scripted, request("a")).unwrap();
    assert_eq!(block_on(generation.next()), Some(Event::Started));
    assert_eq!(generation.next().now_or_never(), None);
    assert_eq!(scripted.status().load.running, 1);
    gate.open();
    assert!(matches!(block_on(generation.next()), Some(Event::Finished { .. })));
}

#[test]
fn a_drain_ends_with_the_last_request_and_admits_none() {
    let scripted = Scripted::new().then(Script::text(&["x"]));
    let generation = generate(&scripted, request("a")).unwrap();
    let mut drain = scripted.drain();
    assert_eq!((&mut drain).now_or_never(), None);
    assert!(matches!(generate(&scripted, request("b")), Err(Refusal::NotReady { .. })));
    let _ = block_on(generation.collect::<Vec<_>>());
    block_on(drain);
    assert_eq!(scripted.ledger().refused, 1);
}

#[test]
fn refusals_and_failures_come_as_written() {
    let full = Refusal::QueueFull { queued: 3, retry_after: Duration::from_secs(2) };
    let scripted = Scripted::new()
        .then(Script::refuse(full.clone()))
        .then(Script::new().fail(Failure::DeadlineExceeded));
    assert_eq!(generate(&scripted, request("a")).err(), Some(full));
    let mut generation = generate(&scripted, request("b")).unwrap();
    assert_eq!(block_on(generation.next()), Some(Event::Failed(Failure::DeadlineExceeded)));
    let unknown = GenerateRequest { model: Some("nope".to_owned()), ..request("c") };
    assert!(
        matches!(generate(&scripted, unknown), Err(Refusal::UnknownModel { near, .. }) if near == ["scripted"])
    );
}

#[test]
fn logprobs_come_if_and_only_if_asked_for() {
    let scripted = Scripted::new().then(Script::text(&["x"]));
    let asked = GenerateRequest { logprobs: Some(2), ..request("a") };
    let events: Vec<Event> = block_on(generate(&scripted, asked).unwrap().collect());
    assert!(matches!(&events[1], Event::Delta(delta) if delta.logprobs[0].top.len() == 2));
}

#[test]
fn a_script_that_breaks_the_contract_panics() {
    let broken = [
        Script::new().started().say("no end"),
        Script::new().say("not started").finish_and_done(),
        Script::new().started().choice(1).say("not asked for").finish_and_done(),
        Script::new().started().finish_and_done().say("after the end"),
        Script::new().started().done(),
        Script::new().started().queued(1).finish_and_done(),
    ];
    for script in broken {
        let told = format!("{script:?}");
        let scripted = Scripted::new().then(script);
        let played = std::panic::catch_unwind(|| generate(&scripted, request("a")).map(drop));
        assert!(played.is_err(), "{told} was accepted");
    }
}
