//! What is written while an answer comes, and what is known when it has ended.

use std::future::{pending, ready};

use futures::executor::block_on;
use protocol::scripted::{Gate, Script, Scripted};
use protocol::{Failure, GenerateRequest, Inference, Prompt};

use super::*;

/// Plays a script to a printer and returns what it wrote and how it ended.
fn play(form: Form, script: Script, stop: impl Future<Output = ()>) -> (String, anyhow::Result<Answer>) {
    let scripted = Scripted::new().then(script);
    let mut written = Vec::new();
    let request = GenerateRequest::new("one", Prompt::Text("Once".to_owned()));
    let answer = block_on(async {
        let generation = scripted.generate(request).await?;
        follow(generation, &mut Printer::new(form, &mut written), stop).await
    });
    assert_eq!(scripted.ledger().active(), 0, "the request has ended or was cancelled");
    (String::from_utf8(written).unwrap(), answer)
}

#[test]
fn text_ends_with_one_line_break() {
    let check = |pieces: &[&str], expected: &str| {
        let (written, answer) = play(Form::Text, Script::text(pieces), pending());
        assert_eq!(written, expected);
        assert_eq!(answer.unwrap().ending, Ending::Finished(FinishReason::Stop));
    };
    check(&["Hel", "lo"], "Hello\n");
    check(&["Hello\n"], "Hello\n");
    check(&[], "\n");
}

#[test]
fn object_comes_at_the_end() {
    let (written, _) = play(Form::Object, Script::text(&["Hel", "lo"]), pending());
    let object: Value = serde_json::from_str(&written).unwrap();
    assert_eq!(object["text"], "Hello");
    assert_eq!(object["finish_reason"], "stop");
    assert_eq!(object["model"], "scripted");
    assert_eq!(object["usage"], json!({ "prompt_tokens": 7, "cached_tokens": 0, "completion_tokens": 2 }));
    assert!(object["timing"]["total_ms"].is_number());
}

#[test]
fn lines_come_one_per_event() {
    let (written, _) = play(Form::Lines, Script::text(&["Hel", "lo"]), pending());
    let lines: Vec<Value> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["accepted", "delta", "delta", "done"]);
    assert_eq!(lines[1]["text"], "Hel");
    assert_eq!(lines[3]["text"], "Hello");
}

#[test]
fn interruption_cancels_and_says_so() {
    let script = Script::new().started().say("never").gate(&Gate::new()).finish_and_done();
    let (written, answer) = play(Form::Object, script, ready(()));
    let object: Value = serde_json::from_str(&written).unwrap();
    assert_eq!(object["finish_reason"], "interrupted");
    assert_eq!(answer.unwrap().ending, Ending::Interrupted);
}

#[test]
fn failures_are_errors_and_what_came_before_stays() {
    let check = |script: Script, expected: &str| {
        let (written, answer) = play(Form::Text, script, pending());
        assert_eq!(written, "Hel");
        assert_eq!(answer.unwrap_err().to_string(), expected);
    };
    let begun = || Script::new().started().say("Hel");
    check(begun().fail(Failure::DeadlineExceeded), "the request's deadline passed");
    check(begun().cut(), "the engine broke off without saying why");
}

#[test]
fn remarks() {
    let timing = |first, total| {
        let millis = Duration::from_millis;
        Some(Timing {
            queued: millis(1),
            first_token: millis(first),
            total: millis(total),
            ..Timing::default()
        })
    };
    let check = |tokens, ending, timing, expected: &str| {
        let usage = Usage { completion_tokens: tokens, ..Usage::default() };
        let answer = Answer { model: String::new(), text: String::new(), ending, usage, timing };
        assert_eq!(answer.remark(), expected);
    };
    let (stop, length) = (Ending::Finished(FinishReason::Stop), Ending::Finished(FinishReason::Length));
    check(1, stop, timing(30, 30), "1 token, first after 30 ms");
    check(11, length, timing(30, 130), "11 tokens, 100.0 a second, first after 30 ms, cut at the limit");
    check(3, Ending::Interrupted, None, "3 tokens, interrupted");
}
