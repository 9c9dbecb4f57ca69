//! Chat completions against a scripted inference.

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use protocol::scripted::{Gate, Script, Scripted};
use protocol::{Delta, Event, Failure, FinishReason, Form, Inference, Marks, Refusal, TokenLogprob};
use serde_json::json;

use crate::Settings;
use crate::testing::{Bench, check, check_refusals, compare};

const PATH: &str = "/v1/chat/completions";
const ASK: &str = r#""messages": [{"role": "user", "content": "Say hello"}]"#;

fn post(fields: &str) -> String {
    format!("POST {PATH}\n\n{{{ASK}{fields}}}")
}

fn hello() -> Script {
    Script::text(&["Hel", "lo", "!"])
}

fn two_choices() -> Script {
    let both = Script::new().started().say("A").choice(1).say("B").say("C");
    both.finish(FinishReason::Length).choice(0).finish(FinishReason::Stop).done()
}

fn splits_a_character() -> Script {
    let entry =
        |id, bytes: &[u8], logprob| TokenLogprob { id, bytes: bytes.to_vec(), logprob, top: Vec::new() };
    let delta = |text: &str, logprobs: Vec<TokenLogprob>| {
        let tokens = logprobs.iter().map(|entry| entry.id).collect();
        Event::Delta(Delta { choice: 0, text: text.to_owned(), tokens, logprobs })
    };
    let first = TokenLogprob { top: vec![entry(9, b"never", f32::NEG_INFINITY)], ..entry(1, &[0xc3], -0.25) };
    let script = Script::new().started().event(delta("", vec![first]));
    script.event(delta("é", vec![entry(2, &[0xa9], -1.0)])).finish_and_done()
}

