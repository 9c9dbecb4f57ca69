//! Forms, on a model whose logits are noise: whatever it is made to say is due to the form alone.

use protocol::{Event, FinishReason, Form, GenerateRequest, Inference, Refusal};
use serde_json::{Value, json};

use crate::tests::bench::{Bench, Client, Said, Transcript, settings, tokens};
use crate::tests::model::HashModel;

fn shaped(form: Form, seed: u64) -> GenerateRequest {
    let mut request = GenerateRequest { form: Some(form), ..tokens(vec![seed as u32 % 500, 1, 2], 200) };
    request.sampling.temperature = Some(1.0);
    request.sampling.seed = Some(seed);
    request
}

fn person() -> Form {
    Form::JsonSchema(json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 8},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
        },
        "required": ["name", "age", "tags"],
        "additionalProperties": false,
    }))
}

fn is_person(text: &str) -> bool {
    let Ok(Value::Object(person)) = serde_json::from_str(text) else { return false };
    let name = person["name"].as_str().is_some_and(|name| name.chars().count() <= 8);
    let age = person["age"].as_u64().is_some_and(|age| age <= 150);
    let tags = person["tags"]
        .as_array()
        .is_some_and(|tags| tags.len() <= 3 && tags.iter().all(|tag| tag == "a" || tag == "b"));
    name && age && tags && person.len() == 3
}

fn alone(request: &GenerateRequest) -> Transcript {
    let mut bench = Bench::new(HashModel::new(), settings(64, 32, 4));
    let client = bench.ask(request.clone()).unwrap();
    bench.finish();
    client.transcript()
}

/// Every choice that ends by itself is of the form, and most do.
fn check(form: &Form, is_of_it: impl Fn(&str) -> bool) {
    let mut complete = 0;
    for seed in 0..24 {
        let request = GenerateRequest { choices: 2, ..shaped(form.clone(), seed) };
        for Said { text, reason, .. } in alone(&request).said {
            if reason == Some(FinishReason::Stop) {
                assert!(is_of_it(&text), "{} gave {text:?}", form.kind());
                complete += 1;
            }
        }
    }
    assert!(complete >= 40, "only {complete} of 48 came to an end");
}

#[test]
fn noise_is_kept_to_every_kind_of_form() {
    check(&person(), is_person);
    check(&Form::Regex("[0-9]{4}-[01][0-9]-[0-3][0-9]".to_owned()), |text| {
        text.len() == 10 && text.split('-').all(|part| part.parse::<u16>().is_ok())
    });
    let texts = ["yes", "no", "may\"be\n"].map(str::to_owned);
    check(&Form::Choice(texts.to_vec()), |text| texts.iter().any(|one| one == text));
    let grammar = "start: \"(\" item (\",\" item)? \")\"\nitem: /[a-f]/ | start";
    check(&Form::Grammar(grammar.to_owned()), |text| {
        text.matches('(').count() == text.matches(')').count() && text.starts_with('(')
    });
}

#[test]
fn the_same_request_gives_the_same_bytes_beside_others() {
    let requests: Vec<GenerateRequest> = (0..8)
        .map(|seed| match seed % 4 {
            0 => shaped(person(), seed),
            1 => tokens(vec![seed as u32, 7], 60),
            2 => GenerateRequest { choices: 3, ..shaped(Form::JsonObject, seed) },
            _ => shaped(Form::Regex("[a-z ]{30,40}".to_owned()), seed),
        })
        .collect();
    let expected: Vec<Transcript> = requests.iter().map(alone).collect();
    let mut bench = Bench::new(HashModel::new(), settings(9, 12, 8));
    let arrive = |request: &GenerateRequest| {
        bench.step();
        bench.ask(request.clone()).unwrap()
    };
    let clients: Vec<Client> = requests.iter().map(arrive).collect();
    bench.finish();
    assert!(bench.engine.status().counters.preemptions > 0, "nobody was preempted");
    let heard: Vec<Transcript> = clients.into_iter().map(Client::transcript).collect();
    assert_eq!(heard, expected);
}

#[test]
fn a_form_that_is_complete_ends_the_choice_and_its_tokens_are_counted() {
    let heard = alone(&shaped(Form::Choice(vec!["yes".to_owned()]), 1));
    assert_eq!(heard.said[0].text, "yes");
    let Some(Event::Done { usage, .. }) = heard.end else { panic!("{heard:?}") };
    assert_eq!(usage.completion_tokens as usize, heard.said[0].tokens.len());
    // It does not run on to a token that means the end, either.
    assert!(!heard.said[0].tokens.contains(&crate::tests::model::END));
}

#[test]
fn what_has_to_come_is_not_asked_of_the_model_and_is_the_same() {
    let choice = json!({"the only name that there is": {"enum": ["yes", "no"]}});
    let form = Form::JsonSchema(json!({
        "type": "object", "properties": choice,
        "required": ["the only name that there is"], "additionalProperties": false,
    }));
    let ask = |request: GenerateRequest| {
        let mut bench = Bench::new(HashModel::new(), settings(64, 32, 4));
        let client = bench.ask(request).unwrap();
        bench.finish();
        let [said] = &client.transcript().said[..] else { panic!("there is one choice") };
        (said.text.clone(), said.tokens.clone(), bench.engine.status().counters.steps)
    };
    for seed in 0..8 {
        let (text, tokens, steps) = ask(shaped(form.clone(), seed));
        // What the model thinks of every token is only known if it is asked.
        let asked = GenerateRequest { logprobs: Some(0), ..shaped(form.clone(), seed) };
        let (same_text, same_tokens, more) = ask(asked);
        assert_eq!((text, &tokens), (same_text, &same_tokens));
        assert_eq!(more, tokens.len() as u64);
        assert!(steps * 3 < more, "{steps} and {more}");
    }
}

#[test]
fn what_cannot_be_a_form_is_refused_with_the_reason() {
    let bench = Bench::new(HashModel::new(), settings(64, 32, 4));
    let refusal = |form: Form| match bench.ask(shaped(form, 1)).map(|_| ()) {
        Err(refusal @ Refusal::InvalidForm { .. }) => refusal.to_string(),
        other => panic!("{other:?}"),
    };
    for (form, told) in [
        (Form::JsonSchema(json!({"type": "object", "unevaluatedItems": false})), "unevaluatedItems"),
        (Form::JsonSchema(json!("string")), "expected a schema, which is an object, found \"string\""),
        (Form::JsonSchema(json!({"allOf": [{"type": "string"}, {"type": "integer"}]})), "JSON schema"),
        (Form::Regex("(".to_owned()), "regular expression"),
        (Form::Regex("(?=a)b".to_owned()), "look"),
        (Form::Choice(vec![]), "it is empty"),
        (Form::Grammar("start: nowhere".to_owned()), "nowhere"),
        (Form::Grammar(format!("start: \"{}\"", "a".repeat(300_000))), "expected at most 262144 bytes"),
    ] {
        let message = refusal(form);
        assert!(message.contains(told), "expected {told:?} in {message:?}");
    }
    let mut request = shaped(Form::JsonObject, 1);
    request.limits.min_tokens = 3;
    let refused = bench.ask(request).map(|_| ()).unwrap_err();
    assert!(matches!(refused, Refusal::InvalidParameter { param, .. } if param == "min_tokens"));
}
