//! `POST /v1/score`: a score for each pair of texts, as vLLM spells it.
//!
//! `text_1` is one text for all of `text_2`, or one for each. What the scores are, the reply tells: what a cross-encoder
//! says, or the cosine of two vectors.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::routing::post;
use axum::{Extension, Json};
use protocol::{RequestId, ScoreRequest};
use serde::Serialize;

use super::rerank::measure;
use super::{Access, Endpoint};
use crate::app::{App, unix_seconds};
use crate::body;
use crate::failure::Problem;
use crate::fields::Fields;
use crate::observe::Call;
use crate::parameters;
use crate::reading::{Asked, TokensRead, answer, note, texts};
use crate::settings::Limits;

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint { path: "/v1/score", access: Access::Work, route: || post(create) },
    Endpoint { path: "/score", access: Access::Work, route: || post(create) },
];

async fn create(
    State(app): State<Arc<App>>,
    Extension(call): Extension<Call>,
    request: Request,
) -> Result<Json<List>, Problem> {
    let fields = body::read(request, &app.settings).await?;
    let request = asked(fields, &call, &app.settings.limits)?;
    call.charge(&request)?;
    let scores = answer(&app, app.inference.score(request), "text_2").await?;
    note(&call, &scores.model, (scores.tokens, scores.timing));
    let told = |(index, score)| Told { index, object: "score", score };
    Ok(Json(List {
        id: app.fresh_id("score-"),
        object: "list",
        created: unix_seconds(),
        model: scores.model,
        measure: measure(scores.measure),
        data: scores.values.into_iter().enumerate().map(told).collect(),
        usage: TokensRead::new(scores.tokens),
    }))
}

fn asked(mut fields: Fields, call: &Call, most: &Limits) -> Result<ScoreRequest, Problem> {
    let asked = Asked::read(&mut fields)?;
    let queries = texts(fields.required("text_1")?, "text_1", most)?;
    let documents = texts(fields.required("text_2")?, "text_2", most)?;
    if queries.len() != 1 && queries.len() != documents.len() {
        let (found, expected) = (queries.len(), documents.len());
        let told = format!("expected one text, or as many as text_2 has ({expected}), but got {found}.");
        return Err(Problem::invalid("text_1", told));
    }
    let request = ScoreRequest {
        id: RequestId(call.id.to_string()),
        model: asked.model,
        queries,
        documents,
        overlong: asked.overlong,
        tenant: call.tenant(),
        priority: asked.urgency.priority,
        deadline: asked.deadline,
    };
    parameters::note_unknown(fields);
    Ok(request)
}

#[derive(Serialize)]
struct List {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    measure: &'static str,
    data: Vec<Told>,
    usage: TokensRead,
}

#[derive(Serialize)]
struct Told {
    index: usize,
    object: &'static str,
    score: f32,
}

#[cfg(test)]
mod tests {
    use protocol::scripted::Scripted;

    use crate::testing::{Bench, check, check_refusals};

    #[tokio::test]
    async fn one_to_many_and_each_to_each() {
        let bench = Bench::over(Scripted::new());
        check(
            "score/one_to_many",
            &bench,
            r#"POST /v1/score

{"model": "scripted", "text_1": "tide", "text_2": ["edit", "zzz"]}"#,
        )
        .await;
        check(
            "score/pairs",
            &bench,
            r#"POST /score

{"text_1": ["tide", "zzz"], "text_2": ["zzz", "zzz"]}"#,
        )
        .await;
    }

    #[tokio::test]
    async fn wrong_requests_are_told_what_is_wrong() {
        let bench = Bench::over(Scripted::new());
        let bodies = [
            r#"{"text_1": "a"}"#,
            r#"{"text_2": "a"}"#,
            r#"{"text_1": 1, "text_2": "a"}"#,
            r#"{"text_1": ["a", "b"], "text_2": ["a", "b", "c"]}"#,
            r#"{"text_1": ["a", "b"], "text_2": "a"}"#,
        ];
        check_refusals("score/refusals", &bench, "/v1/score", &bodies).await;
    }
}