#[tokio::test]
async fn whole_replies() {
    check("chat/whole", &Bench::saying(hello()), &post("")).await;
    let cached = hello().prompt_tokens(40, 32);
    check("chat/cached_and_tier", &Bench::saying(cached), &post(r#", "service_tier": "flex""#)).await;
    check("chat/choices", &Bench::saying(two_choices()), &post(r#", "n": 2"#)).await;
    let wanted = r#", "logprobs": true, "top_logprobs": 2"#;
    check("chat/logprobs", &Bench::saying(Script::text(&["Hi"])), &post(wanted)).await;
    check("chat/split_character", &Bench::saying(splits_a_character()), &post(wanted)).await;
}

#[tokio::test]
async fn streams_byte_by_byte() {
    let stream = r#", "stream": true"#;
    check("chat/stream", &Bench::saying(hello()), &post(stream)).await;
    let usage = r#", "stream": true, "stream_options": {"include_usage": true}, "service_tier": "auto""#;
    check("chat/stream_usage", &Bench::saying(hello()), &post(usage)).await;
    check("chat/stream_choices", &Bench::saying(two_choices()), &post(r#", "stream": true, "n": 2"#)).await;
    let logprobs = r#", "stream": true, "logprobs": true, "top_logprobs": 1"#;
    check("chat/stream_logprobs", &Bench::saying(splits_a_character()), &post(logprobs)).await;
    let queued = Script::new().queued(2).queued(0).started().say("Hi").finish_and_done();
    check("chat/stream_queued", &Bench::saying(queued), &post(stream)).await;
    let silent = Script::new().started().finish_and_done();
    check("chat/stream_empty", &Bench::saying(silent), &post(stream)).await;
}

#[tokio::test]
async fn a_stream_never_ends_in_silence() {
    let begun = || Script::new().started().say("Hel");
    let stream = r#", "stream": true"#;
    let failure = Failure::Engine { message: "the pages are gone".to_owned() };
    check("chat/stream_failed", &Bench::saying(begun().fail(failure)), &post(stream)).await;
    check("chat/stream_cut", &Bench::saying(begun().cut()), &post(stream)).await;
    let late = Script::new().queued(3).fail(Failure::DeadlineExceeded);
    check("chat/stream_late", &Bench::saying(late), &post(stream)).await;
    check("chat/whole_cut", &Bench::saying(begun().cut()), &post("")).await;
}

#[tokio::test(start_paused = true)]
async fn a_waiting_stream_is_kept_alive() {
    let gate = Gate::new();
    let bench = Bench::saying(Script::new().queued(1).gate(&gate).started().say("Hi").finish_and_done());
    let mut body = bench.send(&post(r#", "stream": true"#)).await.into_body().into_data_stream();
    let mut next = async || String::from_utf8(body.next().await.unwrap().unwrap().to_vec()).unwrap();
    assert_eq!(next().await, ": queued position=2\n\n");
    let before = tokio::time::Instant::now();
    assert_eq!(next().await, ": keep-alive\n\n");
    assert_eq!(next().await, ": keep-alive\n\n");
    assert_eq!(before.elapsed(), Duration::from_secs(30));
    gate.open();
    assert!(next().await.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn dropping_a_reply_cancels_it() {
    let gate = Gate::new();
    let bench = Bench::saying(Script::new().started().say("Hi").gate(&gate).finish_and_done());
    let mut body = bench.send(&post(r#", "stream": true"#)).await.into_body().into_data_stream();
    assert!(body.next().await.is_some());
    assert_eq!(bench.scripted.ledger().active(), 1);
    drop(body);
    assert_eq!(bench.scripted.ledger().cancelled.len(), 1);
    let whole = post("");
    let mut whole = Box::pin(bench.send(&whole));
    assert!((&mut whole).now_or_never().is_none());
    assert_eq!(bench.scripted.ledger().active(), 1);
    drop(whole);
    assert_eq!(bench.scripted.ledger().cancelled.len(), 2);
}

/// What a request becomes on its way to the engine.
async fn check_request(case: &str, body: &str) {
    let bench = Bench::saying(hello());
    let written = format!("POST {PATH}\nx-request-id: the-request\n\n{body}");
    let answer = bench.send(&written).await;
    assert_eq!(answer.status(), 200, "{:?}", bench.json(&written).await);
    let asked = bench.scripted.ledger().accepted.remove(0);
    compare(case, &format!("{body}\n\n{asked:#?}\n"));
}

#[tokio::test]
async fn parameters_reach_the_engine() {
    check_request("chat/request_plain", &format!("{{{ASK}}}")).await;
    let sampling = r#""model": "scripted", "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "seed": -1,
  "repetition_penalty": 1.1, "frequency_penalty": 0.25, "presence_penalty": -0.5, "logit_bias": {"42": -100, "7": 1.5}"#;
    let limits = r#""max_completion_tokens": 32, "min_tokens": 4, "stop": ["\n\n", "END"], "stop_token_ids": [1, 2],
  "ignore_eos": true, "timeout": 2.5, "priority": -3, "service_tier": "flex""#;
    let ignored = r#""user": "u", "metadata": null, "store": true, "parallel_tool_calls": false, "tools": [],
  "tool_choice": "auto", "response_format": {"type": "text"}, "modalities": ["text"], "reasoning_effort": "low""#;
    let template = r#""chat_template_kwargs": {"enable_thinking": false}, "add_generation_prompt": false"#;
    check_request(
        "chat/request_full",
        &format!("{{{ASK},\n  {sampling},\n  {limits},\n  {ignored},\n  {template}}}"),
    )
    .await;
    let turns = r#"{"messages": [
  {"role": "developer", "content": "Be brief"},
  {"role": "user", "name": "ann", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
  {"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f"}}]},
  {"role": "tool", "tool_call_id": "c1", "content": "3"}]}"#;
    check_request("chat/request_turns", turns).await;
}

#[tokio::test]
async fn seeds_and_tiers() {
    let bench = Bench::saying(hello());
    let cases = [
        (r#", "seed": 18446744073709551615"#, Some(u64::MAX), protocol::Priority::Normal),
        (r#", "seed": 0, "service_tier": "auto""#, Some(0), protocol::Priority::Normal),
        (r#", "service_tier": "flex""#, None, protocol::Priority::Low),
        (r#", "service_tier": "priority""#, None, protocol::Priority::High),
        (r#", "service_tier": "fast", "priority": 5"#, None, protocol::Priority::Low),
    ];
    for (fields, seed, priority) in cases {
        assert_eq!(bench.send(&post(fields)).await.status(), 200, "{fields}");
        let asked = bench.scripted.ledger().accepted.pop().unwrap();
        assert_eq!((asked.sampling.seed, asked.priority), (seed, priority), "{fields}");
    }
}

#[tokio::test]
async fn what_cannot_be_honoured_is_refused() {
    let bench = Bench::over(Scripted::new());
    let with = |fields: &str| format!("{{{ASK}, {fields}}}");
    let unsupported = [
        r#""tools": [{"type": "function", "function": {"name": "f"}}]"#,
        r#""tool_choice": "required""#,
        r#""tools": [{}], "tool_choice": "auto""#,
        r#""functions": [{"name": "f"}]"#,
        r#""response_format": {"type": "xml"}"#,
        r#""response_format": {"type": "json_schema", "json_schema": {}}"#,
        r#""structured_outputs": {"backend": "x"}"#,
        r#""guided_choice": "one""#,
        r#""audio": {"voice": "alloy"}"#,
        r#""modalities": ["text", "audio"]"#,
        r#""prediction": {"type": "content", "content": "x"}"#,
        r#""best_of": 3"#,
        r#""n": 2, "best_of": 1"#,
        r#""use_beam_search": true"#,
        r#""echo": true"#,
        r#""continue_final_message": true"#,
        r#""skip_special_tokens": false"#,
        r#""prompt_logprobs": 1"#,
    ];
    let unsupported: Vec<String> = unsupported.iter().map(|fields| with(fields)).collect();
    let sound = r#"{"messages": [{"role": "user", "content": [{"type": "text", "text": "what is this?"}, {"type": "input_audio", "input_audio": {}}]}]}"#;
    let bodies: Vec<&str> = unsupported.iter().map(String::as_str).chain([sound]).collect();
    check_refusals("chat/unsupported", &bench, PATH, &bodies).await;
}

/// A picture of four red pixels.
const RED: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAEElEQVR42mP4z8AARAwQCgAf7gP9Y167WwAAAABJRU5ErkJggg==";
/// One that says it has 60,000 by 60,000.
const GIANT: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAA6mAAAOpgCAIAAAAPsOIVAAAACElEQVR42gMAAAAAAW/dyZEAAAAASUVORK5CYII=";

fn shown(url: &str) -> String {
    format!(
        r#"{{"messages": [{{"role": "user", "content": [{{"type": "image_url", "image_url": {url}}}]}}]}}"#
    )
}

#[tokio::test]
async fn pictures_reach_the_engine_in_order() {
    let turns = format!(
        r#"{{"messages": [
  {{"role": "user", "content": [{{"type": "text", "text": "This"}}, {{"type": "image_url", "image_url": {{"url": "{RED}", "detail": "low"}}}},
    {{"type": "text", "text": "and this"}}, {{"type": "image_url", "image_url": "{RED}"}}]}},
  {{"role": "assistant", "content": "Both are red."}},
  {{"role": "user", "content": [{{"type": "text", "text": "one"}}, {{"type": "text", "text": "two"}}]}}]}}"#
    );
    check_request("chat/request_images", &turns).await;
}

#[tokio::test]
async fn frames_of_clips_reach_the_engine_in_order() {
    let bare = RED.strip_prefix("data:image/png;base64,").unwrap();
    let turns = format!(
        r#"{{"messages": [{{"role": "user", "content": [
  {{"type": "video", "video": ["{RED}", "{RED}", "{RED}"], "fps": 4}}, {{"type": "image_url", "image_url": "{RED}"}},
  {{"type": "video_url", "video_url": {{"url": "data:video/jpeg;base64,{bare},{bare}"}}}}, {{"type": "text", "text": "What moves?"}}]}}]}}"#
    );
    check_request("chat/request_clips", &turns).await;
}

#[tokio::test]
async fn clips_that_cannot_be_used_are_named() {
    let clips = [
        r#""type": "video", "video": "https://example.org/a.mp4""#.to_owned(),
        r#""type": "video", "video": [7]"#.to_owned(),
        format!(r#""type": "video", "video": ["{RED}", "{GIANT}"]"#),
        format!(r#""type": "video", "video": ["{RED}", "{RED}"], "fps": 0"#),
        r#""type": "video""#.to_owned(),
        r#""type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}"#.to_owned(),
        r#""type": "video_url", "video_url": {"url": "data:video/jpeg;base64,AA*A,AAAA"}"#.to_owned(),
        format!(r#""type": "video", "video": [{}]"#, vec![format!("\"{RED}\""); 5].join(", ")),
    ];
    let body = |clip: &String| format!(r#"{{"messages": [{{"role": "user", "content": [{{{clip}}}]}}]}}"#);
    let bodies: Vec<String> = clips.iter().map(body).collect();
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    let mut settings = Settings::default();
    settings.limits.image.max_frames = 4;
    check_refusals("chat/clips_refused", &Bench::with(Scripted::new(), settings), PATH, &bodies).await;
}

#[tokio::test]
async fn pictures_that_cannot_be_used_are_named() {
    let urls = [
        "7".to_owned(),
        "{}".to_owned(),
        r#"{"url": "https://example.org/a.png"}"#.to_owned(),
        r#"{"url": "data:image/png;base64,AAECAwQFBgcICQ=="}"#.to_owned(),
        r#"{"url": "data:image/png;base64,"}"#.to_owned(),
        r#"{"url": "data:image/png;base64,AA*A"}"#.to_owned(),
        format!(r#"{{"url": "{RED}", "detail": "utmost"}}"#),
        format!(r#"{{"url": "{}"}}"#, &RED[..46]),
        format!(r#"{{"url": "{GIANT}"}}"#),
    ];
    let bodies: Vec<String> = urls.iter().map(|url| shown(url)).collect();
    let part = format!(r#"{{"type": "image_url", "image_url": "{RED}"}}"#);
    let many = format!(r#"{{"messages": [{{"role": "user", "content": [{part}, {part}, {part}]}}]}}"#);
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).chain([many.as_str()]).collect();
    let mut settings = Settings::default();
    settings.limits.images = 2;
    let bench = Bench::with(Scripted::new(), settings);
    check_refusals("chat/images_refused", &bench, PATH, &bodies).await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let bench = Bench::over(Scripted::new());
    let with = |fields: &str| format!("{{{ASK}, {fields}}}");
    let invalid = [
        r#""temperature": 2.5"#,
        r#""temperature": "hot""#,
        r#""top_p": -0.1"#,
        r#""n": 0"#,
        r#""n": 1.5"#,
        r#""max_tokens": 0"#,
        r#""max_tokens": 5, "max_completion_tokens": 6"#,
        r#""max_tokens": 5, "min_tokens": 6"#,
        r#""stop": ["a", ""]"#,
        r#""stop": 7"#,
        r#""stop": ["1","2","3","4","5","6","7","8","9","10","11","12","13","14","15","16","17"]"#,
        r#""stop_token_ids": [1, -1]"#,
        r#""logit_bias": {"the": 1}"#,
        r#""logit_bias": {"5": 101}"#,
        r#""logprobs": true, "top_logprobs": 21"#,
        r#""top_logprobs": 2"#,
        r#""logprobs": 2"#,
        r#""stream": "yes""#,
        r#""stream_options": {"include_usage": true}"#,
        r#""stream": true, "stream_options": {"include_usage": 1}"#,
        r#""service_tier": "gold""#,
        r#""model": 3"#,
        r#""timeout": 0"#,
        r#""seed": 1e3"#,
    ];
    let invalid: Vec<String> = invalid.iter().map(|fields| with(fields)).collect();
    let bodies = [
        "{}",
        r#"{"messages": []}"#,
        r#"{"messages": "hello"}"#,
        r#"{"messages": ["hello"]}"#,
        r#"{"messages": [{"content": "hello"}]}"#,
        r#"{"messages": [{"role": "pirate", "content": "arr"}]}"#,
        r#"{"messages": [{"role": "user"}]}"#,
        r#"{"messages": [{"role": "user", "content": {"text": "x"}}]}"#,
        r#"{"messages": [{"role": "user", "content": [{"type": "text"}]}]}"#,
        r#"{"messages": [{"role": "user", "content": [{"text": "x"}]}]}"#,
        "[1]",
        "{",
        r#"{"messages": [{"role": "user", "content": "\ud800"}]}"#,
    ];
    let bodies: Vec<&str> = invalid.iter().map(String::as_str).chain(bodies).collect();
    check_refusals("chat/invalid", &bench, PATH, &bodies).await;
}

/// A model that reasons and calls tools.
fn taught(script: Script) -> Bench {
    let mut card = Scripted::new().models().remove(0);
    card.reasoning = Some(Marks::new("<think>", "</think>"));
    card.calls = Some(Marks::new("<tool_call>", "</tool_call>"));
    Bench::over(Scripted::with_models(vec![card]).always(script))
}

const TOOLS: &str = r#", "tools": [{"type": "function", "function": {"name": "add", "description": "Adds.",
  "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}}]"#;

fn calls_twice() -> Script {
    Script::text(&[
        "<think>\nAdd",
        " it.\n</think>\n",
        "\nI add.\n<tool",
        "_call>\n{\"name\": \"add\", \"arguments\": {\"a\"",
        ": 1}}\n</tool_call>",
        "\n<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 2}}\n</tool_call>",
    ])
}

#[tokio::test]
async fn reasoning_and_calls_are_told_apart() {
    check("chat/calls", &taught(calls_twice()), &post(TOOLS)).await;
    check("chat/calls_stream", &taught(calls_twice()), &post(&format!("{TOOLS}, \"stream\": true"))).await;
    let cut = Script::new()
        .started()
        .say("<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1")
        .finish(FinishReason::Length)
        .done();
    check("chat/calls_cut", &taught(cut), &post(TOOLS)).await;
    let inside = Script::text(&["hm", "</think>", "yes"]).reasons_at_once();
    check("chat/reasons_at_once", &taught(inside), &post("")).await;
    // Where no tool is offered, a mark is text.
    check("chat/calls_unasked", &taught(Script::text(&["<tool_call>{}</tool_call>"])), &post("")).await;
}

#[tokio::test]
async fn forms_and_tools_reach_the_engine() {
    let asked = async |fields: &str| {
        let bench = taught(hello());
        assert_eq!(bench.send(&post(fields)).await.status(), 200, "{fields}");
        bench.scripted.ledger().accepted.remove(0)
    };
    let format =
        r#", "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "null"}}}"#;
    assert_eq!(asked(format).await.form, Some(Form::JsonSchema(json!({"type": "null"}))));
    let free = asked(TOOLS).await;
    let protocol::Prompt::Chat(chat) = &free.prompt else { panic!("{free:?}") };
    assert_eq!(chat.template_options["tools"][0]["function"]["name"], "add");
    assert_eq!((free.form, free.limits.stop), (None, vec![]));
    let one = asked(&format!(r#"{TOOLS}, "parallel_tool_calls": false"#)).await;
    assert_eq!(one.limits.stop, ["</tool_call>"]);
    let demanded = asked(&format!(r#"{TOOLS}, "tool_choice": "required""#)).await;
    assert!(matches!(demanded.form, Some(Form::Grammar(grammar)) if grammar.contains("<tool_call>")));
    let forbidden = asked(&format!(r#"{TOOLS}, "tool_choice": "none", "reasoning_effort": "none""#)).await;
    let protocol::Prompt::Chat(chat) = &forbidden.prompt else { panic!("{forbidden:?}") };
    assert_eq!(serde_json::Value::Object(chat.template_options.clone()), json!({"enable_thinking": false}));
}

#[tokio::test]
async fn forms_that_the_engine_refuses_are_the_clients_mistake() {
    let refusals = [
        Refusal::InvalidForm { kind: "JSON schema", message: "unknown keyword 'x'".to_owned() },
        Refusal::InvalidForm { kind: "grammar", message: "unknown name 'x'".to_owned() },
        Refusal::FormTimeout { kind: "JSON schema", waited: Duration::from_secs(10) },
    ];
    let mut shown = String::new();
    for refusal in refusals {
        let error = Bench::saying(Script::refuse(refusal)).json(&post("")).await;
        shown += &format!("{error:#}\n");
    }
    compare("chat/forms_refused", &shown);
}

#[tokio::test]
async fn what_the_client_has_not_read_stays_with_the_engine() {
    let long = (0..10_000).fold(Script::new().started(), |script, _| script.say("word ")).finish_and_done();
    let bench = Bench::saying(long);
    let mut body = bench.send(&post(r#", "stream": true"#)).await.into_body().into_data_stream();
    let first = body.next().await.unwrap().unwrap();
    assert!((16 << 10..20 << 10).contains(&first.len()), "{} bytes were written at once", first.len());
    assert_eq!(bench.scripted.ledger().active(), 1);
    let rest = body.fold(0, async |bytes, frame| bytes + frame.unwrap().len()).await;
    assert!(rest > 1 << 20);
    assert_eq!(bench.scripted.ledger().active(), 0);
}
