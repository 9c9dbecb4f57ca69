//! `POST /v1/rerank`: documents in the order in which they answer a query, as Cohere, Jina and vLLM spell it.
//!
//! A model that reads query and document together (a cross-encoder) says so itself; one that makes vectors ranks by
//! their cosine. The reply tells which.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::routing::post;
use axum::{Extension, Json};
use protocol::{Measure, RequestId, ScoreRequest};
use serde::Serialize;

use super::{Access, Endpoint};
use crate::app::App;
use crate::body;
use crate::failure::Problem;
use crate::fields::Fields;
use crate::observe::Call;
use crate::parameters;
use crate::reading::{Asked, TokensRead, answer, note, texts};
use crate::settings::Limits;

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint { path: "/v1/rerank", access: Access::Work, route: || post(create) },
    Endpoint { path: "/v2/rerank", access: Access::Work, route: || post(create) },
    Endpoint { path: "/rerank", access: Access::Work, route: || post(create) },
];

async fn create(
    State(app): State<Arc<App>>,
    Extension(call): Extension<Call>,
    request: Request,
) -> Result<Json<Ranking>, Problem> {
    let fields = body::read(request, &app.settings).await?;
    let (request, wanted) = asked(fields, &call, &app.settings.limits)?;
    let documents = request.documents.clone();
    call.charge(&request)?;
    let scores = answer(&app, app.inference.score(request), "documents").await?;
    note(&call, &scores.model, (scores.tokens, scores.timing));
    Ok(Json(Ranking {
        id: app.fresh_id("rerank-"),
        model: scores.model,
        measure: measure(scores.measure),
        results: ranked(scores.values, documents, &wanted),
        usage: TokensRead::new(scores.tokens),
    }))
}

/// How the scores came about.
pub(super) fn measure(measure: Measure) -> &'static str {
    match measure {
        Measure::Classifier => "classifier",
        Measure::Cosine => "cosine",
    }
}

/// Which results are told, and how much of them.
struct Wanted {
    most: usize,
    documents: Documents,
}

#[derive(Clone, Copy, PartialEq)]
enum Documents {
    Told,
    LeftOut,
}

fn asked(mut fields: Fields, call: &Call, most: &Limits) -> Result<(ScoreRequest, Wanted), Problem> {
    let asked = Asked::read(&mut fields)?;
    let query = fields.text("query")?.ok_or_else(|| fields.missing("query"))?;
    let documents = fields.list("documents")?.ok_or_else(|| fields.missing("documents"))?;
    let told = fields.boolean("return_documents")?.unwrap_or(false);
    let wanted = Wanted {
        most: fields.count("top_n", 1)?.map_or(usize::MAX, |most| most as usize),
        documents: if told { Documents::Told } else { Documents::LeftOut },
    };
    let request = ScoreRequest {
        id: RequestId(call.id.to_string()),
        model: asked.model,
        queries: vec![query],
        documents: texts(documents.into(), "documents", most)?,
        overlong: asked.overlong,
        tenant: call.tenant(),
        priority: asked.urgency.priority,
        deadline: asked.deadline,
    };
    parameters::note_unknown(fields);
    Ok((request, wanted))
}

#[derive(Serialize)]
struct Ranking {
    id: String,
    model: String,
    measure: &'static str,
    results: Vec<Ranked>,
    usage: TokensRead,
}

#[derive(Serialize)]
struct Ranked {
    index: usize,
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Document>,
}

#[derive(Serialize)]
struct Document {
    text: String,
}

/// The best first; of equal ones, the one that came first.
fn ranked(scores: Vec<f32>, documents: Vec<String>, wanted: &Wanted) -> Vec<Ranked> {
    let mut results: Vec<(usize, f32, String)> = scores
        .into_iter()
        .zip(documents)
        .enumerate()
        .map(|(index, (score, text))| (index, score, text))
        .collect();
    results.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    results.truncate(wanted.most);
    let told = |(index, relevance_score, text)| Ranked {
        index,
        relevance_score,
        document: (wanted.documents == Documents::Told).then_some(Document { text }),
    };
    results.into_iter().map(told).collect()
}

#[cfg(test)]
mod tests {
    use protocol::scripted::Scripted;

    use crate::testing::{Bench, check, check_refusals};

    fn bench() -> Bench {
        Bench::over(Scripted::new())
    }

    #[tokio::test]
    async fn the_best_come_first() {
        check("rerank/top_n", &bench(), r#"POST /v1/rerank

{"model": "scripted", "query": "tide", "documents": ["zzz", "edit", {"text": "tide"}], "top_n": 2, "return_documents": true}"#).await;
        check(
            "rerank/all",
            &bench(),
            r#"POST /rerank

{"query": "tide", "documents": ["tide", "zzz", "tide"]}"#,
        )
        .await;
    }

    #[tokio::test]
    async fn wrong_requests_are_told_what_is_wrong() {
        let bodies = [
            r#"{"documents": ["a"]}"#,
            r#"{"query": "a"}"#,
            r#"{"query": ["a"], "documents": ["a"]}"#,
            r#"{"query": "a", "documents": "a"}"#,
            r#"{"query": "a", "documents": []}"#,
            r#"{"query": "a", "documents": [{"title": "a"}]}"#,
            r#"{"query": "a", "documents": [1]}"#,
            r#"{"query": "a", "documents": ["a"], "top_n": 0}"#,
            r#"{"query": "a", "documents": ["a"], "model": "nobody"}"#,
        ];
        check_refusals("rerank/refusals", &bench(), "/v1/rerank", &bodies).await;
    }
}
