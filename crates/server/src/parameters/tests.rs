//! Reading parameters either succeeds or blames a parameter, whatever the body holds.

use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;

const NAMES: &[&str] = &[
    "model",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "frequency_penalty",
    "seed",
    "n",
    "presence_penalty",
    "logit_bias",
    "max_tokens",
    "max_completion_tokens",
    "min_tokens",
    "stop",
    "best_of",
    "stop_token_ids",
    "ignore_eos",
    "service_tier",
    "priority",
    "timeout",
    "stream",
    "stream_options",
    "tools",
    "tool_choice",
    "response_format",
    "structured_outputs",
    "guided_regex",
    "guided_choice",
    "typical_p",
    "mirostat",
    "metadata",
];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-3_i64..20).prop_map(Value::from),
        "[a-z0-9]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[0-9]{1,3}|include_usage|type", inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    #[test]
    fn any_body_is_read_or_blamed(body in prop::collection::vec((prop::sample::select(NAMES), value()), 0..6)) {
        let body: Map<String, Value> = body.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let mut fields = Fields::of(Value::Object(body), "").unwrap();
        let most = settings::Limits::default();
        match refuse_unsupported(&mut fields).and_then(|()| Parameters::read(&mut fields, &most)) {
            Ok(asked) => {
                prop_assert!((1..=most.choices).contains(&asked.choices));
                prop_assert!(asked.sampling.temperature.is_none_or(|t| (0.0..=2.0).contains(&t)));
                prop_assert!(asked.limits.max_tokens != Some(0));
            }
            Err(problem) => {
                let told = serde_json::to_value(problem.envelope()).unwrap();
                prop_assert_eq!(&told["error"]["type"], &json!("invalid_request_error"));
                prop_assert!(told["error"]["param"].is_string());
            }
        }
    }
}
