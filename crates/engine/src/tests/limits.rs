//! Where continuations end, and which requests are refused.

use std::num::NonZeroU32;
use std::time::Duration;

use flow::queue::Rate;
use protocol::{Event, FinishReason, GenerateRequest, Inference, Prompt, Refusal, TenantId, Usage};

use super::bench::{Bench, Said, settings, tokenizer, tokens};
use super::model::{END, HashModel};
use crate::EngineSettings;

/// Runs a model that says `reply` after a prompt of one token.
fn say(reply: &str, ask: impl FnOnce(&mut GenerateRequest)) -> (Said, Usage) {
    let mut script = vec![0];
    script.extend(tokenizer().encode(reply).unwrap());
    script.push(END);
    let mut bench = Bench::new(HashModel { script, ..HashModel::new() }, settings(64, 64, 4));
    let mut request = tokens(vec![1], 1000);
    ask(&mut request);
    let client = bench.ask(request).unwrap();
    bench.finish();
    let mut heard = client.transcript();
    let Some(Event::Done { usage, .. }) = heard.end else { panic!("{heard:?}") };
    (heard.said.swap_remove(0), usage)
}

#[test]
fn end_of_sequence_ends_and_is_counted_but_not_shown() {
    let (said, usage) = say("Hello, wörld 🙂!", |_| ());
    assert_eq!(said.text, "Hello, wörld 🙂!");
    assert_eq!(said.reason, Some(FinishReason::Stop));
    assert_eq!(said.tokens.last(), Some(&END));
    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (1, said.tokens.len() as u32));
}

#[test]
fn stop_texts_end_before_themselves_wherever_tokens_are_cut() {
    let reply = "one two three 🙂 four";
    for (stop, text) in [
        ("thr", "one two "),
        ("🙂", "one two three "),
        ("e ", "on"),
        ("five", reply),
        (" four", "one two three 🙂"),
    ] {
        let (said, _) = say(reply, |request| request.limits.stop = vec!["never".to_owned(), stop.to_owned()]);
        assert_eq!((said.text.as_str(), said.reason), (text, Some(FinishReason::Stop)), "{stop}");
    }
}

#[test]
fn stop_tokens_end_and_are_not_shown() {
    let ids = tokenizer().encode("abc").unwrap();
    let (said, _) = say("abc", |request| request.limits.stop_token_ids = vec![*ids.last().unwrap()]);
    assert_eq!(said.tokens, ids);
    assert_eq!(said.text, tokenizer().decode(&ids[..ids.len() - 1], models::tokenizer::SpecialTokens::Keep));
}

#[test]
fn lengths_are_kept() {
    let (said, usage) = say("abcdefgh", |request| request.limits.max_tokens = Some(3));
    assert_eq!((said.reason, usage.completion_tokens), (Some(FinishReason::Length), 3));
    let (said, _) = say(&"<|endoftext|>".repeat(12), |request| request.limits.min_tokens = 7);
    assert_eq!(said.tokens.iter().position(|&token| token == END), Some(7), "{said:?}");
    assert_eq!((said.tokens.len(), said.reason), (8, Some(FinishReason::Stop)));
    let (said, _) = say("a", |request| {
        request.limits.ignore_eos = true;
        request.limits.max_tokens = Some(9);
    });
    assert_eq!((said.tokens.len(), said.reason), (9, Some(FinishReason::Length)));
    assert!(said.tokens.contains(&END) && !said.text.contains("endoftext"));
}

#[test]
fn without_a_limit_the_context_is_the_limit() {
    let mut request = tokens(vec![5; 40], 0);
    request.limits.max_tokens = None;
    request.limits.ignore_eos = true;
    let mut bench = Bench::new(HashModel::new(), settings(3, 16, 2));
    let client = bench.ask(request).unwrap();
    bench.finish();
    assert_eq!(client.transcript().said[0].tokens.len(), 3 * 32 - 40);
}

#[test]
fn an_incomplete_character_at_the_end_becomes_a_replacement() {
    let bytes = tokenizer().encode("🙂").unwrap();
    if bytes.len() > 1 {
        let (said, _) = say("🙂", |request| request.limits.max_tokens = Some(1));
        assert_eq!(said.text, "\u{fffd}");
    }
    let (said, _) = say("🙂", |request| request.limits.max_tokens = Some(bytes.len() as u32));
    assert_eq!(said.text, "🙂");
}

#[test]
fn text_prompts_are_tokenised_and_an_empty_one_begins_with_the_end_token() {
    let mut bench = Bench::new(HashModel::new(), settings(8, 64, 4));
    let mut heard = |prompt| {
        let client = bench.ask(GenerateRequest { prompt, ..tokens(vec![], 8) }).unwrap();
        bench.finish();
        client.transcript()
    };
    let ids = tokenizer().encode("Once upon a tide").unwrap();
    assert_eq!(heard(Prompt::Text("Once upon a tide".to_owned())), heard(Prompt::Tokens(ids)));
    assert_eq!(heard(Prompt::Text(String::new())), heard(Prompt::Tokens(vec![END])));
}

