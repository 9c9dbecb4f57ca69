//! Whether a request may be answered from other computing than its own, and how an answer that was tells so.
//!
//! `reuse` is `"identical"` (the default), `"none"`, or `{"similar": 0.95}`. An answer that was not computed for its
//! request says in the header `x-tidegate-reused` where it comes from.

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use protocol::{Reused, Sharing};
use serde_json::Value;

use crate::failure::Problem;
use crate::fields::Fields;

/// Takes `reuse`.
pub(crate) fn read(fields: &mut Fields) -> Result<Sharing, Problem> {
    let told = "expected 'identical', 'none' or {\"similar\": 0.95}.";
    match fields.take("reuse") {
        None => Ok(Sharing::Identical),
        Some(Value::String(text)) if text == "identical" => Ok(Sharing::Identical),
        Some(Value::String(text)) if text == "none" => Ok(Sharing::None),
        Some(Value::String(_)) => Err(Problem::invalid("reuse", told)),
        Some(value) => {
            let mut similar = Fields::of(value, "reuse")?;
            let least = similar.number("similar", 0.5..=1.0)?.ok_or_else(|| similar.missing("similar"))?;
            if let Some(name) = similar.rest().keys().next() {
                return Err(Problem::invalid(format!("reuse.{name}"), told));
            }
            Ok(Sharing::Similar { least })
        }
    }
}

/// The response, marked if its answer was not computed for it.
pub(crate) fn marked(mut response: Response, reused: Option<Reused>) -> Response {
    let told = match reused {
        None => return response,
        Some(Reused::InFlight) => HeaderValue::from_static("in-flight"),
        Some(Reused::Kept) => HeaderValue::from_static("kept"),
        Some(Reused::Similar { likeness }) => {
            let told = format!("similar; likeness={likeness:.3}");
            HeaderValue::try_from(told).unwrap_or_else(|_| HeaderValue::from_static("similar"))
        }
    };
    response.headers_mut().insert(HeaderName::from_static("x-tidegate-reused"), told);
    response
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_may_be_reused_is_said_in_one_field() {
        let cases = [
            (json!({}), Ok(Sharing::Identical)),
            (json!({"reuse": "none"}), Ok(Sharing::None)),
            (json!({"reuse": "identical"}), Ok(Sharing::Identical)),
            (json!({"reuse": {"similar": 0.75}}), Ok(Sharing::Similar { least: 0.75 })),
            (json!({"reuse": "all"}), Err("reuse")),
            (json!({"reuse": 1}), Err("reuse")),
            (json!({"reuse": {}}), Err("reuse.similar")),
            (json!({"reuse": {"similar": 0.1}}), Err("reuse.similar")),
            (json!({"reuse": {"similar": 0.9, "mode": 1}}), Err("reuse.mode")),
        ];
        for (body, expected) in cases {
            let mut fields = Fields::of(body.clone(), "").unwrap();
            let found =
                read(&mut fields).map_err(|problem| serde_json::to_value(problem.envelope()).unwrap());
            let found = found.map_err(|told| told["error"]["param"].as_str().unwrap_or_default().to_owned());
            assert_eq!(found, expected.map_err(str::to_owned), "{body}");
        }
    }
}