#[test]
fn logprobs_come_with_every_token_and_agree_with_greedy() {
    let mut bench = Bench::new(HashModel::new(), settings(8, 64, 4));
    let client = bench.ask(GenerateRequest { logprobs: Some(3), ..tokens(vec![9, 8], 12) }).unwrap();
    bench.finish();
    let said = client.transcript().said.swap_remove(0);
    assert_eq!(said.tokens.len(), said.logprobs.len());
    for (token, ((id, logprob), top)) in said.tokens.iter().zip(said.logprobs) {
        assert_eq!((*token, top.len()), (id, 3));
        assert_eq!(top[0], (id, logprob));
        let values: Vec<f32> = top.iter().map(|&(_, bits)| f32::from_bits(bits)).collect();
        assert!(values.is_sorted_by(|a, b| a >= b) && values[0] < 0.0);
    }
}

#[test]
fn requests_that_cannot_be_honoured_are_refused_by_the_name_of_the_parameter() {
    let bench = Bench::new(HashModel::new(), settings(4, 64, 4));
    let check = |param: &str, change: fn(&mut GenerateRequest)| {
        let mut request = tokens(vec![1], 4);
        change(&mut request);
        match bench.ask(request).map(|_| ()) {
            Err(Refusal::InvalidParameter { param: found, message }) => {
                assert_eq!(found, param);
                assert!(!message.is_empty());
            }
            other => panic!("{param}: {other:?}"),
        }
    };
    check("temperature", |r| r.sampling.temperature = Some(-0.1));
    check("temperature", |r| r.sampling.temperature = Some(f32::NAN));
    check("top_p", |r| r.sampling.top_p = Some(0.0));
    check("top_p", |r| r.sampling.top_p = Some(1.1));
    check("min_p", |r| r.sampling.min_p = Some(1.5));
    check("repetition_penalty", |r| r.sampling.repetition_penalty = Some(0.0));
    check("frequency_penalty", |r| r.sampling.frequency_penalty = 2.5);
    check("presence_penalty", |r| r.sampling.presence_penalty = f32::NAN);
    check("logit_bias", |r| r.sampling.logit_bias = vec![(512, 1.0)]);
    check("logit_bias", |r| r.sampling.logit_bias = vec![(5, 101.0)]);
    check("n", |r| r.choices = 0);
    check("n", |r| r.choices = 129);
    check("top_logprobs", |r| r.logprobs = Some(21));
    check("max_tokens", |r| r.limits.max_tokens = Some(0));
    check("min_tokens", |r| r.limits.min_tokens = 5);
    check("stop", |r| r.limits.stop = vec![String::new()]);
    check("stop", |r| r.limits.stop = vec!["a".to_owned(); 65]);
    check("stop_token_ids", |r| r.limits.stop_token_ids = vec![512]);
    check("prompt", |r| r.prompt = Prompt::Tokens(vec![512]));
    check("messages", |r| r.prompt = Prompt::Chat(protocol::Chat::default()));

    let refused = bench.ask(tokens(vec![1; 100], 29)).map(|_| ());
    let expected = Refusal::ContextLength { prompt_tokens: 100, max_tokens: Some(29), context: 128 };
    assert_eq!(refused, Err(expected));
    assert!(bench.ask(tokens(vec![1; 100], 28)).is_ok());
    let other = GenerateRequest { model: Some("other".to_owned()), ..tokens(vec![1], 1) };
    assert!(
        matches!(bench.ask(other).map(|_| ()), Err(Refusal::UnknownModel { near, .. }) if near == ["hash"])
    );
}

#[test]
fn a_rate_holds_back_everyone_and_says_when_to_come_back() {
    let rate = NonZeroU32::new(4).map(|requests| Rate::per_second(requests).burst(requests));
    let bench = Bench::new(HashModel::new(), EngineSettings { rate, ..settings(8, 64, 4) });
    let ask = |tenant: &str| {
        let tenant = TenantId(tenant.to_owned());
        bench.ask(GenerateRequest { tenant, ..tokens(vec![1], 1) }).map(drop)
    };
    let limited = |millis| Err(Refusal::RateLimited { retry_after: Duration::from_millis(millis) });
    assert_eq!(["a", "a", "b", "a", "b"].map(&ask), [Ok(()), Ok(()), Ok(()), Ok(()), limited(250)]);
    bench.clock.advance(Duration::from_millis(500));
    assert_eq!(["c", "a", "b"].map(&ask), [Ok(()), Ok(()), limited(250)]);
    let refused = bench.engine.status().counters.refused;
    assert!(refused.contains(&("rate_limited".to_owned(), 2)), "{refused:?}");
}
